"""The libraries that models come from: tf_keras, which is Keras 2, and tensorflow-model-optimization (tfmot)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["import_tf_keras", "import_tfmot", "is_tf_keras", "tfmot_objects"]

_SWITCH = "TF_USE_LEGACY_KERAS"


def is_tf_keras(thing: object) -> bool:
    """Whether an object is of tf_keras: a model or a layer of Keras 2, or of a class derived from one.

    Example:
        >>> is_tf_keras("model.h5")
        False
    """
    return any(base.__module__.partition(".")[0] == "tf_keras" for base in type(thing).__mro__)


def import_tf_keras() -> Any:
    """Imports tf_keras."""
    with _kept_environment():
        import tf_keras

    return tf_keras


def import_tfmot() -> Any:
    """Imports tensorflow-model-optimization, and leaves the environment and `tf.keras` as they were.

    At its import it sets TF_USE_LEGACY_KERAS, which would make `tf.keras` mean tf_keras in the rest of the program.
    """
    with _kept_environment():
        import tensorflow_model_optimization as tfmot

    return tfmot


@contextmanager
def tfmot_objects() -> Iterator[None]:
    """While the block runs, tf_keras can load files with layers of tfmot in them."""
    tfmot = import_tfmot()
    with tfmot.sparsity.keras.prune_scope(), tfmot.clustering.keras.cluster_scope():  # noqa: SIM117
        with tfmot.quantization.keras.quantize_scope():
            yield


@contextmanager
def _kept_environment() -> Iterator[None]:
    import tensorflow as tf

    tf.keras.version()  # from here on `tf.keras` is what it is
    before = os.environ.get(_SWITCH)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what they use themselves, such as the standard library's imp
            yield
    finally:
        if before is None:
            os.environ.pop(_SWITCH, None)
        else:
            os.environ[_SWITCH] = before
