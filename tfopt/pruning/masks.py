"""Masks of the weights to keep, by magnitude: pure array maths, no TensorFlow."""

from __future__ import annotations

import math

import numpy as np

from tfopt.errors import ConfigError, ModelError

__all__ = ["NOTABLE_SPARSITY", "check_sparsity", "kept_count", "magnitude_mask", "pruned_mask", "sparsity_of"]

NOTABLE_SPARSITY = 0.05
"""From this fraction of zeros on a kernel counts as pruned: training alone leaves hardly any weight exactly zero."""


def kept_count(size: int, sparsity: float) -> int:
    """How many of `size` weights stay at a sparsity: round((1 - sparsity) * size).

    Example:
        >>> kept_count(9, 0.8)
        2
    """
    return round((1 - sparsity) * size)


def magnitude_mask(weights: np.ndarray, sparsity: float) -> np.ndarray:
    """Marks the round((1 - sparsity) * size) weights of largest magnitude.

    Of equal magnitudes the first ones in memory order are kept, so that every machine keeps the same. The
    cost is one partial selection, linear in the number of weights, never a full sort.

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
    # float16 and bfloat16 have no fast partition; widening them keeps their order.
    wide = weights if weights.dtype == np.float64 else weights.astype(np.float32, copy=False)
    magnitudes = np.abs(wide).reshape(-1)
    if missing := int(np.isnan(magnitudes).sum()):
        raise ModelError(
            f"magnitude_mask: {missing} of {weights.size} weights are NaN and have no magnitude to compare. "
            "Training diverged: lower the learning rate, or restore an earlier checkpoint."
        )
    kept = kept_count(weights.size, sparsity)
    # Weights that an earlier mask zeroed need no comparing, and a selection among many equals is slow.
    positive = magnitudes[magnitudes > 0]
    if kept == 0:
        threshold = np.inf
    elif kept > positive.size:
        threshold = 0.0
    else:
        threshold = np.partition(positive, positive.size - kept)[positive.size - kept]
    mask = magnitudes > threshold
    mask[np.flatnonzero(magnitudes == threshold)[: kept - np.count_nonzero(mask)]] = True
    return mask.reshape(weights.shape)


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
    """Returns the value if it is a sparsity: a fraction in [0, 1).

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
        return fraction
    hint = ""
    if 1 < fraction < 100:
        hint = f" Did you mean {fraction / 100:{'.2f' if fraction.is_integer() else 'g'}}?"
    raise ConfigError(f"{name} must be in [0, 1). Received: {value!r}.{hint}")
