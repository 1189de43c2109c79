import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from tfopt.pruning.channel_selection import Candidates, RemovalOrder, smallest_count
from tfopt.pruning.importance import (
    first_order_change,
    magnitude_per_channel,
    mean_per_channel,
    relative,
    sum_per_channel,
)

kernels = st_numpy.arrays(
    np.float64, st_numpy.array_shapes(min_dims=2, max_dims=4, max_side=5), elements=st.floats(-4, 4, width=16)
)


@st.composite
def kernel_and_axis(draw):
    kernel = draw(kernels)
    return kernel, draw(st.integers(-kernel.ndim, kernel.ndim - 1))


@given(kernel_and_axis())
def test_magnitude_is_the_mean_over_everything_else(drawn):
    kernel, axis = drawn
    expected = [np.abs(part).mean() for part in np.moveaxis(kernel, axis, 0)]
    np.testing.assert_allclose(magnitude_per_channel(kernel, axis), expected)


@given(kernel_and_axis(), st.integers(0, 2**32 - 1))
def test_first_order_change_is_exact_for_a_linear_loss(drawn, seed):
    kernel, axis = drawn
    gradient = np.random.default_rng(seed).normal(size=kernel.shape)
    changes = first_order_change(kernel, gradient, axis)
    for position, change in enumerate(changes):
        without = kernel.copy()
        np.moveaxis(without, axis, 0)[position] = 0
        assert change == pytest.approx(np.sum(without * gradient) - np.sum(kernel * gradient), abs=1e-9)


@given(st_numpy.arrays(np.float64, st.integers(1, 20), elements=st.floats(0, 1e6, allow_subnormal=False)))
def test_relative_scores_have_the_mean_1_and_keep_their_order(scores):
    compared = relative(scores)
    assert compared.mean() == pytest.approx(1.0)
    if scores.any():
        assert np.array_equal(np.argsort(compared, kind="stable"), np.argsort(scores / scores.mean(), kind="stable"))


def test_a_layer_that_makes_a_channel_twice_counts_once():
    wide = (np.array([0, 0, 0, 1]), np.array([3.0, 3.0, 6.0, 9.0]))
    narrow = (np.array([0]), np.array([8.0]))
    np.testing.assert_array_equal(mean_per_channel([wide, narrow], 3), [6.0, 9.0, np.nan])
    np.testing.assert_array_equal(sum_per_channel([wide, narrow], 3), [20.0, 9.0, 0.0])


@st.composite
def orders(draw):
    sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    starts = np.cumsum([0, *sizes])
    groups = [
        Candidates(
            np.arange(start, start + size), minimum=draw(st.integers(1, 12)), step=draw(st.sampled_from([1, 2, 4, 8]))
        )
        for start, size in zip(starts, sizes, strict=False)
    ]
    scores = draw(
        st_numpy.arrays(np.float64, int(starts[-1]), elements=st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 9)))
    )
    return groups, scores


@given(orders())
def test_each_group_keeps_its_minimum_its_multiple_and_its_best(drawn):
    groups, scores = drawn
    order = RemovalOrder(groups, scores)
    before = np.ones(len(scores), dtype=bool)
    for count in range(order.limit + 1):
        stays = order.stays(count)
        assert not np.any(stays & ~before)  # what is gone does not come back
        assert np.count_nonzero(~stays) <= count
        before = stays
        for group in groups:
            kept, gone = group.channels[stays[group.channels]], group.channels[~stays[group.channels]]
            assert len(kept) >= min(group.minimum, len(group.channels))
            assert not len(gone) or len(kept) % group.step == 0
            assert not len(gone) or scores[gone].max() <= scores[kept].min()
    assert np.count_nonzero(~before) == order.limit


def test_the_least_important_of_all_groups_goes_first():
    order = RemovalOrder(
        [Candidates(np.array([0, 2]), minimum=1), Candidates(np.array([1, 3]), minimum=1)], np.array([4.0, 1, 2, 3])
    )
    assert [np.flatnonzero(~order.stays(count)).tolist() for count in range(3)] == [[], [1], [1, 2]]


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 50))
def test_bisection(first, more, resolution):
    asked = []

    def enough(count):
        asked.append(count)
        return count >= first

    found = smallest_count(enough, first + more, resolution)
    assert first <= found <= first + resolution - 1
    assert len(asked) <= max(np.log2((first + more + 1) / resolution) + 1, 0)
