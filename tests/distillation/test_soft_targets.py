import hypothesis.extra.numpy as arrays
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tfopt.distillation.soft_targets import decoupled_divergence, tempered_divergence

logits = arrays.arrays(np.float32, (3, 5), elements=st.floats(-20, 20, width=32))
temperatures = st.floats(0.5, 10)


def softmax(values: np.ndarray) -> np.ndarray:
    values = np.exp(values - values.max(-1, keepdims=True))
    return values / values.sum(-1, keepdims=True)


def divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.sum(np.where(p > 0, p * np.log(np.maximum(p, 1e-300) / np.maximum(q, 1e-300)), 0.0), axis=-1)


@given(logits, logits, temperatures)
def test_tempered_divergence_is_that_of_numpy(teacher, student, temperature):
    p, q = (softmax(values.astype(np.float64) / temperature) for values in (teacher, student))
    expected = temperature**2 * divergence(p, q)
    assert np.allclose(tempered_divergence(teacher, student, temperature), expected, rtol=1e-3, atol=1e-3)


@given(logits, logits, temperatures, st.integers(0, 4), st.floats(0, 3), st.floats(0, 8))
def test_decoupled_divergence_is_that_of_numpy(teacher, student, temperature, target, alpha, beta):
    p, q = (softmax(values.astype(np.float64) / temperature) for values in (teacher, student))
    one_hot = np.eye(5, dtype=np.float32)[[target] * 3]
    binary = [np.stack([v[:, target], np.delete(v, target, 1).sum(1)], -1) for v in (p, q)]
    rest = [softmax(np.delete(v.astype(np.float64), target, 1) / temperature) for v in (teacher, student)]
    expected = temperature**2 * (alpha * divergence(*binary) + beta * divergence(*rest))
    result = decoupled_divergence(
        teacher, student, one_hot, temperature=temperature, target_weight=alpha, other_weight=beta
    )
    assert np.allclose(result, expected, rtol=1e-3, atol=2e-3)


@given(logits, logits, st.integers(0, 4))
def test_both_parts_with_the_weights_of_the_plain_divergence_are_that_divergence(teacher, student, target):
    # KL = KL(b) + (1 - p_target) * KL(rest): eq. 6 of the paper
    one_hot = np.eye(5, dtype=np.float32)[[target] * 3]
    parts = [
        np.asarray(
            decoupled_divergence(teacher, student, one_hot, temperature=1.0, target_weight=1.0 - n, other_weight=n)
        )
        for n in (0.0, 1.0)
    ]
    rest = 1 - softmax(teacher.astype(np.float64))[:, target]
    assert np.allclose(parts[0] + rest * parts[1], tempered_divergence(teacher, student, 1.0), rtol=1e-3, atol=1e-3)


def test_gradients_keep_their_size_at_high_temperatures():
    # In the limit they are those of half the squared difference of centred logits, over the classes.
    teacher, student = tf.constant([[3.0, -1.0, -2.0]]), tf.Variable([[1.0, 1.0, -2.0]])
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(tempered_divergence(teacher, student, 1000.0))
    assert np.allclose(tape.gradient(value, student), (student - teacher) / 3, atol=5e-3)


@pytest.mark.parametrize("size", [0.0, 200.0])
def test_gradients_of_extreme_logits_are_finite(size):
    teacher, student = tf.constant([[size, 0.0, -size]]), tf.Variable([[-size, 0.0, size]])
    one_hot = keras.ops.one_hot([0], 3)
    with tf.GradientTape() as tape:
        value = tempered_divergence(teacher, student, 1.0)
        value += decoupled_divergence(teacher, student, one_hot, temperature=1.0, target_weight=1.0, other_weight=8.0)
    assert np.isfinite(value).all()
    assert np.isfinite(tape.gradient(value, student)).all()


def test_two_classes_have_nothing_among_the_rest():
    value = decoupled_divergence(
        [[3.0, 1.0]], [[0.0, 1.0]], [[1.0, 0.0]], temperature=2.0, target_weight=0.0, other_weight=8.0
    )
    assert np.allclose(value, 0)
