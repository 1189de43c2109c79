import numpy as np
import pytest
import tensorflow as tf
from reference_weights import weight_scales

from tfopt.quantization.fake_quant import (
    activation_scale,
    fake_quantize_activation,
    fake_quantize_weights,
    round_bias,
)
from tfopt.quantization.spec import activation_grid

RANGES = [(-1.0, 1.0), (-1.0, 2.0), (0.0, 6.0), (-3.0, 0.0), (0.5, 2.0), (-2.0, -0.5), (-1e-3, 1e3), (0.0, 0.0)]
AXES = {"dense": ((30, 7), (0,)), "conv": ((3, 3, 5, 7), (0, 1, 2)), "depthwise": ((3, 3, 5, 2), (0, 1))}


def off_ties(x, scale):
    """Without the values half-way between two grid points, which float32 may round either way."""
    return np.where(np.abs(x / scale % 1 - 0.5) < 1e-2, 0.0, x).astype(np.float32)


@pytest.mark.parametrize("limits", RANGES, ids=str)
def test_activations_are_rounded_as_the_reference_does(limits):
    grid = activation_grid(*limits)
    x = np.random.default_rng(0).normal(scale=3 * max(1e-6, *np.abs(limits)), size=(5, 40, 3))
    x = off_ties(x, grid.scale)
    expected = grid.dequantize(grid.quantize(x))
    received, _ = fake_quantize_activation(tf.constant(x), *limits)
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-3 * grid.scale)


@pytest.mark.parametrize("kind", AXES)
def test_weights_are_rounded_as_the_reference_does(kind):
    shape, axes = AXES[kind]
    kernel = np.random.default_rng(0).normal(size=shape)
    kernel *= np.random.default_rng(1).uniform(0.01, 100, shape[-1])
    kernel[..., 1] = 0
    scales = weight_scales(kernel, axes)
    received = fake_quantize_weights(tf.cast(kernel, "float32"), axes).numpy()
    np.testing.assert_allclose(received, np.round(kernel / scales) * scales, rtol=1e-5, atol=1e-6)
    assert np.all(np.abs(received / scales) <= 127.001)
    assert np.all(received[..., 1] == 0)


@pytest.mark.parametrize("kind", AXES)
def test_rounded_weights_stay_as_they_are(kind):
    shape, axes = AXES[kind]
    once = fake_quantize_weights(tf.random.stateless_normal(shape, [0, 1]), axes)
    np.testing.assert_allclose(fake_quantize_weights(once, axes), once, rtol=1e-6)


def test_zeros_of_a_kernel_stay_exact_zeros():
    kernel = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    kernel[::2] = 0
    assert np.all(fake_quantize_weights(tf.constant(kernel), (0,)).numpy()[::2] == 0)


def test_gradient_of_activations_is_one_inside_the_range_and_zero_outside():
    x = tf.constant([-2.0, -1.1, -0.9, 0.0, 0.3, 1.9, 2.1, 5.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = 3.0 * fake_quantize_activation(x, -1.0, 2.0)[0]
    np.testing.assert_array_equal(tape.gradient(y, x), [0, 0, 3, 3, 3, 3, 0, 0])


@pytest.mark.parametrize("kind", AXES)
def test_gradient_of_weights_is_one_everywhere(kind):
    shape, axes = AXES[kind]
    kernel = tf.random.stateless_normal(shape, [0, 1])
    upstream = tf.random.stateless_normal(shape, [2, 3])
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        y = tf.reduce_sum(upstream * fake_quantize_weights(kernel, axes))
    np.testing.assert_array_equal(tape.gradient(y, kernel), upstream)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtype_is_kept(dtype):
    x = tf.cast([[0.3, -0.7], [1.2, 0.0]], dtype)
    rounded, _ = fake_quantize_activation(x, -1.0, 2.0)
    assert rounded.dtype == x.dtype
    grid = activation_grid(-1.0, 2.0)
    np.testing.assert_allclose(tf.cast(rounded, "float32"), tf.cast(x, "float32"), atol=grid.scale)
    assert fake_quantize_weights(x, (0,)).dtype == x.dtype


@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_functions_give_the_same(jit_compile):
    x = tf.random.stateless_normal((8, 16), [0, 1])
    kernel = tf.random.stateless_normal((16, 4), [2, 3])

    def step(x, kernel, minimum, maximum):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            y, _ = fake_quantize_activation(x @ fake_quantize_weights(kernel, (0,)), minimum, maximum)
        return y, tape.gradient(y, kernel)

    compiled = tf.function(step, jit_compile=jit_compile)
    limits = tf.constant(-1.5), tf.constant(2.0)
    (y, gradient), (expected, expected_gradient) = compiled(x, kernel, *limits), step(x, kernel, *limits)
    # The compiler may add in another order, and so move a value over a tie.
    np.testing.assert_allclose(y, expected, atol=1.01 * 3.5 / 255)
    np.testing.assert_allclose(np.mean(y), np.mean(expected), atol=1e-2)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-3)


def test_bias_is_rounded_where_there_is_a_grid():
    bias = tf.constant([0.26, -0.26, 0.37])
    with tf.GradientTape() as tape:
        tape.watch(bias)
        rounded = round_bias(bias, tf.constant([0.1, 0.5, 0.0]))
    np.testing.assert_allclose(rounded, [0.3, -0.5, 0.37], atol=1e-6)
    np.testing.assert_array_equal(tape.gradient(rounded, bias), np.ones(3))


def test_activation_scale_is_that_of_the_grid():
    for bits in (8, 16):
        assert float(activation_scale(-0.7, 1.9, bits)) == pytest.approx(activation_grid(-0.7, 1.9, bits).scale)
