"""How sure an exit is of its answer, and which exit each sample leaves at: array maths without TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from tfopt.errors import ConfigError

__all__ = ["CONFIDENCES", "Confidence", "as_probabilities", "confidence_of", "exit_of_each", "predicted_classes"]

Confidence = Literal["probability", "entropy"]
CONFIDENCES: tuple[str, ...] = get_args(Confidence)


def as_probabilities(outputs: np.ndarray, *, from_logits: bool) -> np.ndarray:
    """The probabilities of the classes, of shape `(n, classes)`.

    Args:
        outputs: of an exit, of shape `(n, classes)`; of shape `(n, 1)` for two classes, of which it tells the second.
        from_logits: whether a softmax (for one value: a sigmoid) is still to be taken.

    Example:
        >>> as_probabilities(np.array([[0.2]]), from_logits=False).tolist()
        [[0.8, 0.2]]
    """
    values = np.asarray(outputs, np.float64)
    if values.shape[-1] == 1:
        values = np.concatenate([np.zeros_like(values) if from_logits else 1 - values, values], axis=-1)
    if not from_logits:
        return values
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def confidence_of(outputs: np.ndarray, *, kind: Confidence, from_logits: bool) -> np.ndarray:
    """How sure an exit is of each sample, in [0, 1].

    Args:
        outputs: of the exit, of shape `(n, classes)` or `(n, 1)`.
        kind: "probability": that of the likeliest class; "entropy": 1 - H / log(classes), with H the entropy of the
            classes, which is 0 where all are alike.
        from_logits: whether the outputs are logits.

    Returns:
        One number for each sample.

    Example:
        >>> confidence_of(np.array([[0.9, 0.1], [0.5, 0.5]]), kind="probability", from_logits=False).tolist()
        [0.9, 0.5]
        >>> confidence_of(np.array([[3.0, 3.0]]), kind="entropy", from_logits=True).round(6).tolist()
        [0.0]
    """
    probabilities = as_probabilities(outputs, from_logits=from_logits)
    if kind == "probability":
        return probabilities.max(axis=-1)
    logarithms = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    entropies = -(probabilities * logarithms).sum(axis=-1)
    return np.clip(1 - entropies / np.log(probabilities.shape[-1]), 0.0, 1.0)


def predicted_classes(outputs: np.ndarray, *, from_logits: bool) -> np.ndarray:
    """The likeliest class of each sample."""
    return as_probabilities(outputs, from_logits=from_logits).argmax(axis=-1)


def exit_of_each(confidences: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """Which exit each sample leaves at: the first whose confidence reaches its threshold, else the last.

    Args:
        confidences: of the exits before the last, of shape `(n, exits - 1)`.
        thresholds: one for each of these; infinity where none is to leave.

    Returns:
        The exits, counted from 0.

    Raises:
        ConfigError: if the numbers of exits differ.

    Example:
        >>> exit_of_each(np.array([[0.95, 0.2], [0.5, 0.9], [0.5, 0.6]]), (0.9, 0.8)).tolist()
        [0, 1, 2]
    """
    if confidences.ndim != 2 or confidences.shape[1] != len(thresholds):
        raise ConfigError(
            f"Expected a threshold for each exit before the last: confidences of shape (n, {len(thresholds)}). "
            f"Received: {confidences.shape}."
        )
    leaves = confidences >= np.asarray(thresholds, np.float64)
    return np.where(leaves.any(axis=1), leaves.argmax(axis=1), len(thresholds))
