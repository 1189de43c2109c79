import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from tfopt.errors import ConfigError, ModelError
from tfopt.pruning.masks import kept_count, largest
from tfopt.pruning.patterns import Blocks, NOfM, Weights, pattern_of

axes = st.sampled_from([-2, -1])
kernels = st_numpy.arrays(
    st.sampled_from([np.float32, np.float64, np.float16]),
    st.one_of(
        st_numpy.array_shapes(min_dims=2, max_dims=2, max_side=12), st_numpy.array_shapes(min_dims=4, max_dims=4)
    ),
    elements=st.one_of(st.sampled_from([0.0, -0.0, 1.0, -1.0]), st.floats(-8, 8, width=16)),
)
n_of_m = st.integers(2, 6).flatmap(lambda m: st.builds(NOfM, st.integers(1, m - 1), st.just(m)))
blocks = st.builds(Blocks, st.integers(1, 4), st.integers(1, 6), st.sampled_from(["average", "max"]))


def mask_of(pattern, kernel, axis, sparsity):
    scores = pattern.scores(kernel, axis)
    whole, _ = largest(scores, pattern.kept_units(scores.size, sparsity))
    return pattern.mask(kernel, axis, whole)


def rows_of(array, axis):
    """As TFLite stores them: (..., out, in)."""
    return np.moveaxis(array, axis, -1)


@given(kernels, axes, n_of_m)
def test_n_of_m_keeps_the_n_largest_of_every_group(kernel, axis, pattern):
    mask = mask_of(pattern, kernel, axis, pattern.limit)
    assert mask.shape == kernel.shape
    weights, kept = (rows_of(a, axis).reshape(-1, kernel.shape[axis]) for a in (kernel, mask))
    for start in range(0, weights.shape[1], pattern.m):
        for row, of_row in zip(weights[:, start : start + pattern.m], kept[:, start : start + pattern.m], strict=True):
            order = np.argsort(-np.abs(row), kind="stable")[: pattern.n]
            assert np.flatnonzero(of_row).tolist() == sorted(order.tolist())


@given(kernels, axes, n_of_m, st.floats(0, 1), st.floats(0, 1))
def test_n_of_m_only_loses_weights_as_the_sparsity_rises(kernel, axis, pattern, first, second):
    early, late = (mask_of(pattern, kernel, axis, share * pattern.limit) for share in sorted((first, second)))
    assert not np.any(late & ~early)
    assert mask_of(pattern, kernel, axis, 0.0).all()


def test_n_of_m_counts_are_exact_without_a_remainder():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 8, 10))
    for sparsity in (0.0, 0.1, 0.25, 0.5):
        mask = mask_of(NOfM(2, 4), kernel, -2, sparsity)
        assert mask.size - mask.sum() == round(sparsity / 0.5 * mask.size / 4) * 2


def test_n_of_m_starts_where_the_least_is_lost():
    kernel = np.array([[9.0, 9.0, 8.0, 8.0], [5.0, 4.0, 0.1, 0.1]])  # (out, in)
    mask = mask_of(NOfM(2, 4), kernel, -1, 0.25)
    assert mask.tolist() == [[True] * 4, [True, True, False, False]]


@given(kernels, axes, blocks, st.floats(0, 1, exclude_max=True))
def test_blocks_go_as_one_and_are_counted_exactly(kernel, axis, pattern, sparsity):
    mask = mask_of(pattern, kernel, axis, sparsity)
    assert mask.shape == kernel.shape
    rows = rows_of(mask, axis)
    rows = rows.reshape(-1, *rows.shape[-2:])
    kept = total = 0
    for plane in rows:
        for i in range(0, plane.shape[0], pattern.rows):
            for j in range(0, plane.shape[1], pattern.columns):
                block = plane[i : i + pattern.rows, j : j + pattern.columns]
                assert block.all() or not block.any()
                kept, total = kept + bool(block.any()), total + 1
    assert kept == kept_count(total, sparsity)


def test_blocks_are_pooled_by_the_weights_that_they_have():
    kernel = np.array([[1.0, -3.0, 2.0], [1.0, 1.0, -6.0]])  # (out, in); the last block of a row has one weight
    assert Blocks(1, 2, "average").scores(kernel, -1).tolist() == [[2.0, 2.0], [1.0, 6.0]]
    assert Blocks(1, 2, "max").scores(kernel, -1).tolist() == [[3.0, 2.0], [1.0, 6.0]]
    assert Blocks(2, 2, "average").scores(kernel, -1).tolist() == [[1.5, 4.0]]
    assert Blocks(1, 2, "max").scores(kernel.T, -2).tolist() == [[3.0, 2.0], [1.0, 6.0]]


@pytest.mark.parametrize("pattern", [Weights(), Blocks(1, 2), Blocks(1, 2, "max"), NOfM(1, 2)], ids=str)
def test_nan_is_found(pattern):
    kernel = np.array([[1.0, np.nan], [2.0, 3.0]], np.float32)
    with pytest.raises(ModelError, match="are NaN"):
        mask_of(pattern, kernel, -2, 0.5)


@pytest.mark.parametrize(
    ("pattern", "shape", "axis", "reason"),
    [
        (Weights(), (3, 3, 8, 1), None, None),
        (NOfM(2, 4), (3, 3, 4, 2), -2, None),
        (NOfM(2, 4), (3, 3, 3, 8), -2, "it has 3 input channels, and a group takes 4"),
        (NOfM(2, 4), (3, 3, 8, 3), -1, "it has 3 input channels"),
        (NOfM(2, 4), (3, 3, 8, 1), None, "no axis of input channels"),
        (Blocks(1, 4), (9, 1), -2, None),
        (Blocks(2, 4), (9, 1), -2, "it has 9 input and 1 output channels, and a block takes 4 and 2"),
        (Blocks(1, 4), (3, 3, 8, 1), None, "no axis of input channels"),
    ],
    ids=str,
)
def test_a_kernel_must_hold_one_whole_unit(pattern, shape, axis, reason):
    received = pattern.misfit(shape, axis)
    assert received == reason or reason in received


def test_a_sparsity_beyond_n_of_m_is_refused():
    assert NOfM(1, 3).kept_units(9, np.float32(2 / 3)) == 0
    with pytest.raises(ConfigError, match=r"pattern='1:3' has at most 0.6667 zeros. Received a sparsity of 0.7"):
        NOfM(1, 3).kept_units(9, 0.7)


def test_patterns_are_read_from_arguments():
    assert pattern_of("x", None, None, "max") == pattern_of("x", None, (1, 1), "max") == Weights()
    assert pattern_of("x", None, [1, 16], "max") == Blocks(1, 16, "max")
    assert pattern_of("x", "1:4", None, "average") == NOfM(1, 4)
