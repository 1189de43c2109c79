"""Writing a model as a SavedModel with signatures of named tensors: what every exporter starts from."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfopt.errors import ExportError, first_line
from tfopt.export.signature import SIGNATURE, call_flat, input_names

__all__ = ["write_archive"]


def write_archive(
    model: keras.Model,
    directory: Path,
    *,
    outputs: list[str],
    batch_size: int | None,
    call: Callable[[Sequence[Any]], list[Any]] | None = None,
    more_signatures: Mapping[str, tuple[Sequence[Any], Callable[..., Sequence[Any]]]] | None = None,
) -> Any:
    """Writes the model's inference to a new folder.

    Args:
        model: a model with symbolic inputs.
        directory: the folder.
        outputs: the names of its outputs, in order.
        batch_size: of the signature; None leaves it open. The TFLite converter needs a number: an open one makes
            dynamic-shape operators.
        call: how the model is run on a flat list of inputs; by default as Keras does.
        more_signatures: by name, the `tf.TensorSpec`s of the inputs of a further signature with the same outputs, and
            the function that makes the model's inputs of them.

    Returns:
        The concrete TensorFlow function of the signature `serving_default`.

    Raises:
        ExportError: if a layer cannot be traced, or the folder cannot be written, as on a full disk.
    """

    def infer(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(zip(outputs, call(tensors) if call else call_flat(model, tensors), strict=True))

    specs = [
        tf.TensorSpec((batch_size, *tensor.shape[1:]), tensor.dtype, name=name)
        for name, tensor in zip(input_names(model), model.inputs, strict=True)
    ]
    archive = keras.export.ExportArchive()
    archive.track(model)
    try:
        function = archive.add_endpoint(SIGNATURE, infer, specs)
        for name, (more_specs, prepare) in (more_signatures or {}).items():
            archive.add_endpoint(name, _after(prepare, infer), list(more_specs))
        with _quiet_tensorflow():
            archive.write_out(str(directory), verbose=False)
    except (OSError, tf.errors.OpError) as error:
        raise ExportError(
            f"Cannot write the SavedModel of '{model.name}': expected free space in {directory.parent}. "
            f"Received: {first_line(error)}. Free some, or choose another place (for temporary files TMPDIR tells it)."
        ) from error
    except Exception as error:  # whatever a layer raises that cannot be traced
        size = "a symbolic batch size" if batch_size is None else f"batch size {batch_size}"
        raise ExportError(
            f"The model '{model.name}' cannot be written as a TensorFlow graph with {size}: {_told(error)} "
            "Check for layers with a fixed batch size, and that layers of your own compute with keras.ops or "
            "TensorFlow, not with NumPy or Python numbers."
        ) from error
    return function.get_concrete_function()


def _after(
    prepare: Callable[..., Sequence[Any]], infer: Callable[..., dict[str, Any]]
) -> Callable[..., dict[str, Any]]:
    return lambda *tensors: infer(*prepare(*tensors))


def _told(error: Exception) -> str:
    """The first two lines of an error: Keras tells the layer in the first, and the reason, in bold, in the next."""
    lines = [line.strip() for line in re.sub(r"\x1b\[\d*m", "", str(error)).splitlines()]
    return " ".join([line for line in lines if line][:2]) or type(error).__name__


@contextmanager
def _quiet_tensorflow() -> Iterator[None]:
    """Holds back "Assets written to a temporary folder", which tells a user nothing."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
