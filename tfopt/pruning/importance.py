"""How much each channel matters: array maths without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

__all__ = ["first_order_change", "magnitude_per_channel", "mean_per_channel", "relative", "sum_per_channel"]


def magnitude_per_channel(kernel: np.ndarray, axis: int) -> np.ndarray:
    """The mean magnitude of the weights at each position of an axis.

    It is the L1 norm by the number of weights, so that small and large kernels compare.

    Args:
        kernel: of any shape.
        axis: the axis of the output channels.

    Returns:
        An array of shape `(kernel.shape[axis],)`.

    Example:
        >>> magnitude_per_channel(np.array([[1.0, -4.0], [-3.0, 2.0]]), 1)
        array([2., 3.])

    References: Li et al. 2017, arXiv:1608.08710, section 3.1.
    """
    others = tuple(other for other in range(kernel.ndim) if other != axis % kernel.ndim)
    return np.abs(kernel).mean(axis=others, dtype=np.float64)


def first_order_change(weights: np.ndarray, gradient: np.ndarray, axis: int) -> np.ndarray:
    """How much a loss changes, to first order, if the weights at a position of an axis become zero: the sum of −w·g.

    Args:
        weights: of any shape.
        gradient: of the loss with respect to them, of the same shape.
        axis: the axis of the channels that the weights read.

    Returns:
        An array of shape `(weights.shape[axis],)`.

    Example:
        >>> first_order_change(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 0.0], [1.0, -1.0]]), 0)
        array([-1.,  1.])

    References: Molchanov et al. 2019, arXiv:1906.10771, eq. 8.
    """
    others = tuple(other for other in range(weights.ndim) if other != axis % weights.ndim)
    return -np.sum(weights.astype(np.float64) * gradient, axis=others)


def relative(scores: np.ndarray) -> np.ndarray:
    """Scores by their mean, so that those of different layers compare; all 1 where the mean is 0.

    Example:
        >>> relative(np.array([1.0, 3.0]))
        array([0.5, 1.5])
    """
    mean = scores.mean()
    return scores / mean if mean > 0 else np.ones_like(scores)


def sum_per_channel(parts: Iterable[tuple[np.ndarray, np.ndarray]], count: int) -> np.ndarray:
    """Adds what several layers say about each channel.

    Args:
        parts: pairs of arrays of one shape: the channel of each position, and its score.
        count: how many channels there are.

    Returns:
        An array of shape `(count,)`; 0 for a channel that no part mentions.

    Example:
        >>> sum_per_channel([(np.array([0, 0, 1]), np.array([1.0, 2.0, 5.0]))], 3)
        array([3., 5., 0.])
    """
    total = np.zeros(count)
    for channels, scores in parts:
        total += np.bincount(channels, weights=scores, minlength=count)
    return total


def mean_per_channel(parts: Iterable[tuple[np.ndarray, np.ndarray]], count: int) -> np.ndarray:
    """Averages what several layers say about each channel: first within a layer, then over the layers.

    Args:
        parts: as of `sum_per_channel`.
        count: how many channels there are.

    Returns:
        An array of shape `(count,)`; NaN for a channel that no part mentions.

    Example:
        >>> first, second = (np.array([0, 0]), np.array([1.0, 3.0])), (np.array([0, 1]), np.array([4.0, 5.0]))
        >>> mean_per_channel([first, second], 3)
        array([ 3.,  5., nan])
    """
    total, layers = np.zeros(count), np.zeros(count)
    for channels, scores in parts:
        positions = np.bincount(channels, minlength=count)
        total += np.bincount(channels, weights=scores, minlength=count) / np.maximum(positions, 1)
        layers += positions > 0
    return np.divide(total, layers, out=np.full(count, np.nan), where=layers > 0)
