"""Kernels whose weights share a few values, as clustering leaves them: pure array maths, no TensorFlow."""

from __future__ import annotations

import numpy as np

__all__ = ["MAXIMUM_SHARED_VALUES", "shared_values"]

MAXIMUM_SHARED_VALUES = 256
"""More distinct values than an 8-bit index can name are not a codebook."""


def shared_values(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Reads a kernel as a codebook and an index per weight, if its weights share values.

    They do if there are at least 2 and at most 256 distinct values, and fewer than a quarter as many as weights.
    Trained float weights are nearly all distinct, and a kernel of one value has just been initialized.

    Args:
        weights: a kernel of any shape.

    Returns:
        The distinct values, ascending, of shape `(n,)`, and for each weight the index of its value, an int32 array of
        the kernel's shape; None where the weights do not share values.

    Example:
        >>> values, indices = shared_values(np.array([0.5, -1, 0.5, -1, 0.5, 0.5, -1, 0.5, 0.5]))
        >>> values, indices
        (array([-1. ,  0.5]), array([1, 0, 1, 0, 1, 1, 0, 1, 1], dtype=int32))
        >>> shared_values(np.arange(9.0)) is None
        True

    References: Han et al. 2016, arXiv:1510.00149, section 3.
    """
    flat = weights.reshape(-1)
    # Most kernels are told from a part of their weights, without sorting them all.
    if np.unique(flat[: 4 * MAXIMUM_SHARED_VALUES]).size > MAXIMUM_SHARED_VALUES:
        return None
    values, indices = np.unique(flat, return_inverse=True)
    if not 2 <= values.size <= min(MAXIMUM_SHARED_VALUES, (flat.size - 1) // 4):
        return None
    return values, indices.reshape(weights.shape).astype(np.int32)
