"""Which range an activation's grid should have: percentile, least squared error, least loss of information.

All of it works on a histogram of the activation's values, so that samples can come batch by batch. Exact zeros are
counted apart: every grid has zero as one of its points, so they are kept exactly wherever the ends lie. The spike that
a ReLU leaves at zero would otherwise outweigh all other values (NVIDIA's pytorch-quantization leaves zeros out of its
histograms for the same reason: its option `skip_zeros`, and the first bin, which its entropy search overwrites).

References: Migacz 2017, "8-bit Inference with TensorRT", GTC; Wu et al. 2020, arXiv:2004.09602, section 4.2.
"""

from __future__ import annotations

import numpy as np

__all__ = ["Histogram", "entropy_range", "mse_range", "percentile_range"]

BINS = 4096
"""Sixteen to each step of an int8 grid: a range may shrink to a sixteenth before its steps are as fine as the bins."""
COVERAGE = 0.9999
LEAST_GAIN = 0.99
"""A range that lowers the squared error by less than a hundredth is not told from the whole one by bins."""
MOST_PAIRS = 1 << 18
MOST_PAIRS_BY_ENTROPY = 1 << 14
VALUES_PER_BIN = 16
"""On average, from which on the divergence tells more of the distribution than of chance."""


class Histogram:
    """Counts of an activation's values, in bins of equal width between its extremes, widened to hold zero.

    Args:
        minimum: the smallest value that will be added.
        maximum: the largest.
        bins: how many.

    Attributes:
        counts: of the values but exact zeros, shape `(bins,)`.
        edges: between the bins, shape `(bins + 1,)`.
    """

    def __init__(self, minimum: float, maximum: float, bins: int = BINS) -> None:
        self.minimum, self.maximum = float(minimum), float(maximum)
        self.edges = np.linspace(min(self.minimum, 0.0), max(self.maximum, 0.0), bins + 1)
        self.counts = np.zeros(bins, np.int64)

    def add(self, values: np.ndarray) -> None:
        """Counts values of any shape."""
        if self.edges[-1] > self.edges[0]:
            zero = self._places(np.zeros(1, values.dtype))
            self.counts += np.bincount(self._places(values.ravel()), minlength=len(self.counts))
            self.counts[zero] -= values.size - np.count_nonzero(values)

    def _places(self, values: np.ndarray) -> np.ndarray:
        lowest, width = (values.dtype.type(x) for x in (self.edges[0], self.edges[-1] - self.edges[0]))
        bins = len(self.counts)
        return np.clip((values - lowest) / width * bins, 0, bins - 1).astype(np.intp)

    def clipped(self, minimum: float, maximum: float) -> tuple[float, float]:
        """The part of a range that values reach."""
        return tuple(float(np.clip(end, self.minimum, self.maximum)) for end in (minimum, maximum))  # type: ignore[return-value]


def percentile_range(histogram: Histogram, *, coverage: float = COVERAGE) -> tuple[float, float]:
    """The range that holds a share of the values other than zero, with as many left out at either end.

    Args:
        histogram: of the values.
        coverage: the share, in (0, 1].

    Example:
        >>> histogram = Histogram(0.0, 1.0)
        >>> histogram.add(np.linspace(0, 1, 100_001))
        >>> [round(end, 3) for end in percentile_range(histogram, coverage=0.98)]
        [0.01, 0.99]
    """
    below = np.concatenate(([0], np.cumsum(histogram.counts)))
    outside = (1 - coverage) / 2 * below[-1]
    # Where no value lies the count does not rise: the lower end is the last such place, the upper end the first.
    filled = np.flatnonzero(histogram.counts)
    if not len(filled):
        return histogram.minimum, histogram.maximum
    places = np.unique(np.concatenate((filled, filled + 1)))
    lower, upper = np.interp([outside, below[-1] - outside], below[places], histogram.edges[places])
    return histogram.clipped(lower, upper)


def mse_range(histogram: Histogram, *, steps: int) -> tuple[float, float]:
    """The range whose grid gives the least squared error: rounding inside it, clipping outside.

    A narrower range has finer steps and clips more. Every pair of ends is tried (pairs of bin edges, about 500 by 500
    where the values have both signs), with the error of rounding taken as step²/12. Where the values lie on a grid
    already (bytes of an image) that is too much, so the best pair must also beat the whole range, by a hundredth, when
    both are computed in full.

    Args:
        histogram: of the values.
        steps: of the grid, one less than its points.
    """
    edges, counts = histogram.edges, histogram.counts
    if not counts.any():
        return histogram.minimum, histogram.maximum
    lows, highs = _ends(histogram, np.arange(len(counts)), MOST_PAIRS)
    width = edges[1] - edges[0]
    centres = edges[:-1] + width / 2
    # Σ (x - end)² over all bins beyond an end, from running sums of 1, x and x²; a bin's values vary by width²/12.
    sums = [np.concatenate(([0], np.cumsum(counts * values))) for values in (1.0, centres, centres**2 + width**2 / 12)]

    def clipping(bins: np.ndarray, beyond: list[np.ndarray]) -> np.ndarray:
        mass, first, second = beyond
        return second - 2 * edges[bins] * first + edges[bins] ** 2 * mass

    below = clipping(lows, [total[lows] for total in sums])
    above = clipping(highs, [total[-1] - total[highs] for total in sums])
    inside = sums[0][highs][None, :] - sums[0][lows][:, None]
    step = (edges[highs][None, :] - edges[lows][:, None]) / steps
    error = inside * step**2 / 12 + below[:, None] + above[None, :]
    low, high = np.unravel_index(np.argmin(error), error.shape)
    whole, best = (edges[0], edges[-1]), (edges[lows[low]], edges[highs[high]])
    if _squared_error(histogram, *best, steps) > LEAST_GAIN * _squared_error(histogram, *whole, steps):
        return histogram.minimum, histogram.maximum
    return histogram.clipped(*best)


def entropy_range(histogram: Histogram, *, steps: int) -> tuple[float, float]:
    """The range whose grid keeps most of the information: the least Kullback-Leibler divergence.

    TensorRT's search, for both ends. The reference p is the histogram within the range, with what is clipped added to
    its outermost bins; q has as many groups of bins as the grid has points, and in each group the mean count
    wherever there was one. Unlike there q is not scaled up to make good for what was clipped: a range that held
    a single bin of the histogram would have no divergence.

    Few values (below 16 a bin) tell of chance more than of their distribution, and bins wider than the steps (of a
    16-bit grid) of no loss: the range is then the whole one.

    Args:
        histogram: of the values.
        steps: of the grid, one less than its points.
    """
    counts, points = histogram.counts, steps + 1
    lows, highs = _ends(histogram, np.flatnonzero(counts), MOST_PAIRS_BY_ENTROPY)
    low, high = (ends.ravel() for ends in np.meshgrid(lows, highs, indexing="ij"))
    wide = high - low >= points
    if counts.sum() < VALUES_PER_BIN * len(counts) or not wide.any():
        return histogram.minimum, histogram.maximum
    low, high = low[wide], high[wide]
    mass = np.concatenate(([0], np.cumsum(counts)))
    filled = np.concatenate(([0], np.cumsum(counts > 0)))
    information = np.concatenate(([0], np.cumsum(counts * _log(counts))))
    bounds = low[:, None] + (high - low)[:, None] * np.arange(points + 1) // points
    grouped, occupied = np.diff(mass[bounds]), np.diff(filled[bounds])
    log_mean = _log(grouped / np.maximum(occupied, 1))
    # Σ p log(p / q), times the number of values: first as if nothing were clipped, then the outermost bins, to which
    # the clipped values are added.
    divergence = information[high] - information[low] - np.sum(grouped * log_mean, axis=1)
    for end, group, clipped in ((low, 0, mass[low]), (high - 1, -1, mass[-1] - mass[high])):
        count = counts[end]
        divergence += (count + clipped) * _log(count + clipped) - count * _log(count) - clipped * log_mean[:, group]
    # Of several that lose as little, the widest.
    best = np.lexsort((low - high, (divergence / mass[-1]).round(12)))[0]
    return histogram.clipped(histogram.edges[low[best]], histogram.edges[high[best]])


def _ends(histogram: Histogram, bins: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges at which ranges that hold zero may begin and end, as indices, and at most so many pairs of them.

    Args:
        histogram: whose edges.
        bins: the bins that may be the outermost ones.
        most: how many pairs; where there are more, edges are left out evenly.
    """
    edges = histogram.edges
    lows = np.unique(np.append(bins[edges[bins] <= 0], 0))
    highs = np.unique(np.append(bins[edges[bins + 1] >= 0] + 1, len(edges) - 1))
    # Where one side has few edges, the other may keep more.
    fewer = min(len(lows), len(highs), int(most**0.5))

    def thinned(ends: np.ndarray) -> np.ndarray:
        return ends[np.linspace(0, len(ends) - 1, min(len(ends), most // fewer)).round().astype(int)]

    return thinned(lows), thinned(highs)


def _squared_error(histogram: Histogram, low: float, high: float, steps: int) -> float:
    """Σ (x - quantized x)², with each bin's values spread evenly over it."""
    step = (high - low) / steps
    low = np.round(low / step) * step  # zero is a grid point
    high = low + steps * step
    starts, ends = histogram.edges[:-1], histogram.edges[1:]

    def integral(x: np.ndarray) -> np.ndarray:
        # Of the squared error from the grid point `low` to x: whole steps, a third power within the last,
        # and third powers beyond the ends.
        within = np.clip(x, low, high) - low
        whole = np.round(within / step)
        return whole * step**3 / 12 + (within - whole * step) ** 3 / 3 + (x - np.clip(x, low, high)) ** 3 / 3

    return float(np.sum(histogram.counts * (integral(ends) - integral(starts)) / (ends - starts)))


def _log(x: np.ndarray) -> np.ndarray:
    """The logarithm, 0 at 0: `x log x` is then 0."""
    return np.log(np.where(x > 0, x, 1.0))
