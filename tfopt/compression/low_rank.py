"""Kernels as products of smaller ones: truncated SVD and Tucker-2, pure array maths, no TensorFlow.

Singular values and vectors are those of the Gram matrix of the smaller side, which takes a tenth of the time of a whole
decomposition. Sums of their squares, which is what counts here, are exact to about 1e-15 of the whole.
"""

from __future__ import annotations

import numpy as np

__all__ = [
    "channel_singular_values",
    "rank_for_energy",
    "singular_values",
    "truncated_svd",
    "tucker2",
    "tucker2_error_bound",
]

_ITERATIONS = 3


def rank_for_energy(singular_values: np.ndarray, energy: float) -> int:
    """The smallest rank, at least 1, whose singular values hold a share of the sum of squares.

    Args:
        singular_values: descending, of shape `(n,)`.
        energy: the share to keep, in [0, 1].

    Example:
        >>> rank_for_energy(np.array([3.0, 2.0, 1.0]), 0.9)
        2
    """
    squares = singular_values.astype(np.float64) ** 2
    # Summed from the end, where the small ones would be lost in the sum of the large ones.
    discarded = np.append(np.cumsum(squares[::-1])[::-1], 0.0)
    return max(1, int(np.argmax(discarded <= (1 - energy) * discarded[0])))


def singular_values(matrix: np.ndarray) -> np.ndarray:
    """The singular values of a matrix, descending, float64 of shape `(min(in, out),)`.

    Example:
        >>> singular_values(np.array([[3.0, 0.0], [0.0, -4.0]]))
        array([4., 3.])
    """
    wide = matrix.astype(np.float64)
    gram = wide.T @ wide if wide.shape[0] > wide.shape[1] else wide @ wide.T
    return np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0))[::-1]


def truncated_svd(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """The product of two matrices of a rank that is nearest to a matrix.

    The norm of the difference is the root of the sum of squares of the singular values that are left out, and no
    product of this rank comes nearer. The two share the scale equally, so that training changes them alike.

    Args:
        matrix: of shape `(in, out)`.
        rank: at least 1.

    Returns:
        Arrays of shapes `(in, rank)` and `(rank, out)`, float64.

    Example:
        >>> left, right = truncated_svd(np.outer([1.0, 2.0], [3.0, 4.0]), 1)
        >>> np.allclose(left @ right, [[3, 4], [6, 8]])
        True

    References: Eckart & Young 1936.
    """
    wide = matrix.astype(np.float64)
    if wide.shape[0] < wide.shape[1]:
        right, left = truncated_svd(wide.T, rank)
        return left.T, right.T
    vectors = _leading_vectors(wide.T, rank)
    projected = wide @ vectors
    roots = np.sqrt(np.linalg.norm(projected, axis=0))
    return projected / np.where(roots > 0, roots, 1), roots[:, np.newaxis] * vectors.T


def channel_singular_values(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The singular values of a convolution's kernel unfolded along its input and its output channels.

    Args:
        kernel: of shape `(height, width, in, out)`.

    Returns:
        Arrays of shapes `(min(in, height * width * out),)` and `(min(out, height * width * in),)`, descending.

    Example:
        >>> [values.size for values in channel_singular_values(np.ones((3, 3, 4, 40)))]
        [4, 36]
    """
    wide = kernel.astype(np.float64)
    return singular_values(_unfolded(wide, 2)), singular_values(_unfolded(wide, 3))


def tucker2(kernel: np.ndarray, in_rank: int, out_rank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A convolution's kernel as 1×1, k×k and 1×1 kernels with fewer channels in between.

    The leading singular vectors of both unfoldings (HOSVD) are improved in turn, each for the other as it is (HOOI).
    The norm of the difference is at most `tucker2_error_bound`.

    Args:
        kernel: of shape `(height, width, in, out)`.
        in_rank: channels before the middle kernel, in [1, in].
        out_rank: channels after it, in [1, out].

    Returns:
        Arrays of shapes `(in, in_rank)`, `(height, width, in_rank, out_rank)` and `(out_rank, out)`, float64. The first
        and the last have orthonormal columns and rows; of full rank they are identities.

    Example:
        >>> kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 5))
        >>> first, core, last = tucker2(kernel, 4, 5)
        >>> np.allclose(np.einsum("ir,hwrs,so->hwio", first, core, last), kernel)
        True

    References: De Lathauwer et al. 2000; Kim et al. 2016, arXiv:1511.06530, section 3.
    """
    wide = kernel.astype(np.float64)
    inputs, outputs = _leading(wide, 2, in_rank), _leading(wide, 3, out_rank)
    for _ in range(_ITERATIONS):
        inputs = _leading(wide @ outputs, 2, in_rank)
        outputs = _leading(inputs.T @ wide, 3, out_rank)
    return inputs, inputs.T @ wide @ outputs, outputs.T


def tucker2_error_bound(kernel: np.ndarray, in_rank: int, out_rank: int) -> float:
    """The most by which `tucker2` is off in norm: the root of the squares of all singular values that are left out.

    Example:
        >>> tucker2_error_bound(np.ones((3, 3, 4, 5)), 4, 5)
        0.0
    """
    inputs, outputs = channel_singular_values(kernel)
    return float(np.sqrt(np.sum(inputs[in_rank:] ** 2) + np.sum(outputs[out_rank:] ** 2)))


def _unfolded(kernel: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)


def _leading(kernel: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """The leading left singular vectors of an unfolding, of shape `(channels, rank)`; all of them span the axes."""
    if rank == kernel.shape[axis]:
        return np.eye(rank)
    return _leading_vectors(_unfolded(kernel, axis), rank)


def _leading_vectors(matrix: np.ndarray, rank: int) -> np.ndarray:
    return np.linalg.eigh(matrix @ matrix.T)[1][:, ::-1][:, :rank]
