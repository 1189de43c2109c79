"""How surely a candidate loses no more than it seems: the drop on held-back samples, with its confidence interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["HeldBackDrop", "held_back_drop"]

DRAWS = 500
CONFIDENCE = 0.95


@dataclass(frozen=True)
class HeldBackDrop:
    """How much less a candidate scores than the float model, on samples that nothing was chosen by.

    Args:
        drop: the float model's score less the candidate's.
        low: lower end of its 95 % confidence interval.
        high: upper end.
        samples: how many there are.
    """

    drop: float
    low: float
    high: float
    samples: int

    def verdict(self, max_drop: float) -> str:
        """What it says of the allowed drop."""
        if self.high <= max_drop:
            return f"within the {max_drop:g} allowed"
        if self.low > max_drop:
            return f"more than the {max_drop:g} allowed"
        return f"too few samples to be sure of the {max_drop:g} allowed"

    def __str__(self) -> str:
        return f"{self.drop:+.4f} ({self.low:+.4f} to {self.high:+.4f}, 95 % interval of {self.samples:,} samples)"


def held_back_drop(score_of: Callable[[str, np.ndarray], float], samples: int) -> HeldBackDrop:
    """The drop and its interval, by a bootstrap that gives both models the same samples.

    What is hard for one is mostly hard for the other, so that the difference is known better than either score.

    Args:
        score_of: gives the score of "baseline" or "candidate" on the samples of these indices.
        samples: how many there are.

    Example:
        >>> right = {"baseline": np.array([1, 1, 1, 0] * 100), "candidate": np.array([1, 1, 0, 0] * 100)}
        >>> found = held_back_drop(lambda name, indices: right[name][indices].mean(), 400)
        >>> found.drop, 0.2 < found.low < 0.25 < found.high < 0.3
        (0.25, True)

    References: Efron & Tibshirani 1993, An Introduction to the Bootstrap, 13.3 (percentile interval).
    """
    random = np.random.default_rng(0)

    def drop(indices: np.ndarray) -> float:
        return score_of("baseline", indices) - score_of("candidate", indices)

    drops = [drop(random.integers(0, samples, samples)) for _ in range(DRAWS)]
    low, high = np.quantile(drops, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return HeldBackDrop(float(drop(np.arange(samples))), float(low), float(high), samples)
