"""How a total sparsity is spread over kernels: evenly, by one threshold, or by their shapes. Pure array maths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from tfopt.pruning.masks import largest

__all__ = ["ALLOCATIONS", "Allocation", "erk_sparsities", "largest_of_all"]

Allocation = Literal["per_layer", "global", "erk"]
ALLOCATIONS: tuple[str, ...] = get_args(Allocation)


def erk_sparsities(shapes: Sequence[tuple[int, ...]], sparsity: float) -> list[float]:
    """The sparsity of each kernel by the Erdős–Rényi-Kernel rule, such that the whole has the sparsity asked for.

    The share of weights that a kernel keeps is proportional to the sum of the sides of its shape by their product,
    `(h + w + in + out) / (h · w · in · out)`: small kernels keep more. Where that would be more than all, the kernel
    stays dense, and the others make up for it.

    Args:
        shapes: of the kernels.
        sparsity: of all weights together, in [0, 1).

    Returns:
        A sparsity in [0, 1) for each kernel. None of them falls when the total rises.

    Example:
        >>> [round(sparsity, 3) for sparsity in erk_sparsities([(3, 3, 16, 32), (3, 3, 32, 64), (64, 10)], 0.8)]
        [0.692, 0.855, 0.0]

    References: Evci et al. 2020, arXiv:1911.11134, section 3 (1) and appendix; Mocanu et al. 2018, arXiv:1707.04780.
    """
    sizes = [math.prod(shape) for shape in shapes]
    shares = [sum(shape) / size for shape, size in zip(shapes, sizes, strict=True)]
    densities = [1.0] * len(shapes)
    left = set(range(len(shapes)))
    while left:
        dense = sum(size for index, size in enumerate(sizes) if index not in left)
        kept = (1 - float(sparsity)) * sum(sizes) - dense
        scale = kept / sum(shares[index] * sizes[index] for index in left)
        top = max(shares[index] for index in left)
        if top * scale <= 1:
            for index in left:
                densities[index] = shares[index] * scale
            break
        left -= {index for index in left if shares[index] == top}
    return [1 - density for density in densities]


def largest_of_all(scores: Sequence[np.ndarray], count: int, *, near: float = 0.0) -> tuple[list[np.ndarray], float]:
    """Marks the `count` numbers of largest magnitude among all arrays; see `tfopt.pruning.masks.largest`.

    Args:
        scores: arrays of any shapes.
        count: how many to mark among all of them.
        near: a guess of the smallest magnitude that is marked.

    Returns:
        A bool array for each of the arrays, and the smallest magnitude that is marked.

    Raises:
        ModelError: if a number is NaN.

    Example:
        >>> largest_of_all([np.array([3.0, 1.0]), np.array([-2.0])], 2)
        ([array([ True, False]), array([ True])], 2.0)
    """
    mask, threshold = largest(np.concatenate([array.reshape(-1) for array in scores]), count, near=near)
    ends = np.cumsum([array.size for array in scores])[:-1]
    parts = np.split(mask, ends)
    return [part.reshape(array.shape) for part, array in zip(parts, scores, strict=True)], threshold
