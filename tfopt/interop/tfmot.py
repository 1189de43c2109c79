"""The way from tf_keras and tensorflow-model-optimization (tfmot) to Keras 3."""

from __future__ import annotations

from typing import Any

import keras

from tfopt.data import Samples
from tfopt.interop.layer_configs import CustomObjects
from tfopt.interop.legacy import is_tf_keras
from tfopt.interop.migration import migrate

__all__ = ["from_tf_keras", "in_keras_3"]


def from_tf_keras(
    model: Any, *, custom_objects: CustomObjects | None = None, calibration: Samples | None = None
) -> keras.Model:
    """Returns a tf_keras (Keras 2) model as a Keras 3 model that computes the same.

    Use it on a model that tfmot pruned, clustered or made quantize-aware, and on old HDF5 files that Keras 3 does not
    load, such as those with `DepthwiseConv2D(groups=...)`. Each layer becomes the one of Keras 3 with its settings and
    weights; nested models stay nested, shared layers shared. Then both run on random inputs, and what computes
    otherwise is an error. The given model is left as it is.

    - A **pruned** model comes without wrappers and with its zeros, a **clustered** one with its shared values. Train it
      on with `callbacks=[tfopt.callbacks.PreserveCompression()]`, which keeps both.
    - A **quantize-aware** one becomes what `tfopt.quantize_aware` returns, with the ranges of tfmot: train it on, or
      export it. Its outputs differ from tfmot's by a step of the int8 grid here and there, since tfopt rounds as the
      int8 file will: depthwise kernels per channel, biases too.

    `tfopt.interop.migration.migrate` does the same and reports what each layer brought along; `tfopt migrate FILE` does
    it to a file.

    Args:
        model: a built Sequential or Functional model of tf_keras.
        custom_objects: for the class name of a layer of your own, the Keras 3 layer that takes its place, with the
            same config and the same weights in the same order; for the name of an activation, its function.
        calibration: for a quantize-aware model, samples for the ranges that tfmot does not have. Without them the first
            training batch sets those.

    Raises:
        ModelError: if the model is subclassed or not built, a layer has no translation (the message names it and what
            to do), or the translation computes otherwise.

    Example:
        >>> from tfopt.interop.legacy import import_tf_keras
        >>> tf_keras = import_tf_keras()
        >>> old = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(3, "relu", name="hidden")])
        >>> model = from_tf_keras(old)
        >>> isinstance(model, keras.Model), [layer.name for layer in model.layers]
        (True, ['hidden'])
    """
    return migrate(model, custom_objects=custom_objects, calibration=calibration).model


def in_keras_3(model: Any, *, calibration: Samples | None = None) -> Any:
    """Returns a tf_keras model translated, and anything else as it is: the door of verbs that take both."""
    return from_tf_keras(model, calibration=calibration) if is_tf_keras(model) else model
