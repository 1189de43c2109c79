"""By what ensembles are chosen: accuracy and then the log loss, R² of values, or the user's own metric."""

from __future__ import annotations

import numpy as np

from tfopt.benchmark.metric import ACCURACIES, MetricChoice
from tfopt.benchmark.metric import score as measured_score
from tfopt.ensemble.greedy_selection import Score

__all__ = ["log_loss", "selection_score"]

SMALLEST_PROBABILITY = 1e-7


def selection_score(targets: np.ndarray, metric: MetricChoice, name: str) -> Score:
    """What is maximized.

    The metric counts; equal accuracies, which are common on few samples, are told apart by the log loss.

    Args:
        targets: as `tfopt.benchmark.metric.score` takes them.
        metric: likewise.
        name: what that metric is called.
    """

    def score(mean: np.ndarray) -> tuple[float, ...]:
        value = measured_score(targets, [mean], metric).value
        return (value, -log_loss(targets, mean)) if name in ACCURACIES else (value,)

    return score


def log_loss(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """The mean negative logarithm of the right class's probability, in nats.

    Args:
        targets: class numbers of shape `(n, ...)`, one-hot rows, or 0 and 1 for a single probability.
        probabilities: of shape `(n, ..., classes)`; the last axis has one entry for a single probability.

    Example:
        >>> round(log_loss(np.array([0, 1]), np.array([[0.5, 0.5], [0.0, 1.0]])), 4)
        0.3466
        >>> round(log_loss(np.array([0, 1]), np.array([[0.5], [1.0]])), 4)
        0.3466
    """
    if probabilities.shape[-1] == 1:
        right = np.where(targets.reshape(probabilities.shape) > 0.5, probabilities, 1 - probabilities)
    elif targets.shape == probabilities.shape:
        right = (targets * probabilities).sum(axis=-1)
    else:
        classes = targets.reshape((*probabilities.shape[:-1], 1)).astype(np.int64)
        right = np.take_along_axis(probabilities, classes, axis=-1)
    return float(-np.mean(np.log(np.maximum(right, SMALLEST_PROBABILITY))))
