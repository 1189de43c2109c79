import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfopt.errors import ModelError
from tfopt.pruning.allocation import erk_sparsities, largest_of_all
from tfopt.pruning.masks import largest

shapes = st.lists(
    st.one_of(
        st.tuples(*[st.integers(1, 64)] * 2), st.tuples(st.integers(1, 5), st.integers(1, 5), *[st.integers(1, 64)] * 2)
    ),
    min_size=1,
    max_size=8,
)
sparsities = st.floats(0, 0.999)


@given(shapes, sparsities)
def test_erk_meets_the_total(kernels, sparsity):
    sizes = np.array([math.prod(shape) for shape in kernels])
    found = np.array(erk_sparsities(kernels, sparsity))
    assert np.all((found >= 0) & (found < 1))
    assert np.sum((1 - found) * sizes) == pytest.approx((1 - sparsity) * sizes.sum(), rel=1e-9)


@given(shapes, sparsities)
def test_erk_densities_are_proportional_where_they_are_not_capped(kernels, sparsity):
    shares = np.array([sum(shape) / math.prod(shape) for shape in kernels])
    densities = 1 - np.array(erk_sparsities(kernels, sparsity))
    free = densities < 1
    scales = densities[free] / shares[free]
    assert np.allclose(scales, scales[:1], rtol=1e-6)
    # What is capped would otherwise have kept more than all.
    assert not free.any() or np.all(shares[~free] * scales[0] >= 1 - 1e-6)


@given(shapes, sparsities, sparsities)
def test_no_erk_sparsity_falls_when_the_total_rises(kernels, first, second):
    early, late = (np.array(erk_sparsities(kernels, sparsity)) for sparsity in sorted((first, second)))
    assert np.all(late >= early - 1e-9)


def test_erk_by_hand():
    # 54 + 102 sides for the two that are not capped; the 640 weights of the third stay.
    kernels = [(3, 3, 16, 32), (3, 3, 32, 64), (64, 10)]
    scale = (0.2 * (4608 + 18432 + 640) - 640) / (54 + 102)
    expected = [1 - scale * 54 / 4608, 1 - scale * 102 / 18432, 0.0]
    assert erk_sparsities(kernels, 0.8) == pytest.approx(expected)


@given(st.lists(st.lists(st.integers(-4, 4), min_size=1, max_size=9), min_size=1, max_size=5), st.data())
def test_one_threshold_over_all(values, data):
    arrays = [np.array(array, np.float32).reshape(-1, 1) for array in values]
    count = data.draw(st.integers(0, sum(array.size for array in arrays)))
    masks, threshold = largest_of_all(arrays, count)
    joined, expected = largest(np.concatenate(arrays), count)
    assert [mask.shape for mask in masks] == [array.shape for array in arrays]
    assert np.array_equal(np.concatenate(masks), joined)
    assert threshold == expected


def test_nan_is_refused():
    with pytest.raises(ModelError, match="1 of 2 weights are NaN"):
        largest_of_all([np.ones(1), np.full(1, np.nan)], 1)
