"""What timings tell and how surely: intervals by bootstrap over rounds, ratios by rounds, verdicts, outliers.

Array maths only. The unit that is drawn is a run of rounds, not a call: the calls of one turn share the moment, and
so do turns that follow each other where the machine is busy for a while.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np

__all__ = [
    "ALIKE",
    "CONFIDENCE",
    "Ratio",
    "Verdict",
    "median_interval",
    "outlier_share",
    "ratio_of_rounds",
    "relative_spread",
    "verdict",
]

CONFIDENCE = 0.95
ALIKE = 0.05
"""The smallest difference that counts."""
TIME_FLOOR = 0.02
"""By how much the same file differs from one run to the next, however many calls are timed in each: where in memory it
was loaded, the core's clock. No interval of a time is narrower to either side."""
RATIO_FLOOR = 0.01
"""The same for the ratio of two files within one run."""
MIDDLE = (0.25, 0.75)
"""No interval is narrower than the middle half of the rounds: where a machine changes for longer than a run lasts, the
next run meets it in one of the states that this one met, and not in their average."""

Verdict = Literal["faster", "slower", "no difference", "too noisy to tell"]

RESAMPLES = 2000
FEWEST_ROUNDS = 5
GRID = 512


@dataclass(frozen=True)
class Ratio:
    """A ratio and its 95 % confidence interval; without rounds enough for one, `low` and `high` are None."""

    value: float
    low: float | None = None
    high: float | None = None


def median_interval(rounds: Sequence[np.ndarray]) -> tuple[float, float] | None:
    """The 95 % confidence interval of the median of all calls, by a bootstrap that draws whole rounds.

    It holds the middle half of the rounds' medians and reaches at least 2 % to either side: what runs differ by is not
    seen within one.

    Args:
        rounds: the durations of each round's calls, of shape `(calls,)`.

    Returns:
        Its ends, or None where there are fewer than five rounds.

    Example:
        >>> median_interval([np.full(3, 2.0)] * 10)
        (1.96, 2.04)
        >>> median_interval([np.full(3, 2.0)] * 4) is None
        True

    References: Politis & Romano 1992, "A Circular Block-Resampling Procedure for Stationary Data" (in Exploring the
    Limits of Bootstrap); Hesterberg 2015, doi:10.1080/00031305.2015.1089789 (percentiles further out for few draws).
    """
    if len(rounds) < FEWEST_ROUNDS:
        return None
    pooled = np.sort(np.concatenate(rounds))
    medians = [float(np.median(durations)) for durations in rounds]
    # The median of any draw lies between the lowest and the highest median of a round.
    first, last = np.searchsorted(pooled, [min(medians), max(medians)])
    values = np.unique(pooled[np.linspace(first, min(last, len(pooled) - 1), GRID).astype(int)])
    # How many calls of a draw took at most a value is a sum over its rounds: no draw is ever put together.
    below = np.stack([np.searchsorted(np.sort(durations), values, side="right") for durations in rounds])
    draws = _draw_counts(len(rounds))
    halves = draws @ np.array([len(durations) for durations in rounds]) / 2
    found = values[np.argmax(draws @ below >= halves[:, None], axis=1)]
    (low, high), (quarter, three_quarters) = np.quantile(found, _tails(len(rounds))), np.quantile(medians, MIDDLE)
    middle = float(np.median(pooled))
    lowest = min(float(low), float(quarter), (1 - TIME_FLOOR) * middle)
    return lowest, max(float(high), float(three_quarters), (1 + TIME_FLOOR) * middle)


def ratio_of_rounds(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio | None:
    """The median over rounds of the ratio of that round's medians, and its confidence interval.

    What slows the machine down for longer than a round slows both, and leaves the ratio as it is. The interval holds
    the middle half of the rounds, and reaches at least 1 % to either side.

    Args:
        numerators: one candidate's median of each round.
        denominators: the other's, in the same rounds.

    Returns:
        The ratio, without an interval where there are fewer than five rounds; None where the rounds are not the same.

    Example:
        >>> ratio_of_rounds([2.0, 4.0, 2.0], [1.0, 2.0, 1.0])
        Ratio(value=2.0, low=None, high=None)
    """
    if len(numerators) == 0 or len(numerators) != len(denominators):
        return None
    return _ratio_of_rounds(tuple(numerators), tuple(denominators))


@lru_cache(maxsize=256)
def _ratio_of_rounds(numerators: tuple[float, ...], denominators: tuple[float, ...]) -> Ratio:
    logarithms = np.log(np.array(numerators)) - np.log(np.array(denominators))
    value = float(np.exp(np.median(logarithms)))
    rounds = len(logarithms)
    if rounds < FEWEST_ROUNDS:
        return Ratio(value)
    medians = np.median(logarithms[_draws(rounds)], axis=1)
    (low, high), (quarter, three_quarters) = (
        np.exp(np.quantile(medians, _tails(rounds))),
        np.exp(np.quantile(logarithms, MIDDLE)),
    )
    lowest = min(float(low), float(quarter), value / (1 + RATIO_FLOOR))
    return Ratio(value, lowest, max(float(high), float(three_quarters), value * (1 + RATIO_FLOOR)))


def verdict(low: float, high: float, alike: float = ALIKE) -> Verdict:
    """What the interval of a speedup says of a difference that matters, one of more than `alike`.

    Args:
        low: lower end of the other's time divided by this one's: above 1 is faster.
        high: its upper end.
        alike: the smallest difference that counts, as a fraction.

    Returns:
        "faster" or "slower" where the whole interval is beyond `alike`, "no difference" where it is within, and "too
        noisy to tell" where it is on both sides of that border.

    Example:
        >>> verdict(1.7, 1.9), verdict(0.5, 0.6), verdict(0.97, 1.01), verdict(0.9, 1.4)
        ('faster', 'slower', 'no difference', 'too noisy to tell')
    """
    if low > 1 + alike:
        return "faster"
    if high < 1 / (1 + alike):
        return "slower"
    return "no difference" if low >= 1 / (1 + alike) and high <= 1 + alike else "too noisy to tell"


def outlier_share(durations: np.ndarray) -> float:
    """The fraction of calls far out: more than three interquartile ranges, and a tenth, above the upper quartile.

    Example:
        >>> outlier_share(np.array([1.0, 1.01, 1.02, 1.03] * 5 + [9.0]))
        0.047619047619047616

    References: Tukey 1977, Exploratory Data Analysis, 2D: far out.
    """
    lower, upper = np.quantile(durations, (0.25, 0.75))
    # Very short calls last one of a few ticks of the clock: their range may be nothing at all.
    return float(np.mean(durations > upper + max(3 * (upper - lower), 0.1 * upper)))


def relative_spread(medians: Sequence[float]) -> float:
    """How far the medians of rounds lie apart: the median absolute deviation as that of a normal law, over the median.

    Example:
        >>> relative_spread([1.0, 1.0, 1.0]), round(relative_spread([0.9, 1.0, 1.1]), 3)
        (0.0, 0.148)
    """
    values = np.asarray(medians)
    middle = float(np.median(values))
    return float(1.4826 * np.median(np.abs(values - middle)) / middle)


def _block(rounds: int) -> int:
    """How many rounds that follow each other are drawn together: the usual cube root, but of few rounds one."""
    return round(rounds ** (1 / 3)) if rounds >= 2 * FEWEST_ROUNDS else 1


@lru_cache(maxsize=32)
def _draws(rounds: int) -> np.ndarray:
    """The rounds of each draw, of shape `(draws, rounds)`; the same in every report."""
    block = _block(rounds)
    begins = np.random.default_rng(0).integers(0, rounds, (RESAMPLES, -(-rounds // block), 1))
    return ((begins + np.arange(block)) % rounds).reshape(RESAMPLES, -1)[:, :rounds]


@lru_cache(maxsize=32)
def _draw_counts(rounds: int) -> np.ndarray:
    """How often each round is in each draw."""
    return np.stack([np.bincount(draw, minlength=rounds) for draw in _draws(rounds)])


@lru_cache(maxsize=32)
def _tails(rounds: int) -> tuple[float, float]:
    """The percentiles to take: as far out as Student's t is for so many blocks."""
    blocks = rounds / _block(rounds)
    normal, freedom = NormalDist(), blocks - 1
    z = normal.inv_cdf((1 + CONFIDENCE) / 2)
    # Cornish and Fisher's expansion of Student's quantile: Abramowitz & Stegun 26.7.5.
    t = (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
    tail = normal.cdf(-math.sqrt(blocks / freedom) * t)
    return tail, 1 - tail
