"""The few values that stand for many weights: k-means in one dimension, pure array maths, no TensorFlow."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from tfopt.errors import ConfigError

__all__ = ["Start", "check_start", "find_centroids", "nearest_centroids"]

Start = Literal["linear", "density", "kmeans++"]
"""Where k-means starts: evenly over the range, evenly over the weights, or spread at random by distance."""

MAXIMUM_ITERATIONS = 300


def find_centroids(
    weights: np.ndarray, n_clusters: int, *, start: Start = "linear", keep_zero: bool = False
) -> np.ndarray:
    """Finds the values that replace the weights with the least squared error, as k-means does.

    Lloyd's iterations run on the distinct weights and how often each occurs, until no weight changes its cluster (or
    300 times). The error never rises above that of the start. A cluster that lost all its weights takes the one that
    is farthest from its centroid. Weights with at most `n_clusters` distinct values are their own centroids.

    Args:
        weights: finite values of any shape.
        n_clusters: at most this many centroids, at least 2 (at least 1 without `keep_zero`).
        start: "linear" spaces the first centroids evenly between the smallest and the largest weight, which keeps the
            few large weights apart; "density" gives each about as many weights; "kmeans++" draws them with
            probability in proportion to the squared distance from those drawn before, always with the same seed.
        keep_zero: makes 0 a centroid where a weight is exactly zero, for these weights alone; the others share the
            centroids that are left.

    Returns:
        The centroids, ascending and distinct, float64 of shape `(n,)`.

    Example:
        >>> find_centroids(np.array([0.9, 1.1, -2.0, 0.0, 0.0]), 3, keep_zero=True)
        array([-2.,  0.,  1.])

    References: Lloyd 1982; Arthur & Vassilvitskii 2007; Han et al. 2016, arXiv:1510.00149, section 3.
    """
    check_start("find_centroids: start", start)
    values, counts = np.unique(weights.astype(np.float64).reshape(-1), return_counts=True)
    if keep_zero and 0 in values:
        others = values != 0
        found = _lloyd(values[others], counts[others], n_clusters - 1, start)
        return np.unique(np.append(found, 0.0))
    return _lloyd(values, counts, n_clusters, start)


def nearest_centroids(weights: np.ndarray, centroids: np.ndarray, *, keep_zero: bool = False) -> np.ndarray:
    """Gives each weight the index of its nearest centroid; halfway between two, the lower one's.

    Args:
        weights: of any shape.
        centroids: ascending, of shape `(n,)`.
        keep_zero: whether the centroid 0 is for weights that are exactly zero alone; the others then go to the nearest
            one besides it.

    Returns:
        An array of ints of the weights' shape.

    Example:
        >>> nearest_centroids(np.array([0.0, 0.1, 0.8]), np.array([-1.0, 0.0, 1.0]))
        array([1, 1, 2])
        >>> nearest_centroids(np.array([0.0, 0.1, 0.8]), np.array([-1.0, 0.0, 1.0]), keep_zero=True)
        array([1, 2, 2])
    """
    wide = weights.astype(np.float64)
    zero = int(np.searchsorted(centroids, 0))
    if not keep_zero or len(centroids) == 1 or 0 not in centroids:
        return np.searchsorted(_borders(centroids), wide)
    indices = np.searchsorted(_borders(np.delete(centroids, zero)), wide)
    return np.where(wide == 0, zero, indices + (indices >= zero))


def check_start(name: str, start: str) -> None:
    """Refuses what is not a start of k-means.

    Raises:
        ConfigError: the message begins with `name`.
    """
    if start not in get_args(Start):
        raise ConfigError(f"{name} must be one of {', '.join(map(repr, get_args(Start)))}. Received: {start!r}.")


def _borders(centroids: np.ndarray) -> np.ndarray:
    return centroids[:-1] / 2 + centroids[1:] / 2


def _lloyd(values: np.ndarray, counts: np.ndarray, n_clusters: int, start: Start) -> np.ndarray:
    if values.size <= n_clusters:
        return values
    centroids = _first(values, counts, n_clusters, start)
    sums = values * counts
    clusters = None
    for _ in range(MAXIMUM_ITERATIONS):
        # Each cluster is a stretch of the sorted values, so only its first one needs to be looked up.
        firsts = np.concatenate([[0], np.searchsorted(values, _borders(centroids), side="right")])
        sizes = np.diff(firsts, append=values.size)
        if np.any(sizes == 0):
            distances = counts * (values - np.repeat(centroids, sizes)) ** 2
            farthest = np.argsort(-distances, kind="stable")[: np.count_nonzero(sizes == 0)]
            centroids = np.unique(np.concatenate([centroids[sizes > 0], values[farthest]]))
            continue
        if clusters is not None and np.array_equal(firsts, clusters):
            break
        clusters = firsts
        centroids = np.add.reduceat(sums, firsts) / np.add.reduceat(counts, firsts)
    return np.unique(centroids)


def _first(values: np.ndarray, counts: np.ndarray, n_clusters: int, start: Start) -> np.ndarray:
    if start == "linear":
        return np.linspace(values[0], values[-1], n_clusters)
    if start == "density":
        middles = (np.arange(n_clusters) + 0.5) / n_clusters * counts.sum()
        return values[np.searchsorted(np.cumsum(counts), middles)]
    generator = np.random.default_rng(0)
    chosen = [generator.choice(values, p=counts / counts.sum())]
    distances = (values - chosen[0]) ** 2
    while len(chosen) < n_clusters and distances.any():
        masses = counts * (distances / distances.max())
        chosen.append(generator.choice(values, p=masses / masses.sum()))
        distances = np.minimum(distances, (values - chosen[-1]) ** 2)
    return np.sort(chosen)
