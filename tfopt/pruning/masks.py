"""Masks of the weights to keep, by magnitude: pure array maths, no TensorFlow."""

from __future__ import annotations

import math

import numpy as np

from tfopt.errors import ConfigError, ModelError

__all__ = [
    "NOTABLE_SPARSITY",
    "check_sparsity",
    "kept_count",
    "largest",
    "magnitude_mask",
    "pruned_mask",
    "sparsity_of",
]

NOTABLE_SPARSITY = 0.05
"""From this fraction of zeros on a kernel counts as pruned: training alone leaves hardly any weight exactly zero."""


def kept_count(size: int, sparsity: float) -> int:
    """How many of `size` weights stay at a sparsity: round((1 - sparsity) * size), but at least one.

    A half is rounded to the even neighbour. A sparsity of type float32, such as the schedules of
    tensorflow-model-optimization give, is computed with in float32, as that package does.

    Example:
        >>> kept_count(9, 0.8), kept_count(9, 0.99)
        (2, 1)
    """
    return max(round((1 - sparsity) * size), min(size, 1))


def magnitude_mask(weights: np.ndarray, sparsity: float) -> np.ndarray:
    """Marks the `kept_count` weights of largest magnitude.

    Of equal magnitudes the first ones in memory order are kept, so that every machine keeps the same.

    Args:
        weights: of any shape, typically a kernel `(in, out)` or `(h, w, in, out)`.
        sparsity: fraction of the weights to leave out, in [0, 1).

    Returns:
        A bool array of the same shape: True where the weight is kept.

    Raises:
        ConfigError: if the sparsity is not in [0, 1).
        ModelError: if a weight is NaN.

    Example:
        >>> magnitude_mask(np.array([[0.1, -3.0], [2.0, -0.2]]), 0.5)
        array([[False,  True],
               [ True, False]])

    References: Han et al. 2015, arXiv:1506.02626; Zhu & Gupta 2017, arXiv:1710.01878.
    """
    sparsity = check_sparsity("magnitude_mask: sparsity", sparsity)
    mask, _ = largest(weights, kept_count(weights.size, sparsity))
    return mask


def largest(scores: np.ndarray, count: int, *, near: float = 0.0) -> tuple[np.ndarray, float]:
    """Marks the `count` numbers of largest magnitude; of equal ones the first in memory order.

    The cost is one partial selection, linear in the size, never a full sort. Where the result of an earlier selection
    is at hand, only the numbers close to its threshold need to be selected among.

    Args:
        scores: of any shape, weights or what is computed from them.
        count: how many to mark, from 0 to the size.
        near: a guess of the smallest magnitude that is marked. The result does not depend on it, only the time.

    Returns:
        A bool array of the same shape, and the smallest magnitude that is marked (infinite if none is).

    Raises:
        ModelError: if a number is NaN.

    Example:
        >>> largest(np.array([3.0, -1.0, 4.0, -1.0]), 3)
        (array([ True,  True,  True, False]), 1.0)
    """
    bits = _magnitude_bits(scores)
    floats = np.float64 if bits.dtype == np.uint64 else np.float32
    infinity = np.array(np.inf, floats).view(bits.dtype)
    if bits.size and bits.max() > infinity:
        raise ModelError(
            f"{np.count_nonzero(bits > infinity)} of {bits.size} weights are NaN and have no magnitude to compare. "
            "Training diverged: lower the learning rate, or restore an earlier checkpoint."
        )
    if count == 0:
        return np.zeros(scores.shape, bool), math.inf
    threshold = _threshold(bits, count, np.array(near, floats).view(bits.dtype))
    mask = bits > threshold
    mask[np.flatnonzero(bits == threshold)[: count - np.count_nonzero(mask)]] = True
    return mask.reshape(scores.shape), float(threshold.view(floats))


def _magnitude_bits(scores: np.ndarray) -> np.ndarray:
    # Numbers of 0 and more are in the order of their bits, and whole numbers are selected among in half the time.
    # float16 and bfloat16 have no fast selection; widening them keeps their order.
    if scores.dtype == np.float64:
        return scores.reshape(-1).view(np.uint64) & np.uint64(2**63 - 1)
    wide = np.ascontiguousarray(scores, np.float32).reshape(-1)
    return wide.view(np.uint32) & np.uint32(2**31 - 1)


def _threshold(bits: np.ndarray, count: int, near: np.ndarray) -> np.unsignedinteger:
    """The `count`-th largest."""
    # An eighth of an octave to both sides of the guess.
    width = np.array(1).astype(bits.dtype) << bits.dtype.type(49 if bits.dtype == np.uint64 else 20)
    if near > width:
        close = bits[np.flatnonzero((bits >= near - width) & (bits <= near + width))]
        wanted = count - np.count_nonzero(bits > near + width)
        if 0 < wanted <= close.size:
            return np.partition(close, close.size - wanted)[close.size - wanted]
    # A selection among many equals is slow, and zeros need none.
    positive = bits[bits > 0]
    if count > positive.size:
        return bits.dtype.type(0)
    return np.partition(positive, positive.size - count)[positive.size - count]


def pruned_mask(weights: np.ndarray) -> np.ndarray | None:
    """Marks the weights of a pruned kernel that are not zero.

    A kernel counts as pruned if at least 5 % of its weights are exactly zero, but not all: a kernel of zeros only has
    just been initialized, and is to be trained.

    Args:
        weights: of any shape.

    Returns:
        A bool array of the same shape, or None where the kernel is not pruned.

    Example:
        >>> pruned_mask(np.array([0.0, 1.0, 2.0]))
        array([False,  True,  True])
        >>> pruned_mask(np.zeros(3)) is None
        True
    """
    mask = weights != 0
    return mask if mask.any() and 1 - mask.mean() >= NOTABLE_SPARSITY else None


def sparsity_of(*weights: np.ndarray) -> float:
    """The fraction of zeros among all weights of the arrays, in [0, 1]; 0.0 where there are none.

    Example:
        >>> sparsity_of(np.array([0.0, 1.0]), np.array([0.0, 0.0]))
        0.75
    """
    size = sum(array.size for array in weights)
    return (size - sum(int(np.count_nonzero(array)) for array in weights)) / size if size else 0.0


def check_sparsity(name: str, value: float) -> float:
    """Returns the value if it is a sparsity: a fraction in [0, 1). A float32 stays one, any other becomes a float.

    Raises:
        ConfigError: if it is not; the message starts with `name` and guesses what a percentage meant.

    Example:
        >>> check_sparsity("MagnitudePruning: final_sparsity", 80)
        Traceback (most recent call last):
        ...
        tfopt.errors.ConfigError: MagnitudePruning: final_sparsity must be in [0, 1). Received: 80. \
Did you mean 0.80?
    """
    try:
        fraction = float(value)
    except (TypeError, ValueError):
        fraction = math.nan
    if 0 <= fraction < 1:
        return value if isinstance(value, np.float32) else fraction
    hint = ""
    if 1 < fraction < 100:
        hint = f" Did you mean {fraction / 100:{'.2f' if fraction.is_integer() else 'g'}}?"
    raise ConfigError(f"{name} must be in [0, 1). Received: {value!r}.{hint}")
