"""Rounding as tfmot rounds where TFLite does so too, and where the two part."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tf_keras_networks import L, tf_keras

from tfopt.interop.legacy import import_tfmot
from tfopt.quantization.fake_quant import fake_quantize_activation, fake_quantize_weights
from tfopt.quantization.layers import FakeQuantize

quantization = import_tfmot().quantization.keras
# tf_keras and tfmot use what NumPy 2 and TensorFlow 2.21 will take away.
pytestmark = pytest.mark.filterwarnings("ignore")


def rounded_by_tfmot(quantizer, values, minimum, maximum):
    ends = {"min_var": tf.Variable(minimum, dtype=tf.float32), "max_var": tf.Variable(maximum, dtype=tf.float32)}
    return quantizer(tf.constant(values), False, ends).numpy()


@settings(max_examples=30)
@given(st.floats(-20, -0.015625, width=32), st.floats(0.015625, 20, width=32), st.integers(0, 99))
def test_activations_of_one_range(minimum, maximum, seed):
    values = np.random.default_rng(seed).normal(size=500).astype(np.float32) * (maximum - minimum)
    quantizer = quantization.quantizers.MovingAverageQuantizer(8, per_axis=False, symmetric=False, narrow_range=False)
    theirs = rounded_by_tfmot(quantizer, values, minimum, maximum)
    ours, scale = fake_quantize_activation(values, tf.constant(minimum), tf.constant(maximum))
    # A value midway between two steps may go to either side; where zero lies midway, tfopt widens the range by a step.
    zero = -minimum / float(scale) % 1
    if abs(zero - 0.5) > 0.01:
        assert np.mean(np.abs(ours - theirs) > 1e-4 * float(scale)) < 0.01
    assert np.max(np.abs(ours - theirs)) <= 2.01 * float(scale)


@given(st.integers(0, 99))
@settings(max_examples=10)
def test_weights_of_a_convolution(seed):
    kernel = np.random.default_rng(seed).normal(size=(3, 3, 4, 5)).astype(np.float32)
    limits = np.abs(kernel).max((0, 1, 2))
    quantizer = quantization.quantizers.LastValueQuantizer(8, per_axis=True, symmetric=True, narrow_range=True)
    theirs = rounded_by_tfmot(quantizer, kernel, -limits, limits)
    ours = fake_quantize_weights(tf.constant(kernel), (0, 1, 2)).numpy()
    assert np.mean(np.abs(ours - theirs) > 1e-5) < 0.01
    assert np.max(np.abs(ours - theirs) / limits) < 1.01 / 127


def test_small_depthwise_channels_vanish_in_tfmot_and_stay_here():
    """Divergence: tfmot takes the last axis of a depthwise kernel, `(h, w, channels, 1)`, for its channels."""
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 1)).astype(np.float32)
    kernel[:, :, 1] *= 1e-3
    model = tf_keras.Sequential([L.Input((8, 8, 4)), L.DepthwiseConv2D(3, use_bias=False)])
    model.set_weights([kernel])
    wrapped = quantization.quantize_model(model).layers[-1]
    x = np.zeros((1, 3, 3, 4), np.float32)
    x[0, 1, 1] = 1  # what comes out is the middle of the kernel
    wrapped(x, training=True)  # lets tfmot set the range of the kernel
    theirs = wrapped.layer.depthwise_kernel.numpy()
    assert not np.any(theirs[:, :, 1])
    ours = fake_quantize_weights(tf.constant(kernel), (0, 1)).numpy()
    assert np.all(np.abs(ours - kernel) <= np.abs(kernel).max((0, 1)) / 127)
    assert np.any(ours[:, :, 1])


def test_a_range_follows_the_first_batch_here_and_starts_at_six_in_tfmot():
    """Divergence: tfmot's averages move by a thousandth a batch, from ±6; a short training leaves them there."""
    x = np.random.default_rng(0).uniform(-1, 1, (32, 4)).astype(np.float32)
    model = quantization.quantize_model(tf_keras.Sequential([L.Input((4,)), L.Dense(2, use_bias=False)]))
    model(x, training=True)
    variables = {weight.name.rpartition("/")[2]: weight for weight in model.layers[-1].weights}
    assert float(variables["post_activation_max:0"]) > 5.9
    ours = FakeQuantize()
    ours(tf.constant(x), training=True)
    assert float(ours.range()[1]) == pytest.approx(x.max())
