import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from keras import layers
from reference_weights import weight_scales

from tfopt.quantization.rules import Output, rule_for
from tfopt.quantization.spec import ActivationGrid, activation_grid

ends = st.floats(-1e4, 1e4, allow_subnormal=False)
ranges = st.tuples(ends, ends).map(sorted)


@given(ranges)
def test_zero_is_a_grid_point(limits):
    grid = activation_grid(*limits)
    assert -128 <= grid.zero_point <= 127
    assert grid.quantize(np.zeros(1)) == grid.zero_point
    assert grid.dequantize(grid.quantize(np.zeros(1))) == 0.0


@given(ranges)
def test_grid_covers_the_range_to_half_a_step(limits):
    grid = activation_grid(*limits)
    assert grid.scale > 0
    assert grid.maximum - grid.minimum == pytest.approx(255 * grid.scale)
    assert grid.minimum - grid.scale * 0.5001 <= min(limits[0], 0.0)
    assert grid.maximum + grid.scale * 0.5001 >= max(limits[1], 0.0)


@given(ranges, st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_rounding_is_off_by_at_most_half_a_step_inside_the_range(limits, places):
    grid = activation_grid(*limits)
    x = grid.minimum + np.array(places) * (grid.maximum - grid.minimum)
    error = np.abs(x - grid.dequantize(grid.quantize(x)))
    assert np.all(error <= grid.scale / 2 * (1 + 1e-6))


@given(ranges, st.floats(0, 1e6))
def test_values_outside_the_range_are_clipped(limits, distance):
    grid = activation_grid(*limits)
    outside = np.array([grid.minimum - distance, grid.maximum + distance])
    assert grid.quantize(outside).tolist() == [-128, 127]
    np.testing.assert_allclose(grid.dequantize(grid.quantize(outside)), [grid.minimum, grid.maximum])


@given(st.integers(-128, 127), st.integers(-20, 20))
def test_quantizing_a_grid_point_gives_it_back(zero_point, exponent):
    grid = ActivationGrid(scale=2.0**exponent, zero_point=zero_point)
    q = np.arange(-128, 128, dtype=np.int8)
    np.testing.assert_array_equal(grid.quantize(grid.dequantize(q)), q)


def test_ties_round_away_from_zero():
    grid = ActivationGrid(scale=1.0, zero_point=3)
    assert grid.quantize(np.array([0.5, 1.5, -0.5, -1.5, 0.49])).tolist() == [4, 5, 2, 1, 3]
    assert grid.quantize(np.array([0.5])).dtype == np.int8


@settings(max_examples=50)
@given(ranges, st.integers(0, 2**32 - 1))
def test_grid_is_the_one_that_tensorflow_nudges_to(limits, seed):
    minimum, maximum = min(limits[0], 0.0), max(limits[1], 0.0)
    assume(maximum - minimum > 1e-3)
    grid = activation_grid(*limits)
    # At a tie of the zero point, either neighbour is as good.
    assume(abs((-minimum / grid.scale) % 1 - 0.5) > 1e-3)
    steps = np.random.default_rng(seed).uniform(-140, 140, 50)
    steps = steps[np.abs(steps % 1 - 0.5) > 1e-2]
    x = steps * grid.scale
    expected = tf.quantization.fake_quant_with_min_max_vars(tf.cast(x, "float32"), minimum, maximum)
    np.testing.assert_allclose(grid.dequantize(grid.quantize(x)), expected, rtol=1e-4, atol=1e-4 * grid.scale)


@pytest.mark.parametrize(
    ("limits", "scale", "zero_point"),
    [
        ((0.0, 255 / 256), 1 / 256, -128),  # TFLite's softmax and sigmoid
        ((-1.0, 127 / 128), 1 / 128, 0),  # TFLite's tanh
        ((1.0, 2.55), 0.01, -128),
        ((-2.55, -1.0), 0.01, 127),
    ],
)
def test_known_grids(limits, scale, zero_point):
    grid = activation_grid(*limits)
    assert grid.scale == pytest.approx(scale)
    assert grid.zero_point == zero_point


def test_range_of_zeros_has_a_positive_scale():
    grid = activation_grid(0.0, 0.0)
    assert 0 < grid.scale < 1e-8
    assert grid.dequantize(grid.quantize(np.zeros(3))).tolist() == [0, 0, 0]


kernels = arrays(np.float64, array_shapes(min_dims=2, max_dims=4, max_side=4), elements=st.floats(-1e3, 1e3, width=32))


@given(kernels)
def test_largest_weight_of_a_channel_is_127_steps(kernel):
    axes = tuple(range(kernel.ndim - 1))
    scales = weight_scales(kernel, axes)
    assert scales.shape == (*(1 for _ in axes), kernel.shape[-1])
    largest = np.abs(kernel).max(axis=axes)
    expected = np.where(largest > 0, 127, 0)
    np.testing.assert_allclose(np.abs(kernel / scales).max(axis=axes), expected, rtol=1e-9)
    assert np.all(scales > 0)


@pytest.mark.parametrize(
    ("layer", "shape", "channels"),
    [
        (layers.Dense(5), (3,), (1, 5)),
        (layers.Conv2D(5, 3), (8, 8, 3), (1, 1, 1, 5)),
        (layers.DepthwiseConv2D(3), (8, 8, 3), (1, 1, 3, 1)),
        (layers.DepthwiseConv2D(3, depth_multiplier=2), (8, 8, 3), (1, 1, 3, 2)),
    ],
)
def test_each_output_channel_has_a_scale_of_its_own(layer, shape, channels):
    layer.build((None, *shape))
    kernel = np.random.default_rng(0).normal(size=layer.kernel.shape)
    scales = weight_scales(kernel, rule_for(layer, len(shape) + 1).scale_axes)
    assert scales.shape == channels
    assert len(np.unique(scales)) == np.prod(channels)


def test_channel_of_zeros_has_the_scale_one():
    kernel = np.ones((3, 3, 2, 4))
    kernel[..., 1] = 0
    assert weight_scales(kernel, (0, 1, 2)).ravel().tolist() == [1 / 127, 1.0, 1 / 127, 1 / 127]


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (layers.Activation("squareplus"), "the activation 'squareplus' has no int8 kernel"),
        (layers.ReLU(max_value=6.0, negative_slope=0.1), "a ReLU with a slope"),
        (layers.ReLU(max_value=1.0), "a maximum other than 6"),
        (layers.ReLU(threshold=1.0), "a threshold"),
        (layers.Softmax(axis=1), "softmax over one axis only"),
        (layers.BatchNormalization(axis=1), "batch norm must be over the last axis"),
        (layers.Conv2D(4, 3, data_format="channels_first"), "TFLite has channels last only"),
        (layers.DepthwiseConv2D(3, data_format="channels_first"), "TFLite has channels last only"),
        (layers.Attention(), "TFLite has no int8 operator for it"),
        (layers.Dot(axes=1), "TFLite has no int8 operator for Dot"),
    ],
)
def test_layer_without_a_rule_has_a_reason(operation, reason):
    assert reason in rule_for(operation, 4)


def test_subclass_of_a_known_layer_has_no_rule():
    class Doubled(layers.Dense):
        def call(self, x):
            return 2 * super().call(x)

    assert rule_for(Doubled(3), 2) == "Doubled is the model's own: what it computes is known to its code alone"


@pytest.mark.parametrize("kind", [layers.MaxPooling2D, layers.Flatten, layers.Dropout, layers.Permute])
def test_layers_that_move_values_keep_their_grid(kind):
    argument = {layers.Dropout: [0.5], layers.Permute: [(2, 1)]}.get(kind, [])
    assert rule_for(kind(*argument), 4).output is Output.SAME


def test_ranges_that_tflite_fixes():
    for activation, limits in {
        "softmax": (0.0, 255 / 256),
        "sigmoid": (0.0, 255 / 256),
        "tanh": (-1.0, 127 / 128),
    }.items():
        rule = rule_for(layers.Activation(activation), 2)
        assert (rule.output, rule.fixed_range) == (Output.FIXED, limits)
    assert rule_for(keras.layers.Softmax(), 2).fixed_range == (0.0, 255 / 256)


def test_a_range_with_zero_midway_between_two_steps_is_widened():
    grid = activation_grid(-1.0, 1.0)
    assert (grid.scale, grid.zero_point) == (pytest.approx(1 / 127), -1)
    assert grid.minimum == pytest.approx(-1.0)
    assert grid.maximum == pytest.approx(1.0 + 1 / 127)
    again = activation_grid(grid.minimum, grid.maximum)
    assert (again.scale, again.zero_point) == (pytest.approx(grid.scale), grid.zero_point)
