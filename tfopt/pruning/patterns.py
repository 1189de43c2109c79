"""What is zeroed as one: single weights, blocks, or all but N of every M weights in a row. Pure array maths.

Patterns count rows as TFLite stores them. Its kernels are `(out, in)` for a dense layer and `(out, h, w, in)` for a
convolution, row-major: neighbours in memory are the weights of neighbouring input channels, which a kernel multiplies
and sums in one instruction. Keras's own layout ends with the output channels, `(in, out)` and `(h, w, in, out)`, so
the functions here are given which of the last two axes is that of the inputs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tfopt.errors import ConfigError
from tfopt.pruning.masks import kept_count

__all__ = ["Blocks", "NOfM", "Pattern", "Weights", "pattern_of"]


class Pattern(Protocol):
    """How weights form units, and what is zeroed of a unit. A unit with a small score is zeroed first."""

    @property
    def limit(self) -> float | None:
        """The sparsity once no unit is whole; None where nothing would be left then."""
        ...

    def kept_units(self, units: int, sparsity: float) -> int:
        """How many of so many units stay whole."""
        ...

    def scores(self, kernel: np.ndarray, input_axis: int | None) -> np.ndarray:
        """The magnitude of each unit."""
        ...

    def mask(self, kernel: np.ndarray, input_axis: int | None, whole: np.ndarray) -> np.ndarray:
        """Which weights stay, where `whole` says which units do."""
        ...

    def misfit(self, shape: tuple[int, ...], input_axis: int | None) -> str | None:
        """Why a kernel of this shape has no such units; None if it has."""
        ...


@dataclass(frozen=True)
class Weights:
    """Each weight for itself: unstructured pruning.

    Example:
        >>> Weights().scores(np.array([[0.5, -2.0]]), None)
        array([[ 0.5, -2. ]])
    """

    limit: None = None

    def kept_units(self, units: int, sparsity: float) -> int:
        """All but the share that the sparsity says."""
        return kept_count(units, sparsity)

    def scores(self, kernel: np.ndarray, input_axis: int | None) -> np.ndarray:
        """The weights themselves; what is compared are magnitudes."""
        return kernel

    def mask(self, kernel: np.ndarray, input_axis: int | None, whole: np.ndarray) -> np.ndarray:
        """The units are the weights."""
        return whole

    def misfit(self, shape: tuple[int, ...], input_axis: int | None) -> None:
        """Any kernel will do."""
        return


@dataclass(frozen=True)
class Blocks:
    """Blocks of `rows` output channels by `columns` input channels, as 1×4 and 1×16 that sparse CPU kernels run.

    A kernel whose channels are no multiple of the block ends with smaller blocks, which are scored by the weights that
    they have.

    Args:
        rows: output channels in a block.
        columns: input channels in a block.
        pooling: "average" or "max": what the score of a block is of the magnitudes in it.

    Example:
        >>> kernel = np.array([[1.0, 0.1], [3.0, 0.1], [0.1, 2.0], [0.1, 2.0]])  # 4 inputs, 2 outputs
        >>> Blocks(1, 2, "max").scores(kernel, -2)  # (out, in): 2 rows of 2 blocks
        array([[3. , 0.1],
               [0.1, 2. ]])

    References: Narang et al. 2017, arXiv:1711.02782 (max pooling of blocks).
    """

    rows: int
    columns: int
    pooling: str = "average"
    limit: None = None

    def __str__(self) -> str:
        return f"block=({self.rows}, {self.columns})"

    def kept_units(self, units: int, sparsity: float) -> int:
        """All but the share that the sparsity says."""
        return kept_count(units, sparsity)

    def scores(self, kernel: np.ndarray, input_axis: int | None) -> np.ndarray:
        """The largest or the mean magnitude in each block, of shape `(..., rows of blocks, blocks in a row)`."""
        magnitudes = _magnitudes(_in_rows(kernel, input_axis))
        if self.pooling == "max":
            return self._pooled(magnitudes, np.max)
        return self._pooled(magnitudes, np.sum) / self._pooled(np.ones_like(magnitudes), np.sum)

    def mask(self, kernel: np.ndarray, input_axis: int | None, whole: np.ndarray) -> np.ndarray:
        """Every weight of a block as the block."""
        out, columns = _in_rows(kernel, input_axis).shape[-2:]
        spread = whole.repeat(self.rows, -2)[..., :out, :].repeat(self.columns, -1)[..., :columns]
        return _in_rows(spread, input_axis)

    def misfit(self, shape: tuple[int, ...], input_axis: int | None) -> str | None:
        """A kernel must hold one whole block."""
        if input_axis is None:
            return _NO_INPUT_AXIS
        columns, rows = shape[input_axis], shape[-3 - input_axis]
        if rows >= self.rows and columns >= self.columns:
            return None
        return (
            f"it has {columns} input and {rows} output channels, and a block takes {self.columns} and {self.rows} "
            "(blocks at the end of a row may be smaller, but one must be whole)"
        )

    def _pooled(self, magnitudes: np.ndarray, pool: Callable[..., np.ndarray]) -> np.ndarray:
        padded = _padded(_padded(magnitudes, -2, self.rows), -1, self.columns)
        *leading, out, columns = padded.shape
        blocks = padded.reshape(*leading, out // self.rows, self.rows, columns // self.columns, self.columns)
        return pool(blocks, axis=(-3, -1))


@dataclass(frozen=True)
class NOfM:
    """At most N weights in every M neighbouring input channels, as 2:4 that sparse tensor cores run.

    Below the final sparsity of 1 - N/M some groups are whole still: those that would lose the most magnitude. A row
    whose channels are no multiple of M ends with a smaller group, which keeps its N largest as well.

    Args:
        n: how many weights stay.
        m: of how many.

    Example:
        >>> kernel = np.array([[1.0], [-4.0], [3.0], [2.0]])  # 4 inputs, 1 output
        >>> NOfM(2, 4).mask(kernel, -2, whole=np.array([[False]])).ravel()
        array([False,  True,  True, False])

    References: Mishra et al. 2021, arXiv:2104.08378.
    """

    n: int
    m: int

    def __str__(self) -> str:
        return f"pattern='{self.n}:{self.m}'"

    @property
    def limit(self) -> float:
        """The sparsity of N in M."""
        return 1 - self.n / self.m

    def kept_units(self, units: int, sparsity: float) -> int:
        """The groups that stay whole, such that the share of zeros is the sparsity."""
        share = float(sparsity) / self.limit
        # A float32 of two thirds is a little above two thirds.
        if share > 1 + 1e-6:
            raise ConfigError(
                f"{self} has at most {self.limit:.4g} zeros. Received a sparsity of "
                f"{sparsity:g}. Let the schedule end at {self.limit:.4g}, or choose a sparser pattern."
            )
        return round((1 - min(share, 1)) * units)

    def scores(self, kernel: np.ndarray, input_axis: int | None) -> np.ndarray:
        """What a group would lose: the sum of the magnitudes beyond its N largest, of shape `(..., groups)`."""
        groups = self._groups(_in_rows(kernel, input_axis))
        # A NaN must show, though it counts as the largest.
        return np.where(self._largest(groups) & ~np.isnan(groups), 0, groups).sum(-1)

    def mask(self, kernel: np.ndarray, input_axis: int | None, whole: np.ndarray) -> np.ndarray:
        """The N largest of each group; of equal ones the first."""
        rows = _in_rows(kernel, input_axis)
        kept = self._largest(self._groups(rows)) | whole[..., np.newaxis]
        return _in_rows(kept.reshape(*rows.shape[:-1], -1)[..., : rows.shape[-1]], input_axis)

    def misfit(self, shape: tuple[int, ...], input_axis: int | None) -> str | None:
        """A row must hold one whole group."""
        if input_axis is None:
            return _NO_INPUT_AXIS
        if shape[input_axis] >= self.m:
            return None
        return (
            f"it has {shape[input_axis]} input channels, and a group takes {self.m} "
            f"(the group at the end of a row may be smaller and keeps its {self.n} largest, but one must be whole)"
        )

    def _groups(self, rows: np.ndarray) -> np.ndarray:
        magnitudes = _padded(_magnitudes(rows), -1, self.m)
        return magnitudes.reshape(*magnitudes.shape[:-1], -1, self.m)

    def _largest(self, groups: np.ndarray) -> np.ndarray:
        # Counting who is larger is many times as fast as sorting millions of groups of four.
        rank = np.zeros(groups.shape, np.int16)
        for i in range(self.m):
            for j in range(i):
                behind = groups[..., i] <= groups[..., j]
                rank[..., i] += behind
                rank[..., j] += ~behind
        return rank < self.n


_NO_INPUT_AXIS = "it has no axis of input channels that a layer of its kind sums over"


def pattern_of(name: str, pattern: str | None, block: tuple[int, int] | None, block_pooling: str) -> Pattern:
    """The pattern that arguments of these names describe.

    Args:
        name: whose arguments they are, for the error.
        pattern: N:M, such as "2:4".
        block: output and input channels of a block, such as `(1, 4)`.
        block_pooling: "average" or "max".

    Raises:
        ConfigError: if one of them is not usable, or both a pattern and a block are given.

    Example:
        >>> pattern_of("MagnitudePruning", "2:4", None, "average")
        NOfM(n=2, m=4)
    """
    if block_pooling not in ("average", "max"):
        raise ConfigError(f"{name}: block_pooling must be 'average' or 'max'. Received: {block_pooling!r}.")
    if pattern is not None and block is not None:
        raise ConfigError(
            f"{name}: pattern and block exclude each other. Received: {pattern!r} and {block!r}. Give one of them."
        )
    if pattern is not None:
        match = re.fullmatch(r"(\d+):(\d+)", pattern) if isinstance(pattern, str) else None
        if match is None or not 1 <= int(match[1]) < int(match[2]):
            raise ConfigError(
                f"{name}: pattern must be 'N:M' with 1 ≤ N < M, N weights kept of every M, such as '2:4'. "
                f"Received: {pattern!r}."
            )
        return NOfM(int(match[1]), int(match[2]))
    if block is None:
        return Weights()
    sizes = tuple(block) if isinstance(block, (tuple, list)) else ()
    if len(sizes) != 2 or not all(isinstance(size, int) and size >= 1 for size in sizes):
        raise ConfigError(
            f"{name}: block must be two whole numbers of at least 1, the output and input channels of a block, such as "
            f"(1, 4). Received: {block!r}."
        )
    return Weights() if sizes == (1, 1) else Blocks(*sizes, block_pooling)


def _in_rows(kernel: np.ndarray, input_axis: int | None) -> np.ndarray:
    """From Keras's layout to `(..., out, in)`, and from there back."""
    return kernel.swapaxes(-1, -2) if input_axis == -2 else kernel


def _magnitudes(rows: np.ndarray) -> np.ndarray:
    return np.abs(rows).astype(np.result_type(rows.dtype, np.float32), copy=False)


def _padded(array: np.ndarray, axis: int, multiple: int) -> np.ndarray:
    """With zeros at the end of an axis, up to a multiple."""
    missing = -array.shape[axis] % multiple
    if not missing:
        return array
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, missing)
    return np.pad(array, widths)
