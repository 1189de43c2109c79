"""The searches for a range, against what the grids they choose really do to the values."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tfopt.quantization.range_search import Histogram, entropy_range, mse_range, percentile_range
from tfopt.quantization.spec import activation_grid

SEARCHES = {
    "percentile": percentile_range,
    "mse": lambda histogram: mse_range(histogram, steps=255),
    "entropy": lambda histogram: entropy_range(histogram, steps=255),
}

any_values = arrays(np.float32, st.integers(1, 60), elements=st.floats(-100, 100, width=32))


@st.composite
def activations(draw):
    """Enough values for every search, of the shapes that layers give: with tails, one-sided, bounded, shifted."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = {
        "normal": lambda: generator.normal(size=80_000),
        "laplace": lambda: generator.laplace(size=80_000),
        "student": lambda: generator.standard_t(3, size=80_000),
        "uniform": lambda: generator.uniform(-1, 1, 80_000),
        "lognormal": lambda: generator.lognormal(size=80_000),
    }[draw(st.sampled_from(["normal", "laplace", "student", "uniform", "lognormal"]))]()
    values = values + draw(st.floats(-2, 2))
    match draw(st.sampled_from(["linear", "relu", "relu6"])):
        case "relu":
            values = np.maximum(values, 0)
        case "relu6":
            values = np.clip(values, 0, 6)
    return values.astype(np.float32)


def histogram_of(values, batches=1):
    histogram = Histogram(values.min(), values.max())
    for batch in np.array_split(values, batches):
        histogram.add(batch)
    return histogram


def squared_error(values, minimum, maximum):
    grid = activation_grid(minimum, maximum)
    return np.mean((values.astype(np.float64) - grid.dequantize(grid.quantize(values))) ** 2)


@given(values=any_values)
@settings(derandomize=True)
def test_a_histogram_counts_every_value_but_zeros(values):
    histogram = histogram_of(values)
    assert histogram.counts.sum() == np.count_nonzero(values)
    assert histogram.edges[0] <= 0 <= histogram.edges[-1]
    # A value on an edge may fall to either side of it.
    below = np.searchsorted(np.sort(values[values != 0]), histogram.edges, side="left")
    up_to = np.searchsorted(np.sort(values[values != 0]), histogram.edges, side="right")
    bin_width = histogram.edges[1] - histogram.edges[0]
    slack = np.sum(np.abs(values[:, np.newaxis] - histogram.edges) < 1e-2 * bin_width, axis=0)
    counted = np.concatenate(([0], np.cumsum(histogram.counts)))
    assert np.all(counted >= below - slack)
    assert np.all(counted <= up_to + slack)


@given(values=activations(), batches=st.integers(1, 5))
@settings(derandomize=True, max_examples=10, deadline=None)
def test_batches_do_not_matter(values, batches):
    np.testing.assert_array_equal(histogram_of(values, batches).counts, histogram_of(values).counts)


@pytest.mark.parametrize("method", SEARCHES)
@given(values=st.one_of(any_values, activations()))
@settings(derandomize=True, max_examples=25, deadline=None)
def test_ranges_lie_within_what_values_reach_and_can_hold_zero(method, values):
    minimum, maximum = SEARCHES[method](histogram_of(values))
    assert values.min() <= minimum <= maximum <= values.max()
    grid = activation_grid(minimum, maximum)
    assert grid.minimum <= 0 <= grid.maximum


@pytest.mark.parametrize("method", SEARCHES)
@given(values=activations(), power=st.integers(-8, 8))
@settings(derandomize=True, max_examples=10, deadline=None)
def test_scaled_values_have_the_scaled_range(method, values, power):
    factor = np.float32(2.0**power)  # so that every value keeps its bin
    expected = np.multiply(SEARCHES[method](histogram_of(values)), factor)
    np.testing.assert_allclose(SEARCHES[method](histogram_of(values * factor)), expected, rtol=1e-6)


@given(values=activations())
@settings(derandomize=True, max_examples=40, deadline=None)
def test_the_error_of_the_mse_range_is_not_above_that_of_all_values(values):
    whole = squared_error(values, values.min(), values.max())
    assert squared_error(values, *mse_range(histogram_of(values), steps=255)) <= 1.001 * whole


@given(values=any_values)
@settings(derandomize=True, deadline=None)
def test_of_few_values_it_is_above_by_what_a_bin_hides_at_most(values):
    histogram = histogram_of(values)
    step, bin_width = (histogram.edges[-1] - histogram.edges[0]) / 255, histogram.edges[1] - histogram.edges[0]
    whole = squared_error(values, values.min(), values.max())
    received = squared_error(values, *mse_range(histogram, steps=255))
    assert received <= whole * (1 + 1e-6) + bin_width * (step + bin_width)


def test_the_mse_range_is_close_to_the_best_of_all():
    values = np.random.default_rng(0).laplace(0.3, 1.0, 50_000).astype(np.float32)
    received = squared_error(values, *mse_range(histogram_of(values), steps=255))
    low, high = values.min(), values.max()
    best = min(
        squared_error(values, a * low, b * high) for a in np.linspace(0.4, 1, 25) for b in np.linspace(0.4, 1, 25)
    )
    assert received <= 1.01 * best
    assert received < 0.95 * squared_error(values, low, high)


def test_values_on_a_grid_keep_it():
    pixels = np.repeat(np.arange(256, dtype=np.float32) / 255, 400)
    for method in ("mse", "entropy"):
        assert SEARCHES[method](histogram_of(pixels)) == (0.0, 1.0)


def test_percentiles_are_those_of_the_values_but_zeros():
    values = np.random.default_rng(0).normal(0.2, 1.0, 200_000).astype(np.float32)
    histogram = histogram_of(np.concatenate((values, np.zeros(10**6, np.float32))))
    bin_width = histogram.edges[1] - histogram.edges[0]
    received = percentile_range(histogram, coverage=0.98)
    np.testing.assert_allclose(received, np.percentile(values, [1, 99]), atol=bin_width)


def test_percentiles_skip_gaps():
    values = np.concatenate((np.full(99, -1.0), np.full(99, 1.0), [50.0])).astype(np.float32)
    histogram = histogram_of(values)
    bin_width = histogram.edges[1] - histogram.edges[0]
    np.testing.assert_allclose(percentile_range(histogram, coverage=0.98), (-1, 1), atol=2 * bin_width)


@pytest.mark.parametrize("method", SEARCHES)
def test_zeros_do_not_move_a_range(method):
    values = np.maximum(np.random.default_rng(0).normal(size=200_000), 0).astype(np.float32)
    expected = SEARCHES[method](histogram_of(values))
    more_zeros = np.concatenate((values, np.zeros(10**6, np.float32)))
    assert SEARCHES[method](histogram_of(more_zeros)) == expected


def test_entropy_is_the_divergence_by_its_definition():
    """One-sided values and few bins, with every candidate computed as Migacz's slides have it."""
    values = np.append(0, np.abs(np.random.default_rng(0).standard_t(4, 100_000))).astype(np.float32)
    histogram = Histogram(0.0, values.max(), bins=512)
    histogram.add(values)
    counts, points = histogram.counts.astype(float), 64
    divergences = {}
    for end in range(points, len(counts) + 1):
        reference = counts[:end].copy()
        if reference[-1] == 0:
            continue
        candidate = np.zeros(end)
        bounds = np.arange(points + 1) * end // points
        for start, stop in itertools.pairwise(bounds):
            filled = reference[start:stop] > 0
            candidate[start:stop][filled] = reference[start:stop].sum() / max(filled.sum(), 1)
        reference[-1] += counts[end:].sum()
        inside = reference > 0
        terms = reference[inside] * np.log(reference[inside] / candidate[inside])
        divergences[end] = terms.sum() / counts.sum()
    best = min(divergences, key=divergences.__getitem__)
    assert points < best < len(counts)
    received = entropy_range(histogram, steps=points - 1)
    assert received == (0.0, pytest.approx(histogram.edges[best]))


def test_entropy_clips_a_long_tail_and_never_most_of_the_values():
    generator = np.random.default_rng(0)
    tail = np.append(generator.normal(size=300_000), 12.0).astype(np.float32)
    assert entropy_range(histogram_of(tail), steps=255)[1] < 6
    far_from_zero = generator.uniform(3, 5, 100_000).astype(np.float32)
    assert entropy_range(histogram_of(far_from_zero), steps=255)[1] == pytest.approx(5, abs=0.01)


@pytest.mark.parametrize("few", [np.random.default_rng(0).laplace(size=2560), np.zeros(5), np.full(3, 2.5)])
def test_entropy_of_few_values_keeps_them_all(few):
    few = few.astype(np.float32)
    assert entropy_range(histogram_of(few), steps=255) == (few.min(), few.max())


@pytest.mark.parametrize("method", [mse_range, entropy_range])
def test_a_grid_of_16_bits_clips_next_to_nothing(method):
    values = np.random.default_rng(0).laplace(size=100_000).astype(np.float32)
    minimum, maximum = method(histogram_of(values), steps=65_534)
    assert np.mean((values < minimum) | (values > maximum)) < 1e-4
