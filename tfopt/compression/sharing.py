"""Kernels whose weights share a few values, as clustering leaves them: pure array maths, no TensorFlow."""

from __future__ import annotations

import numpy as np

__all__ = ["MAXIMUM_SHARED_VALUES", "shared_values"]

MAXIMUM_SHARED_VALUES = 256
"""More distinct values than an 8-bit index can name are not a codebook."""


def shared_values(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Reads a kernel as a codebook and an index per weight, if its weights share values.

    They do if there are at least 2 and at most 256 distinct values, and fewer than a quarter as many as weights.
    Trained float weights are nearly all distinct, and a kernel of one value has just been initialized. Where the whole
    kernel does not share values, each of its channels (last axis, or the one before) may have a codebook of its own.

    Args:
        weights: a kernel of any shape.

    Returns:
        The distinct values, of one codebook after the other, each ascending, of shape `(n,)`, and for each weight the
        index of its value, an int32 array of the kernel's shape; None where the weights do not share values.

    Example:
        >>> values, indices = shared_values(np.array([0.5, -1, 0.5, -1, 0.5, 0.5, -1, 0.5, 0.5]))
        >>> values, indices
        (array([-1. ,  0.5]), array([1, 0, 1, 0, 1, 1, 0, 1, 1], dtype=int32))
        >>> shared_values(np.arange(9.0)) is None
        True

    References: Han et al. 2016, arXiv:1510.00149, section 3.
    """
    if (found := _codebook(weights.reshape(-1))) is not None:
        return found[0], found[1].reshape(weights.shape).astype(np.int32)
    for axis in range(-1, -min(weights.ndim, 3), -1):
        channels = np.moveaxis(weights, axis, 0)
        books = []
        for channel in channels:
            book = _codebook(channel.reshape(-1), least=1)
            if book is None:
                break
            books.append(book)
        if len(books) == len(channels) and max(values.size for values, _ in books) > 1:
            starts = np.cumsum([0, *(values.size for values, _ in books)])
            values = np.concatenate([values for values, _ in books])
            indices = np.stack([i + start for (_, i), start in zip(books, starts, strict=False)])
            whole = np.moveaxis(indices.reshape(channels.shape), 0, axis)
            return values, whole.astype(np.int32)
    return None


def _codebook(flat: np.ndarray, *, least: int = 2) -> tuple[np.ndarray, np.ndarray] | None:
    # Most kernels are told from a part of their weights, without sorting them all.
    if np.unique(flat[: 4 * MAXIMUM_SHARED_VALUES]).size > MAXIMUM_SHARED_VALUES:
        return None
    values, indices = np.unique(flat, return_inverse=True)
    if not least <= values.size <= min(MAXIMUM_SHARED_VALUES, (flat.size - 1) // 4):
        return None
    return values, indices
