"""Keras to SavedModel: one signature with named tensors and a symbolic batch, checked against Keras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfopt.artifact import TensorSpec
from tfopt.data import Samples, check_samples
from tfopt.errors import ConfigError, ExportError, ModelError, first_line
from tfopt.export.archive import write_archive
from tfopt.export.signature import SIGNATURE, call_flat, input_names, output_names
from tfopt.export.verify import Agreement, compare, relative_error

__all__ = ["UNKNOWN_SIZE", "SavedModelSignature", "input_specs", "write_saved_model"]

CHECKED_BATCH_SIZES = (1, 3)
FLOAT32_TOLERANCE = 1e-4
FLOAT16_TOLERANCE = 1e-2
# A value on the edge between two int8 steps may round either way, which moves an output by whole steps.
FAKE_QUANT_TOLERANCE = 5e-2
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
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    agreement: Agreement
    relative_error: float
    tolerance: float

    def to_dict(self) -> dict[str, Any]:
        """What was measured, as plain data for the artifact's record."""
        return {
            **self.agreement.to_dict(),
            "relative_error": self.relative_error,
            "tolerance": self.tolerance,
            "batch_sizes": list(CHECKED_BATCH_SIZES),
        }


def write_saved_model(model: keras.Model, directory: str | Path, *, data: Samples | None = None) -> SavedModelSignature:
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

    Raises:
        ConfigError: if the folder exists.
        ModelError: if the model has no named inputs (subclassed), or string or sparse ones.
        DataError: if the data does not fit.
        ExportError: if the model cannot be traced with a symbolic batch, or the file disagrees with Keras.

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

    try:
        write_archive(model, Path(directory), outputs=names, batch_size=None)
    except Exception as error:  # whatever a layer raises that cannot be traced
        raise ExportError(
            f"write_saved_model: the model '{model.name}' cannot be written with a symbolic batch size. "
            f"TensorFlow says: {first_line(error)}. Check for layers with a fixed batch size."
        ) from error
    return _check(model, Path(directory), inputs, names, samples)


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


def _check(
    model: keras.Model,
    directory: Path,
    inputs: tuple[TensorSpec, ...],
    names: list[str],
    samples: list[np.ndarray],
) -> SavedModelSignature:
    signature = tf.saved_model.load(str(directory)).signatures[SIGNATURE]

    def answer(*batch: np.ndarray) -> list[tf.Tensor]:
        answers = signature(**{spec.name: tf.constant(x) for spec, x in zip(inputs, batch, strict=True)})
        return [answers[name] for name in names]

    try:
        expected = _answers(lambda *batch: call_flat(model, batch), samples, batch_size=1)
        received = {size: _answers(answer, samples, batch_size=size) for size in CHECKED_BATCH_SIZES}
    except Exception as error:  # whatever a layer raises on samples that do not suit it
        raise ExportError(
            f"write_saved_model: the model '{model.name}' does not run on the samples it is checked on. "
            f"TensorFlow says: {first_line(error)}. Give real samples with data=, and check for layers "
            "with a fixed batch size."
        ) from error
    tolerance = _tolerance(model, signature)
    relative_errors = [
        _relative_error(f"'{name}' at batch size {size}", wanted, got, tolerance)
        for size, outputs in received.items()
        for name, wanted, got in zip(names, expected, outputs, strict=True)
    ]
    agreements = [compare(expected, outputs) for outputs in received.values()]
    tensors = [signature.structured_outputs[name] for name in names]
    return SavedModelSignature(
        inputs=inputs,
        outputs=tuple(
            TensorSpec(name=name, shape=(None, *tensor.shape[1:]), dtype=tensor.dtype.name)
            for name, tensor in zip(names, tensors, strict=True)
        ),
        agreement=max(agreements, key=lambda agreement: agreement.max_absolute_error),
        relative_error=max(relative_errors),
        tolerance=tolerance,
    )


def _answers(run: Callable[..., list], samples: list[np.ndarray], *, batch_size: int) -> list[np.ndarray]:
    starts = range(0, len(samples[0]), batch_size)
    batches = [run(*(array[start : start + batch_size] for array in samples)) for start in starts]
    return [np.concatenate([np.asarray(part) for part in parts]) for parts in zip(*batches, strict=True)]


def _tolerance(model: keras.Model, signature: Any) -> float:
    graph = signature.graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    if any(node.op.startswith("FakeQuant") for node in nodes):
        return FAKE_QUANT_TOLERANCE
    half = any("float16" in str(layer.compute_dtype) for layer in model.layers)  # bfloat16 too
    return FLOAT16_TOLERANCE if half else FLOAT32_TOLERANCE


def _relative_error(what: str, expected: np.ndarray, received: np.ndarray, tolerance: float) -> float:
    wanted, got = expected.astype(np.float64), received.astype(np.float64)
    if not np.all(np.isfinite(wanted)):
        raise ExportError(
            f"write_saved_model: the output {what} is NaN or infinite in Keras already: the file cannot "
            "be checked. Give real samples with data=."
        )
    if wanted.shape != got.shape:
        raise ExportError(
            f"write_saved_model: the output {what} must have the batch as its first axis: {wanted.shape}. "
            f"Received: {got.shape}. A server could not split such an answer between clients."
        )
    error = relative_error([wanted], [got])
    if not error <= tolerance:
        raise ExportError(
            f"write_saved_model: the output {what} must agree with Keras to {tolerance:g} of its largest "
            f"value. Received: {error:.3g}. A model that agrees at batch size 1 alone mixes the samples of a "
            "batch (a range or a mean taken over it): calibrate or train it first."
        )
    return error
