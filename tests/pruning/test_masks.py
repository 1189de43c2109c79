import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from tfopt.errors import ConfigError, ModelError
from tfopt.pruning.masks import check_sparsity, kept_count, largest, magnitude_mask, pruned_mask, sparsity_of

sparsities = st.floats(0, 1, exclude_max=True)
kernels = st_numpy.arrays(
    st.sampled_from([np.float32, np.float64, np.float16]),
    st_numpy.array_shapes(min_dims=1, max_dims=4, max_side=8),
    # Few distinct values, so that ties and zeros are the rule.
    elements=st.one_of(st.sampled_from([0.0, -0.0, 1.0, -1.0]), st.floats(-8, 8, width=16)),
)


@given(kernels, sparsities)
def test_keeps_exactly_the_requested_count_of_the_largest(weights, sparsity):
    mask = magnitude_mask(weights, sparsity)
    assert mask.shape == weights.shape
    assert mask.dtype == bool
    assert mask.sum() == max(round((1 - sparsity) * weights.size), 1) == kept_count(weights.size, sparsity)
    kept, dropped = np.abs(weights[mask]), np.abs(weights[~mask])
    assert not len(kept) or not len(dropped) or kept.min() >= dropped.max()


@given(kernels, sparsities)
def test_ties_go_to_the_first_in_memory(weights, sparsity):
    # An independent, slow reference: a stable sort by falling magnitude.
    order = np.argsort(-np.abs(weights.astype(np.float64)).reshape(-1), kind="stable")
    expected = np.zeros(weights.size, dtype=bool)
    expected[order[: kept_count(weights.size, sparsity)]] = True
    assert np.array_equal(magnitude_mask(weights, sparsity).reshape(-1), expected)


@given(kernels, st.data(), st.floats(0, width=16, allow_nan=False))
def test_a_guess_changes_nothing(scores, data, near):
    count = data.draw(st.integers(0, scores.size))
    mask, threshold = largest(scores, count)
    assert mask.sum() == count
    assert threshold == (np.abs(scores[mask]).min() if count else np.inf)
    for guess in (near, threshold, threshold * 1.05):
        guessed, again = largest(scores, count, near=guess)
        assert np.array_equal(guessed, mask)
        assert again == threshold


def test_a_close_guess_of_many_weights_changes_nothing():
    weights = np.random.default_rng(0).normal(size=(100, 1000)).astype(np.float32)
    expected, threshold = largest(weights, 20_000)
    for guess in (0.9, 0.99, 1.0, 1.01, 1.1, 2.0):
        assert np.array_equal(largest(weights, 20_000, near=threshold * guess)[0], expected)


def test_a_float32_sparsity_is_rounded_in_float32():
    # (1 - 0.85) * 10 is just above 1.5 in float64, just below in float32.
    assert kept_count(10, 0.85) == 2
    assert kept_count(10, check_sparsity("here", np.float32(0.85))) == 1


@given(kernels, sparsities, sparsities)
def test_a_rising_sparsity_only_takes_weights_away(weights, first, second):
    early, late = min(first, second), max(first, second)
    before = magnitude_mask(weights, early)
    after = magnitude_mask(weights * before, late)
    assert not np.any(after & ~before)


def test_infinite_weights_are_the_largest():
    weights = np.array([1.0, -np.inf, 2.0, np.inf], dtype=np.float32)
    assert magnitude_mask(weights, 0.5).tolist() == [False, True, False, True]


def test_nan_is_refused():
    with pytest.raises(ModelError, match=r"1 of 3 weights are NaN.*lower the learning rate"):
        magnitude_mask(np.array([1.0, np.nan, 2.0], dtype=np.float32), 0.0)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (80, r"Received: 80. Did you mean 0.80\?"),
        (97.5, r"Received: 97.5. Did you mean 0.975\?"),
        (1.0, r"Received: 1.0.$"),
        (100, r"Received: 100.$"),
        (-0.1, r"Received: -0.1.$"),
        (float("nan"), r"Received: nan.$"),
        ("half", r"Received: 'half'.$"),
        (None, r"Received: None.$"),
    ],
)
def test_what_is_not_a_sparsity_is_refused(value, hint):
    with pytest.raises(ConfigError, match=r"^here: x must be in \[0, 1\). " + hint):
        check_sparsity("here: x", value)


def test_sparsity_counts_weights_not_arrays():
    assert sparsity_of(np.zeros(1), np.ones(3)) == 0.25
    assert sparsity_of() == 0.0


@pytest.mark.parametrize(
    ("zeros", "size", "expected"), [(0, 40, None), (1, 40, None), (2, 40, 38), (39, 40, 1), (40, 40, None)]
)
def test_a_pruned_kernel_has_notable_zeros_but_not_only(zeros, size, expected):
    weights = np.concatenate([np.zeros(zeros), np.linspace(1, 2, size - zeros)])
    mask = pruned_mask(weights)
    if expected is None:
        assert mask is None
    else:
        assert np.array_equal(mask, weights != 0)
        assert mask.sum() == expected
