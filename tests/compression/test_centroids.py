import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tfopt.compression.centroids import find_centroids, nearest_centroids
from tfopt.errors import ConfigError

STARTS = ["linear", "density", "kmeans++"]
weights_32 = arrays(
    np.float32, array_shapes(max_dims=2, max_side=30), elements=st.floats(-100, 100, width=32) | st.just(0.0)
)


def squared_error(weights, centroids):
    distances = weights.astype(np.float64).reshape(-1, 1) - centroids
    return np.sum(np.min(distances**2, axis=1))


@given(weights_32, st.integers(1, 20), st.sampled_from(STARTS))
@settings(derandomize=True, deadline=None)
def test_there_are_at_most_as_many_centroids_as_asked_for_within_the_range(weights, n_clusters, start):
    centroids = find_centroids(weights, n_clusters, start=start)
    assert 1 <= centroids.size <= n_clusters
    assert np.all(np.diff(centroids) > 0)
    margin = 1e-9 * np.abs(weights).max()
    assert weights.min() - margin <= centroids[0]
    assert centroids[-1] <= weights.max() + margin


@given(weights_32, st.integers(1, 20))
@settings(derandomize=True, deadline=None)
def test_the_error_is_at_most_that_of_evenly_spaced_values(weights, n_clusters):
    centroids = find_centroids(weights, n_clusters, start="linear")
    evenly = np.linspace(weights.min(), weights.max(), n_clusters)
    assert squared_error(weights, centroids) <= squared_error(weights, evenly) * (1 + 1e-9) + 1e-9


@given(weights_32, st.integers(1, 20))
@settings(derandomize=True, deadline=None)
def test_the_error_is_at_most_that_of_the_quantiles(weights, n_clusters):
    centroids = find_centroids(weights, n_clusters, start="density")
    quantiles = np.quantile(weights, (np.arange(n_clusters) + 0.5) / n_clusters, method="inverted_cdf")
    assert squared_error(weights, centroids) <= squared_error(weights, quantiles) * (1 + 1e-9) + 1e-9


@given(weights_32, st.integers(1, 20), st.sampled_from(STARTS))
@settings(derandomize=True, deadline=None)
def test_each_centroid_is_the_mean_of_the_weights_nearest_to_it(weights, n_clusters, start):
    centroids = find_centroids(weights, n_clusters, start=start)
    indices = nearest_centroids(weights, centroids).reshape(-1)
    assert set(indices.tolist()) == set(range(centroids.size))
    flat = weights.astype(np.float64).reshape(-1)
    means = [flat[indices == index].mean() for index in range(centroids.size)]
    np.testing.assert_allclose(centroids, means, rtol=1e-9, atol=1e-9)


@given(weights_32, st.integers(2, 20), st.sampled_from(STARTS))
@settings(derandomize=True, deadline=None)
def test_zero_is_kept_for_zeros_alone(weights, n_clusters, start):
    centroids = find_centroids(weights, n_clusters, start=start, keep_zero=True)
    assert centroids.size <= n_clusters
    shared = centroids[nearest_centroids(weights, centroids, keep_zero=True)]
    assert np.all(shared[weights == 0] == 0)
    if np.any(weights > 0) and not np.any(weights < 0):
        assert np.array_equal(shared == 0, weights == 0)


@given(weights_32, st.integers(1, 20))
@settings(derandomize=True, deadline=None)
def test_a_weight_goes_to_the_nearest_centroid(weights, n_clusters):
    centroids = find_centroids(weights, n_clusters)
    chosen = np.abs(weights - centroids[nearest_centroids(weights, centroids)])
    nearest = np.min(np.abs(weights[..., np.newaxis] - centroids), axis=-1)
    np.testing.assert_allclose(chosen, nearest, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("start", STARTS)
def test_few_distinct_weights_are_their_own_centroids(start):
    weights = np.array([0.1, -0.7, 0.1, 0.0, 0.3], np.float32)
    centroids = find_centroids(weights, 4, start=start)
    np.testing.assert_array_equal(centroids.astype(np.float32), np.unique(weights))


@pytest.mark.parametrize("start", STARTS)
def test_well_separated_groups_are_found(start):
    generator = np.random.default_rng(0)
    middles = np.array([-3.0, -1.0, 0.5, 2.0])
    weights = generator.choice(middles, 2000) + generator.normal(scale=0.01, size=2000)
    np.testing.assert_allclose(find_centroids(weights, 4, start=start), middles, atol=0.01)


@pytest.mark.parametrize("start", STARTS)
def test_the_error_is_near_the_least_for_normal_weights(start):
    # 16 values for a normal distribution: Max 1960, "Quantizing for minimum distortion", table I.
    weights = np.random.default_rng(0).normal(size=100_000)
    error = squared_error(weights, find_centroids(weights, 16, start=start)) / weights.size
    assert error < 0.00954 * 1.03


def test_empty_clusters_are_put_to_use():
    # The linear start leaves all but two of its clusters empty.
    weights = np.concatenate([np.linspace(0, 1, 50), [1000.0]])
    centroids = find_centroids(weights, 6, start="linear")
    assert centroids.size == 6
    assert squared_error(weights, centroids) < 0.5


def test_the_same_weights_have_the_same_centroids():
    weights = np.random.default_rng(0).normal(size=500)
    first, second = (find_centroids(weights, 8, start="kmeans++") for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(find_centroids(weights.reshape(20, 25).T, 8, start="kmeans++"), first)


def test_values_that_differ_by_less_than_a_square_can_tell_have_centroids():
    weights = np.array([0.0, 1e-200, 2e-200, 3e-200])
    for start in STARTS:
        assert 1 <= find_centroids(weights, 3, start=start).size <= 3


def test_an_unknown_start_is_refused():
    with pytest.raises(
        ConfigError, match=r"start must be one of 'linear', 'density', 'kmeans\+\+'. Received: 'random'"
    ):
        find_centroids(np.ones(3), 2, start="random")
