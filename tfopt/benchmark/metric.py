"""How good predictions are: one number, and the name of what it measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfopt.errors import ConfigError, DataError

__all__ = ["ACCURACIES", "Score", "check_metric", "is_regression", "score"]

TOP1 = "top-1 accuracy"
THRESHOLD = "accuracy at threshold 0.5"
ACCURACIES = (TOP1, THRESHOLD)
"""The metrics that are a fraction of the samples, so that their differences are points."""

MetricChoice = str | Callable[[Any, Any], float] | None


@dataclass(frozen=True)
class Score:
    """A value and what it measures; higher is better."""

    metric: str
    value: float


def check_metric(metric: MetricChoice) -> None:
    """Refuses what `score` cannot use, before anything is measured.

    Raises:
        ConfigError: if the metric is neither known nor callable.
    """
    if not (metric is None or callable(metric) or metric in ("accuracy", "r2")):
        raise ConfigError(
            'benchmark: metric must be "accuracy", "r2" or a callable (targets, predictions) -> float. '
            f"Received: {metric!r}."
        )


def score(targets: Any, predictions: list[np.ndarray], metric: MetricChoice = None) -> Score:
    """Scores the predictions of a model.

    Args:
        targets: class numbers of shape `(n,)` or `(n, ...)`, one-hot rows, or float values.
        predictions: one array of shape `(n, ...)` for each output of the model.
        metric: "accuracy", "r2", a callable, or None to choose by the targets. A callable is given the
            targets as they came in and the predictions: the array of the only output, or the list of all.

    Raises:
        DataError: if targets and predictions do not fit each other.
        ConfigError: if the model has several outputs and no callable says how to score them.

    Example:
        >>> score([1, 0], [np.array([[0.1, 0.9], [0.2, 0.8]])])
        Score(metric='top-1 accuracy', value=0.5)
        >>> score([0.5, 1.5], [np.array([[0.5], [1.5]])])
        Score(metric='R²', value=1.0)
    """
    if callable(metric):
        value = float(metric(targets, predictions[0] if len(predictions) == 1 else predictions))
        name = getattr(metric, "__name__", type(metric).__name__)
        if not np.isfinite(value):
            raise DataError(f"benchmark: the metric {name} must return a finite number. Received: {value}.")
        return Score(name, value)
    if len(predictions) > 1:
        raise ConfigError(
            f"benchmark: the model has {len(predictions)} outputs and no metric says how to score them. "
            "Give metric=callable(targets, predictions), where predictions is the list of the outputs."
        )
    expected, predicted = np.asarray(targets), predictions[0]
    if len(expected) != len(predicted):
        raise DataError(
            f"benchmark: expected one target for each of the {len(predicted)} samples. Received: {len(expected)}."
        )
    if metric == "accuracy" or (metric is None and _are_classes(expected, predicted)):
        return _accuracy(expected, predicted)
    if not np.issubdtype(expected.dtype, np.number):
        raise DataError(f"benchmark: targets must be numbers. Received dtype: {expected.dtype}.")
    return _r2(expected, predicted)


def is_regression(targets: Any, predictions: list[np.ndarray], metric: MetricChoice = None) -> bool:
    """Whether targets and the only output are quantities of one kind, so that their difference means something.

    They are under the metric "r2", and without a metric or with a callable where the targets are as many float values
    as the predictions, and not one-hot rows.

    Example:
        >>> is_regression([0.5, 1.5], [np.array([[0.4], [1.6]])])
        True
        >>> is_regression([1, 0], [np.array([[0.1, 0.9], [0.8, 0.2]])])
        False
    """
    if len(predictions) != 1 or metric == "accuracy":
        return False
    expected = np.asarray(targets)
    if expected.size != predictions[0].size or not np.issubdtype(expected.dtype, np.number):
        return False
    return metric == "r2" or not _are_classes(expected, predictions[0])


def _are_classes(targets: np.ndarray, predicted: np.ndarray) -> bool:
    whole = np.issubdtype(targets.dtype, np.integer) or targets.dtype == bool
    return whole or _is_one_hot(targets, predicted)


def _is_one_hot(targets: np.ndarray, predicted: np.ndarray) -> bool:
    several = targets.ndim >= 2 and targets.shape == predicted.shape and targets.shape[-1] > 1
    return several and bool(np.isin(targets, (0, 1)).all() and (targets.sum(axis=-1) == 1).all())


def _accuracy(targets: np.ndarray, predicted: np.ndarray) -> Score:
    if _is_one_hot(targets, predicted):
        return Score(TOP1, float(np.mean(targets.argmax(-1) == predicted.argmax(-1))))
    binary = predicted.ndim == 1 or predicted.shape[-1] == 1
    classes = predicted if predicted.ndim == 1 else predicted[..., 0] if binary else predicted.argmax(-1)
    if targets.size != classes.size:
        raise DataError(
            f"benchmark: expected one class number for each prediction, of shape {classes.shape}. "
            f"Received targets of shape {targets.shape}."
        )
    targets = targets.reshape(classes.shape)
    if not binary:
        return Score(TOP1, float(np.mean(targets == classes)))
    if classes.min() < 0 or classes.max() > 1:
        raise DataError(
            "benchmark: class numbers and a single output are scored at the threshold 0.5, so the output "
            f"must be a probability in [0, 1]. "
            f"Received values in [{classes.min():.3g}, {classes.max():.3g}]. "
            'Give metric="r2" for a regression, or a callable for a logit.'
        )
    return Score(THRESHOLD, float(np.mean((targets > 0.5) == (classes > 0.5))))


def _r2(targets: np.ndarray, predicted: np.ndarray) -> Score:
    from sklearn.metrics import r2_score

    if targets.size != predicted.size:
        raise DataError(
            f"benchmark: targets must have the predictions' shape {predicted.shape}. Received: {targets.shape}."
        )
    if len(targets) < 2:
        raise DataError("benchmark: R² needs at least two samples. Received: 1.")
    n = len(targets)
    return Score("R²", float(r2_score(targets.reshape(n, -1), predicted.reshape(n, -1))))
