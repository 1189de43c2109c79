"""Keras to SavedModel: signatures with named tensors and a symbolic batch, checked against Keras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfopt.artifact import TensorSpec
from tfopt.data import Samples, check_samples
from tfopt.errors import ConfigError, ExportError, ModelError
from tfopt.export.archive import write_archive
from tfopt.export.image_bytes import BYTES_SIGNATURE, ImageBytes
from tfopt.export.saved_model_check import CHECKED_BATCH_SIZES, SignatureCheck, check_signature
from tfopt.export.signature import SIGNATURE, call_flat, input_names, output_names
from tfopt.export.verify import Agreement

__all__ = ["UNKNOWN_SIZE", "SavedModelSignature", "input_specs", "write_saved_model"]

# They call back into the process that wrote the model.
PYTHON_OPERATORS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
# Taken for an axis of unknown size where samples are made up.
UNKNOWN_SIZE = 32


@dataclass(frozen=True)
class SavedModelSignature:
    """The signature that was written, and how well it agrees with Keras.

    Args:
        inputs: the input tensors; the first axis, None, is the batch.
        outputs: the output tensors, likewise.
        agreement: what the comparison with Keras measured.
        relative_error: the largest error of any output, as a fraction of that output's largest value.
        tolerance: the largest `relative_error` that was allowed.
        bytes_inputs: the inputs of `serving_bytes`, where it was written.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    agreement: Agreement
    relative_error: float
    tolerance: float
    bytes_inputs: tuple[TensorSpec, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """What was measured, as plain data for the artifact's record."""
        return {
            **self.agreement.to_dict(),
            "relative_error": self.relative_error,
            "tolerance": self.tolerance,
            "batch_sizes": list(CHECKED_BATCH_SIZES),
        }


Call = Callable[[Sequence[Any]], list[Any]]
"""From the list of a model's input tensors to that of its outputs."""


def write_saved_model(
    model: keras.Model,
    directory: str | Path,
    *,
    data: Samples | None = None,
    image_bytes: ImageBytes | None = None,
    around: Callable[[Call, Sequence[tf.TensorSpec]], Call] | None = None,
) -> SavedModelSignature:
    """Writes a Sequential or Functional model as a SavedModel and checks that it answers as Keras does.

    The signature `serving_default` takes the model's input names; its outputs are the keys of a dict of
    outputs, or else the names of the layers that make them. TensorFlow needs identifiers: other characters
    become `_`, a name that does not begin with a letter or is a word of Python gets `tensor_` in front, and a
    second tensor of the same name gets `_1`. An input without a name is `input_layer`. The batch is symbolic.

    The file is loaded back and run on three samples, one at a time and all at once; the answers must be those
    Keras gives for each sample alone, as a server mixes samples of several clients in one batch. The largest
    error may be 1e-4 of the output's largest value (1e-2 with float16 or bfloat16 layers, 5e-2 with
    fake-quantized ones).

    Args:
        model: a built model of Keras 3; a quantize-aware one is exported with its fake quantization.
        directory: the folder to write; it must not exist. When the check fails, the folder is left to the
            caller, who gives a temporary one (`tfopt.artifact.write_whole`).
        data: at least one sample to check on, as `tfopt.data.check_samples` takes it; default: uniform in
            [0, 1) for floats, 0 or 1 for integers, unknown sizes being 32.
        image_bytes: writes a second signature, `serving_bytes`, which takes encoded images; it is checked on made-up
            PNG files, of the model's size against Keras and of another size for running at all.
        around: makes of the model's call, and the specs of its inputs, the one that is written.

    Raises:
        ConfigError: if the folder exists, or `image_bytes` does not suit the model.
        ModelError: if the model has no named inputs (subclassed), or string or sparse ones.
        DataError: if the data does not fit.
        ExportError: if the model cannot be traced with a symbolic batch, calls a Python function, the folder
            cannot be written, or the file disagrees with Keras.

    Example:
        >>> import tempfile
        >>> model = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(1, name="score")])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     signature = write_saved_model(model, f"{folder}/1")
        >>> signature.inputs[0].name, signature.outputs[0].name, signature.outputs[0].shape
        ('x', 'score', (None, 1))

    References: keras.io/api/models/model_saving_apis/export.
    """
    if Path(directory).exists():
        raise ConfigError(f"write_saved_model: expected a new folder. Received: {directory}, which exists.")
    inputs = input_specs(model)
    samples = _samples(model, inputs, data)
    names = output_names(model)
    more = {BYTES_SIGNATURE: _bytes_endpoint(model, inputs, image_bytes)} if image_bytes else None

    call = None
    if around:
        call = around(partial(call_flat, model), [tf.TensorSpec(spec.shape, spec.dtype) for spec in inputs])
    write_archive(model, Path(directory), outputs=names, batch_size=None, call=call, more_signatures=more)
    return _checked(model, Path(directory), inputs, names, samples, image_bytes)


def input_specs(model: keras.Model) -> tuple[TensorSpec, ...]:
    """The inputs of a model's signature, named as `write_saved_model` names them.

    Raises:
        ModelError: if the model has no named inputs (subclassed), or string or sparse ones.
    """
    tensors = getattr(model, "inputs", None)
    if not tensors:
        raise ModelError(
            "write_saved_model: expected a Sequential or Functional model, whose inputs have names. "
            f"Received: {type(model).__name__}. Wrap it: x = keras.Input(...); keras.Model(x, model(x))."
        )
    for tensor in tensors:
        if tensor.dtype == "string" or getattr(tensor, "sparse", False) or getattr(tensor, "ragged", False):
            raise ModelError(
                f"write_saved_model: expected inputs of dense numbers. Received: '{tensor.name}' of dtype "
                f"{tensor.dtype}. Export the part of the model behind the text or sparse preprocessing."
            )
    return tuple(
        TensorSpec(name=name, shape=(None, *tensor.shape[1:]), dtype=tensor.dtype)
        for name, tensor in zip(input_names(model), tensors, strict=True)
    )


def _bytes_endpoint(
    model: keras.Model, inputs: tuple[TensorSpec, ...], image_bytes: ImageBytes
) -> tuple[list[tf.TensorSpec], Callable[..., list[Any]]]:
    index = image_bytes.image_input(model)
    shape, dtype = inputs[index].shape[1:], inputs[index].dtype

    def prepare(*tensors: tf.Tensor) -> list[Any]:
        image = image_bytes.decode_batch(tensors[index], shape, dtype)  # type: ignore[arg-type]
        return [image if i == index else tensor for i, tensor in enumerate(tensors)]

    specs = [tf.TensorSpec(spec.shape, spec.dtype, name=spec.name) for spec in image_bytes.inputs(model, inputs)]
    return specs, prepare


def _samples(model: keras.Model, inputs: Sequence[TensorSpec], data: Samples | None) -> list[np.ndarray]:
    count = max(CHECKED_BATCH_SIZES)
    dtypes = [tf.as_dtype(spec.dtype) for spec in inputs]
    if data is None:
        arrays = [_synthetic((count, *x.shape[1:]), dtype) for x, dtype in zip(inputs, dtypes, strict=True)]
    else:
        arrays = check_samples(data, model.inputs, what="verification", limit=count)
    return [
        np.take(array, range(count), axis=0, mode="wrap").astype(dtype.as_numpy_dtype)
        for array, dtype in zip(arrays, dtypes, strict=True)
    ]


def _synthetic(shape: tuple[int | None, ...], dtype: tf.DType) -> np.ndarray:
    generator = np.random.default_rng(0)
    sizes = [UNKNOWN_SIZE if size is None else size for size in shape]
    return generator.random(sizes) if dtype.is_floating else generator.integers(0, 2, sizes)


def _checked(
    model: keras.Model,
    directory: Path,
    inputs: tuple[TensorSpec, ...],
    names: list[str],
    samples: list[np.ndarray],
    image_bytes: ImageBytes | None,
) -> SavedModelSignature:
    signatures = tf.saved_model.load(str(directory)).signatures
    _check_operators(signatures[SIGNATURE])
    requests = {spec.name: array for spec, array in zip(inputs, samples, strict=True)}
    checks = [check_signature(model, signatures[SIGNATURE], requests, samples, names)]
    if image_bytes:
        checks.append(_check_bytes(model, signatures[BYTES_SIGNATURE], inputs, names, samples, image_bytes))
    tensors = [signatures[SIGNATURE].structured_outputs[name] for name in names]
    return SavedModelSignature(
        inputs=inputs,
        outputs=tuple(
            TensorSpec(name=name, shape=(None, *tensor.shape[1:]), dtype=tensor.dtype.name)
            for name, tensor in zip(names, tensors, strict=True)
        ),
        agreement=max((check.agreement for check in checks), key=lambda agreement: agreement.max_absolute_error),
        relative_error=max(check.relative_error for check in checks),
        tolerance=max(check.tolerance for check in checks),
        bytes_inputs=image_bytes.inputs(model, inputs) if image_bytes else (),
    )


def _check_bytes(
    model: keras.Model,
    signature: Any,
    inputs: tuple[TensorSpec, ...],
    names: list[str],
    samples: list[np.ndarray],
    image_bytes: ImageBytes,
) -> SignatureCheck:
    index = image_bytes.image_input(model)
    files, pixels = image_bytes.examples(inputs[index], max(CHECKED_BATCH_SIZES))
    specs = image_bytes.inputs(model, inputs)

    def requests(encoded: np.ndarray) -> dict[str, np.ndarray]:
        return {spec.name: encoded if i == index else samples[i] for i, spec in enumerate(specs)}

    of_pixels = [pixels if i == index else array for i, array in enumerate(samples)]
    check = check_signature(model, signature, requests(files), of_pixels, names)
    _, height, width, channels = inputs[index].shape
    larger = TensorSpec(name="larger", shape=(None, height + 5, 2 * width + 3, channels), dtype="uint8")  # type: ignore[operator]
    files, _ = image_bytes.examples(larger, len(files))
    signature(**{name: tf.constant(array) for name, array in requests(files).items()})
    return check


def _check_operators(signature: Any) -> None:
    graph = signature.graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    in_python = [node.name for node in nodes if node.op in PYTHON_OPERATORS]
    if in_python:
        raise ExportError(
            f"write_saved_model: a server has no operator for Python functions. Received: {', '.join(in_python)}. "
            "Build the layer of other operations."
        )
