"""TFLite's sparse tensors: the zeros are left out, and index arrays tell where the other values belong.

References: TensorFlow Lite schema, `SparsityParameters`; Kjolstad et al. 2017, "The Tensor Algebra Compiler".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["Dimension", "SparseLayout"]


@dataclass(frozen=True)
class Dimension:
    """One level of a sparse tensor.

    Args:
        size: of a level that holds all its positions; 0 for one that leaves positions out.
        segments: of the latter, where the positions of each entry of the level above begin and end in `indices`.
        indices: the positions that are there.
    """

    size: int
    segments: tuple[int, ...] = ()
    indices: tuple[int, ...] = ()


@dataclass(frozen=True)
class SparseLayout:
    """Where the values of a sparse tensor belong.

    Args:
        traversal_order: the axis of each level; from the tensor's rank on, those within a block.
        block_axes: for each axis within a block, the axis of the tensor that it divides.
        dimensions: the levels, from the outermost.
    """

    traversal_order: tuple[int, ...]
    block_axes: tuple[int, ...]
    dimensions: tuple[Dimension, ...]

    def to_dense(self, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The tensor with its zeros.

        Args:
            values: those that are stored, in order.
            shape: the tensor's.

        Raises:
            ValueError: if the levels have more positions than the tensor, or do not fit it; so do IndexError and
                KeyError of what is not there.

        Example:
            >>> rows = Dimension(2)
            >>> columns = Dimension(0, segments=(0, 1, 3), indices=(2, 0, 1))
            >>> SparseLayout((0, 1), (), (rows, columns)).to_dense(np.array([5, 6, 7]), (2, 3))
            array([[0, 0, 5],
                   [6, 7, 0]])
        """
        entries = np.zeros(1, np.int64)
        positions: dict[int, np.ndarray] = {}
        for axis, level in zip(self.traversal_order, self.dimensions, strict=True):
            if level.size:
                _check_count(len(entries) * level.size, shape)
                parents = np.repeat(np.arange(len(entries)), level.size)
                here = np.tile(np.arange(level.size), len(entries))
                entries = entries[parents] * level.size + here
            else:
                starts, ends = (np.asarray(level.segments, np.int64)[entries + offset] for offset in (0, 1))
                if np.any(ends < starts):
                    raise ValueError("a segment ends before it begins")
                _check_count(int((ends - starts).sum()), shape)
                parents = np.repeat(np.arange(len(entries)), ends - starts)
                entries = np.arange(len(parents)) + (starts - np.cumsum(ends - starts) + (ends - starts))[parents]
                here = np.asarray(level.indices, np.int64)[entries]
            positions = {known: index[parents] for known, index in positions.items()} | {axis: here}
        sizes = {axis: level.size for axis, level in zip(self.traversal_order, self.dimensions, strict=True)}
        for block, axis in enumerate(self.block_axes):
            within = len(shape) + block
            positions[axis] = positions[axis] * sizes[within] + positions[within]
        dense = np.zeros(shape, values.dtype)
        dense[tuple(positions[axis] for axis in range(len(shape)))] = values[entries]
        return dense


def _check_count(positions: int, shape: tuple[int, ...]) -> None:
    if positions > math.prod(shape):
        raise ValueError(f"a level has {positions:,} positions, the tensor of shape {shape} fewer")
