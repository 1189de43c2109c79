"""How far a file's answers agree with the baseline's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

__all__ = ["Agreement", "agreement"]

SUM_TOLERANCE = 0.05
"""Of the probabilities of a sample: in int8 each is off by up to half a step of 1/256."""


class Agreement(BaseModel):
    """How far outputs are those of the baseline, whether either is right or not.

    Args:
        top1: fraction of the samples, in [0, 1], for which both name the same class: the largest of several
            outputs, or the side of 0.5 of a single one. None where the outputs are not those of a classifier.
        relative_error: root mean square of the difference, as a fraction of the root mean square of the baseline's
            output; of several outputs that of the worst. None where the baseline's is zero throughout, or a value is
            not finite.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    top1: float | None = None
    relative_error: float | None = None


def agreement(
    baseline: Sequence[np.ndarray], outputs: Sequence[np.ndarray], *, classes: bool | None = None
) -> Agreement | None:
    """Compares the outputs of a file with those of the baseline on the same samples.

    Args:
        baseline: an array of shape `(n, ...)` for each output of the baseline.
        outputs: likewise of the other file, in the same order.
        classes: whether the only output tells classes; by default it does where the baseline's values of each sample
            are several, not negative, and add up to 1.

    Returns:
        The agreement, or None where the outputs differ in number or size and cannot be compared.

    Example:
        >>> agreement([np.array([[0.9, 0.1], [0.2, 0.8]])], [np.array([[0.8, 0.2], [0.6, 0.4]])]).top1
        0.5
        >>> agreement([np.array([[2.0], [4.0]])], [np.array([2.5, 5.0])]).relative_error
        0.25
    """
    if len(baseline) != len(outputs) or any(
        one.size != other.size for one, other in zip(baseline, outputs, strict=True)
    ):
        return None
    pairs = [
        (np.asarray(one, np.float64), np.asarray(other, np.float64).reshape(one.shape))
        for one, other in zip(baseline, outputs, strict=True)
    ]
    tells_classes = _are_probabilities(pairs[0][0]) if classes is None else classes
    errors = [_relative_error(one, other) for one, other in pairs]
    known = [error for error in errors if error is not None]
    return Agreement(
        top1=_same_class(*pairs[0]) if len(pairs) == 1 and tells_classes else None,
        relative_error=max(known) if known and len(known) == len(errors) else None,
    )


def _are_probabilities(values: np.ndarray) -> bool:
    several = values.ndim > 1 and values.shape[-1] > 1
    return several and bool((values >= 0).all() and (np.abs(values.sum(axis=-1) - 1) <= SUM_TOLERANCE).all())


def _same_class(baseline: np.ndarray, outputs: np.ndarray) -> float:
    if baseline.ndim > 1 and baseline.shape[-1] > 1:
        return float(np.mean(baseline.argmax(axis=-1) == outputs.argmax(axis=-1)))
    return float(np.mean((baseline > 0.5) == (outputs > 0.5)))


def _relative_error(baseline: np.ndarray, outputs: np.ndarray) -> float | None:
    scale = np.sqrt(np.mean(np.square(baseline)))
    error = np.sqrt(np.mean(np.square(outputs - baseline)))
    return float(error / scale) if scale > 0 and np.isfinite(scale) and np.isfinite(error) else None
