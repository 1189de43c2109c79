import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tfopt.distillation.relations import angle_difference, distance_difference


@st.composite
def features(draw):
    samples = draw(st.integers(1, 5))
    # Whole numbers, so that points coincide or lie well apart.
    of = st.integers(-8, 8).map(float)
    return tuple(draw(arrays.arrays(np.float32, (samples, size), elements=of)) for size in (3, 2))


def huber(difference: float) -> float:
    return 0.5 * difference**2 if abs(difference) < 1 else abs(difference) - 0.5


def relative_distances(points: np.ndarray) -> np.ndarray:
    distances = np.linalg.norm(points[:, None].astype(np.float64) - points[None], axis=-1)
    return distances / distances[distances > 0].mean() if distances.any() else distances


def cosine(points: np.ndarray, at: int, first: int, second: int) -> float:
    one, other = (points[to].astype(np.float64) - points[at] for to in (first, second))
    size = np.linalg.norm(one) * np.linalg.norm(other)
    return float(one @ other / size) if size else 0.0


@given(features())
def test_distance_difference_is_that_of_numpy(pair):
    teacher, student = (relative_distances(points) for points in pair)
    count = len(teacher)
    expected = [
        sum(huber(teacher[a, b] - student[a, b]) for b in range(count) if b != a) / max(count - 1, 1)
        for a in range(count)
    ]
    assert np.allclose(distance_difference(*pair), expected, atol=1e-4)


@given(features())
def test_angle_difference_is_that_of_numpy(pair):
    teacher, student = pair
    count = len(teacher)
    expected = [
        sum(
            huber(cosine(teacher, a, b, c) - cosine(student, a, b, c))
            for b in range(count)
            for c in range(count)
            if len({a, b, c}) == 3
        )
        / max((count - 1) * (count - 2), 1)
        for a in range(count)
    ]
    # Where two points coincide on one side only, the angle "between them" counts in one sum and is 0 in the other.
    same = [np.array([[np.array_equal(p, q) for q in points] for p in points]) for points in pair]
    if np.array_equal(*same):
        assert np.allclose(angle_difference(*pair), expected, atol=1e-4)


@pytest.mark.parametrize("difference", [distance_difference, angle_difference])
def test_moved_turned_and_scaled_points_have_the_same_relations(difference):
    points = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    turned = 5 * points @ np.float32([[0.6, -0.8], [0.8, 0.6]]) + 3
    assert np.allclose(difference(points, turned), 0, atol=1e-4)
    assert np.all(np.asarray(difference(points, points[::-1] ** 2)) > 1e-3)


@pytest.mark.parametrize("difference", [distance_difference, angle_difference])
def test_equal_points_have_finite_gradients(difference):
    points = tf.Variable(np.float32([[1, 2], [1, 2], [3, 4], [0, 0]]))
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(difference(np.float32([[1, 0], [2, 0], [3, 5], [3, 5]]), points))
    assert np.isfinite(tape.gradient(value, points)).all()
