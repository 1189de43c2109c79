import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tfopt.compression.low_rank import (
    channel_singular_values,
    rank_for_energy,
    truncated_svd,
    tucker2,
    tucker2_error_bound,
)

elements = st.floats(-10, 10, width=32)
matrices = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=elements)
kernels = arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    elements=elements,
)


@given(matrices, st.data())
@settings(derandomize=True, deadline=None)
def test_the_error_of_a_matrix_is_that_of_the_singular_values_left_out(matrix, data):
    rank = data.draw(st.integers(1, min(matrix.shape)))
    left, right = truncated_svd(matrix, rank)
    assert (left.shape, right.shape) == ((matrix.shape[0], rank), (rank, matrix.shape[1]))
    discarded = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)[rank:]
    np.testing.assert_allclose(np.linalg.norm(matrix - left @ right), np.linalg.norm(discarded), rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(left, axis=0), np.linalg.norm(right, axis=1), atol=1e-4)


@given(kernels, st.data())
@settings(derandomize=True, deadline=None)
def test_the_error_of_a_convolution_is_within_the_bound(kernel, data):
    ranks = [data.draw(st.integers(1, size)) for size in kernel.shape[2:]]
    first, core, last = tucker2(kernel, *ranks)
    assert [array.shape for array in (first, core, last)] == [
        (kernel.shape[2], ranks[0]),
        (*kernel.shape[:2], *ranks),
        (ranks[1], kernel.shape[3]),
    ]
    error = np.linalg.norm(kernel - np.einsum("ir,hwrs,so->hwio", first, core, last))
    assert error <= tucker2_error_bound(kernel, *ranks) * (1 + 1e-6) + 1e-5
    np.testing.assert_allclose(first.T @ first, np.eye(ranks[0]), atol=1e-9)
    np.testing.assert_allclose(last @ last.T, np.eye(ranks[1]), atol=1e-9)


def test_iterations_improve_on_the_unfoldings_alone():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 16, 16))
    wide = [np.moveaxis(kernel, axis, 0).reshape(16, -1) for axis in (2, 3)]
    inputs, outputs = (np.linalg.svd(each, full_matrices=False)[0][:, :6] for each in wide)
    projected = np.einsum("hwio,ir,rj,os,sp->hwjp", kernel, inputs, inputs.T, outputs, outputs.T)
    first, core, last = tucker2(kernel, 6, 6)
    iterated = np.einsum("ir,hwrs,so->hwio", first, core, last)
    assert np.linalg.norm(kernel - iterated) < np.linalg.norm(kernel - projected)


@given(arrays(np.float64, st.integers(1, 10), elements=st.floats(0, 100)), st.floats(0, 1))
@settings(derandomize=True, deadline=None)
def test_the_rank_is_the_smallest_that_keeps_the_energy(values, energy):
    values = np.sort(values)[::-1]
    rank = rank_for_energy(values, energy)
    squares, tolerance = values**2, 1e-9 * np.sum(values**2)
    assert 1 <= rank <= values.size
    assert np.sum(squares[:rank]) >= energy * np.sum(squares) - tolerance
    if rank > 1:
        assert np.sum(squares[: rank - 1]) <= energy * np.sum(squares) + tolerance


def test_all_energy_needs_all_that_is_not_zero():
    assert rank_for_energy(np.array([5.0, 1e-7, 0.0]), 1.0) == 2
    assert rank_for_energy(np.zeros(4), 1.0) == 1


@pytest.mark.parametrize("shape", [(1, 1, 3, 2), (3, 3, 2, 40), (5, 1, 30, 4)])
def test_the_singular_values_hold_the_whole_norm(shape):
    kernel = np.random.default_rng(0).normal(size=shape)
    for values in channel_singular_values(kernel):
        np.testing.assert_allclose(np.linalg.norm(values), np.linalg.norm(kernel))
        assert np.all(np.diff(values) <= 0)
