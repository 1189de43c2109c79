"""Whether a signature of a SavedModel answers as Keras does, whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfopt.errors import ExportError, first_line
from tfopt.export.signature import call_flat
from tfopt.export.verify import Agreement, compare, relative_error

__all__ = ["CHECKED_BATCH_SIZES", "SignatureCheck", "check_signature"]

CHECKED_BATCH_SIZES = (1, 3)
FLOAT32_TOLERANCE = 1e-4
FLOAT16_TOLERANCE = 1e-2
# A value on the edge between two int8 steps may round either way, which moves an output by whole steps.
FAKE_QUANT_TOLERANCE = 5e-2


@dataclass(frozen=True)
class SignatureCheck:
    """What the comparison of a signature with Keras measured.

    Args:
        agreement: of the batch size that agreed least.
        relative_error: the largest error of any output, as a fraction of that output's largest value.
        tolerance: the largest `relative_error` that was allowed.
    """

    agreement: Agreement
    relative_error: float
    tolerance: float


def check_signature(
    model: keras.Model,
    signature: Any,
    requests: Mapping[str, np.ndarray],
    samples: list[np.ndarray],
    outputs: list[str],
) -> SignatureCheck:
    """Runs a signature on samples one at a time and all at once, and Keras on each sample alone.

    Args:
        model: the model.
        signature: as `tf.saved_model.load` gives it.
        requests: what it is asked, for each of its inputs an array of shape `(3, ...)`.
        samples: the same as the model takes it, in the order of its inputs.
        outputs: the names of the outputs, in order.

    Raises:
        ExportError: if either does not run, or they disagree.
    """

    def answer(*batch: np.ndarray) -> list[tf.Tensor]:
        answers = signature(**{name: tf.constant(x) for name, x in zip(requests, batch, strict=True)})
        return [answers[name] for name in outputs]

    asked = list(requests.values())
    try:
        expected = _answers(lambda *batch: call_flat(model, batch), samples, batch_size=1)
        received = {size: _answers(answer, asked, batch_size=size) for size in CHECKED_BATCH_SIZES}
    except Exception as error:  # whatever a layer raises on samples that do not suit it
        raise ExportError(
            f"write_saved_model: the model '{model.name}' does not run on the samples it is checked on. "
            f"TensorFlow says: {first_line(error)}. Give real samples with data=, and check for layers "
            "with a fixed batch size."
        ) from error
    tolerance = _tolerance(model, signature)
    relative_errors = [
        _relative_error(f"'{name}' at batch size {size}", wanted, got, tolerance)
        for size, answers in received.items()
        for name, wanted, got in zip(outputs, expected, answers, strict=True)
    ]
    agreements = [compare(expected, answers) for answers in received.values()]
    return SignatureCheck(
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
