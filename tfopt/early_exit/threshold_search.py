"""The search for the thresholds at which samples leave: array maths without TensorFlow.

Over one early exit the search is exact. Over several it is a local one, from many starts: the best threshold of one
exit, the others kept, is found exactly, and exits take turns until none can be improved alone. The starts minimize
cost + price · errors for a range of prices, which needs no allowance to be shared out among the exits beforehand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tfopt.early_exit.confidence import exit_of_each
from tfopt.errors import ConfigError

__all__ = ["Judged", "mean_cost", "search_for_cost", "search_for_drop", "share_correct"]

PRICES = 32
NEVER = float("inf")


@dataclass(frozen=True, eq=False)
class Judged:
    """What the exits of a network say of labelled samples.

    Args:
        confidences: of the exits before the last, of shape `(n, exits - 1)`.
        correct: whether each exit is right, of shape `(n, exits)`.
        costs: of a sample that leaves at each exit, all that it ran before included; never falling.

    Raises:
        ConfigError: if these do not fit each other.
    """

    confidences: np.ndarray
    correct: np.ndarray
    costs: np.ndarray

    def __post_init__(self) -> None:
        samples, exits = self.correct.shape
        if samples == 0 or self.confidences.shape != (samples, exits - 1) or self.costs.shape != (exits,):
            raise ConfigError(
                f"Expected at least one sample, confidences of shape {(samples, exits - 1)} and {exits} costs. "
                f"Received: {self.confidences.shape} and {self.costs.shape}."
            )
        if np.any(np.diff(self.costs) < 0) or np.any(self.costs < 0):
            raise ConfigError(f"Expected costs that grow from exit to exit. Received: {self.costs.tolist()}.")
        if not np.all(np.isfinite(self.confidences)):
            raise ConfigError("Expected finite confidences. Received: NaN or infinity: an exit gives NaN.")


def share_correct(judged: Judged, thresholds: tuple[float, ...]) -> float:
    """Accuracy with these thresholds, in [0, 1]."""
    exits = exit_of_each(judged.confidences, thresholds)
    return float(np.mean(judged.correct[np.arange(len(exits)), exits]))


def mean_cost(judged: Judged, thresholds: tuple[float, ...]) -> float:
    """What a sample costs on average with these thresholds.

    Example:
        >>> judged = Judged(np.array([[0.9], [0.4]]), np.array([[True, True], [False, True]]), np.array([1.0, 5.0]))
        >>> mean_cost(judged, (0.8,)), share_correct(judged, (0.8,))
        (3.0, 1.0)
    """
    return float(np.mean(judged.costs[exit_of_each(judged.confidences, thresholds)]))


def search_for_drop(judged: Judged, min_accuracy: float) -> tuple[float, ...]:
    """The thresholds of least mean cost among those found that are right at least so often.

    Args:
        judged: what the exits say; the last exit must reach the accuracy.
        min_accuracy: in [0, 1].

    Raises:
        ConfigError: if the last exit is right less often.

    Example:
        >>> judged = Judged(np.array([[0.9], [0.4]]), np.array([[True, True], [False, True]]), np.array([1.0, 5.0]))
        >>> [round(threshold, 2) for threshold in search_for_drop(judged, 1.0)]
        [0.65]
    """
    samples = len(judged.correct)
    # Whole samples are counted, since a mean of floats may fall short of itself.
    max_errors = int(np.floor(samples * (1 - min_accuracy) + 1e-9 * samples))
    if np.sum(~judged.correct[:, -1]) > max_errors:
        raise ConfigError(
            f"Expected an accuracy that the last exit reaches: at most {judged.correct[:, -1].mean():.4f}. "
            f"Received: {min_accuracy:.4f}."
        )

    # What exceeds the limit is taken only where all do, and then the least of it.
    return _best(judged, lambda cost, errors: int(np.lexsort((errors, cost, np.maximum(errors, max_errors)))[0]))


def search_for_cost(judged: Judged, max_mean_cost: float) -> tuple[float, ...]:
    """The thresholds that are right most often among those found whose mean cost is at most this.

    Raises:
        ConfigError: if even the first exit costs more.
    """
    if judged.costs[0] > max_mean_cost:
        raise ConfigError(
            f"Expected a mean cost that can be reached: at least {judged.costs[0]:.6g}, that of the first exit. "
            f"Received: {max_mean_cost:.6g}."
        )
    limit = max_mean_cost * len(judged.correct) * (1 + 1e-12)
    return _best(judged, lambda cost, errors: int(np.lexsort((cost, errors, np.maximum(cost, limit)))[0]))


Choice = Callable[[np.ndarray, np.ndarray], int]
"""Picks one of several settings by their costs and numbers of errors, over all samples."""


def _best(judged: Judged, choose: Choice) -> tuple[float, ...]:
    early = judged.confidences.shape[1]
    largest = float(judged.costs[-1] - judged.costs[0]) or 1.0
    starts = [(NEVER,) * early, (0.0,) * early]
    for price in largest * np.geomspace(1e-2, len(judged.correct), PRICES):
        starts.append(_in_turns(judged, starts[0], _cheapest(price)))
    found = [_in_turns(judged, start, choose) for start in dict.fromkeys(starts)]
    cost, errors = np.array([_totals(judged, thresholds) for thresholds in found]).T
    return found[choose(cost, errors)]


def _cheapest(price: float) -> Choice:
    return lambda cost, errors: int(np.argmin(cost + price * errors))


def _in_turns(judged: Judged, thresholds: tuple[float, ...], choose: Choice) -> tuple[float, ...]:
    """Chooses each threshold anew, the others kept, until nothing changes."""
    seen = set()
    while thresholds not in seen:
        seen.add(thresholds)
        for exit_ in reversed(range(len(thresholds))):
            thresholds = _with_best(judged, thresholds, exit_, choose)
    return thresholds


def _with_best(judged: Judged, thresholds: tuple[float, ...], exit_: int, choose: Choice) -> tuple[float, ...]:
    """Tries every threshold of one exit that makes a difference."""
    without = (*thresholds[:exit_], NEVER, *thresholds[exit_ + 1 :])
    onward = exit_of_each(judged.confidences, without)
    reaching = np.flatnonzero(onward > exit_)
    confidences = judged.confidences[reaching, exit_]
    order = np.argsort(-confidences, kind="stable")
    reaching, confidences = reaching[order], confidences[order]
    rows = np.arange(len(onward))
    cost, right = judged.costs[onward], judged.correct[rows, onward]
    saved = np.cumsum(cost[reaching] - judged.costs[exit_])
    added = np.cumsum(right[reaching].astype(int) - judged.correct[reaching, exit_])
    # Samples of one confidence leave together.
    ends = np.flatnonzero(np.append(confidences[:-1] > confidences[1:], True)) if len(reaching) else np.array([], int)
    index = choose(
        cost.sum() - np.concatenate([[0.0], saved[ends]]), np.sum(~right) + np.concatenate([[0], added[ends]])
    )
    if index == 0:
        return without
    last = ends[index - 1]
    threshold = float(confidences[last])
    if last + 1 < len(confidences):
        # Between two samples rather than at one, so that another runtime's last digits move none of them.
        between = float((threshold + confidences[last + 1]) / 2)
        threshold = between if between > confidences[last + 1] else threshold
    return (*thresholds[:exit_], threshold, *thresholds[exit_ + 1 :])


def _totals(judged: Judged, thresholds: tuple[float, ...]) -> tuple[float, float]:
    exits = exit_of_each(judged.confidences, thresholds)
    return float(judged.costs[exits].sum()), float(np.sum(~judged.correct[np.arange(len(exits)), exits]))
