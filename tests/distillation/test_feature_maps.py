import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tfopt.distillation.feature_maps import at_one_size, attention_difference, attention_map, squared_difference


def images(channels: int):
    return arrays.arrays(np.float32, (2, 3, 4, channels), elements=st.floats(-9, 9, width=16))


@given(images(3), images(5))
def test_attention_difference_is_that_of_numpy(teacher, student):
    flat = [(features.astype(np.float64) ** 2).sum(-1).reshape(2, -1) for features in (teacher, student)]
    sizes = [np.linalg.norm(one, axis=1, keepdims=True) for one in flat]
    if min(size.min() for size in sizes) > 1e-3:
        expected = ((flat[0] / sizes[0] - flat[1] / sizes[1]) ** 2).sum(1)
        assert np.allclose(attention_difference(attention_map(teacher), attention_map(student)), expected, atol=1e-4)


@given(images(3), images(3))
def test_squared_difference_is_that_of_numpy(teacher, student):
    assert np.allclose(squared_difference(teacher, student), ((teacher - student) ** 2).mean((1, 2, 3)), rtol=1e-4)
    steps = [features[:, 0] for features in (teacher, student)]
    assert np.allclose(squared_difference(*steps), ((steps[0] - steps[1]) ** 2).mean(-1), rtol=1e-4)


@pytest.mark.parametrize("sizes", [((8, 8), (4, 4)), ((2, 3), (6, 6)), ((4, 2), (2, 4))])
def test_the_larger_image_is_averaged_down(sizes):
    made = [np.full((1, *size, 2), 3.0, np.float32) for size in sizes]
    first, second = at_one_size(*made)
    smaller = tuple(map(min, *sizes))
    assert first.shape[1:3] == second.shape[1:3] == smaller
    assert np.allclose(first, 3)
    assert np.allclose(second, 3)


def test_every_pixel_counts_when_an_image_is_averaged_down():
    large = tf.Variable(np.ones((1, 8, 8, 1), np.float32))
    with tf.GradientTape() as tape:
        small, _ = at_one_size(large, tf.zeros((1, 2, 2, 1)))
        value = tf.reduce_sum(small)
    assert np.all(tape.gradient(value, large) > 0)


def test_maps_of_zeros_have_finite_gradients():
    features = tf.Variable(np.zeros((1, 2, 2, 3), np.float32))
    with tf.GradientTape() as tape:
        value = attention_difference(attention_map(np.ones((1, 2, 2, 1), np.float32)), attention_map(features))
    assert np.isfinite(tape.gradient(value, features)).all()
