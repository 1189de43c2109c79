"""An integer layer adds up products of integers, so the bias that the converter folds is rounded to their grid."""

import keras
import numpy as np
import pytest
from keras import layers

from tfopt.export.tflite import export_tflite
from tfopt.export.tflite_runtime import run_tflite
from tfopt.quantization import quantize_aware, strip
from tfopt.quantization.layers import QuantizeAware
from tfopt.quantization.rounded_offset import RoundedOffset

pytestmark = pytest.mark.slow

SAMPLES = np.random.default_rng(0).normal(0, [1, 0.03, 0.01, 0.1], (64, 8, 8, 4)).astype(np.float32)


def settle(model):
    """Gives each batch norm the mean and variance of what it receives, so that it makes all channels equally wide."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            received = keras.Model(model.input, layer.input).predict(SAMPLES, verbose=0)
            layer.moving_mean.assign(received.mean((0, 1, 2)))
            layer.moving_variance.assign(received.var((0, 1, 2)))


def deep_model(*, batch_norm=True, bias=False, depth=4):
    """A depthwise network; channels of little range have sums of few steps, and what a bias is rounded by shows."""
    keras.utils.set_random_seed(3)
    x = y = keras.Input((8, 8, 4))
    for _ in range(depth):
        y = layers.DepthwiseConv2D(3, padding="same", use_bias=bias, bias_initializer="normal")(y)
        if batch_norm:
            y = layers.BatchNormalization(gamma_initializer=keras.initializers.RandomNormal(0, 1), epsilon=1e-6)(y)
        y = layers.ReLU()(y)
    model = keras.Model(x, y)
    settle(model)
    return model


def differences(model, path):
    """|Keras − .tflite| in steps of the output's grid."""
    aware = quantize_aware(model, calibration=SAMPLES)
    artifact = export_tflite(aware, path / "model.tflite", verify=False)
    (received,) = run_tflite(path / "model.tflite", {artifact.inputs[0].name: SAMPLES}).values()
    return np.abs(aware.predict(SAMPLES, verbose=0) - received) / artifact.outputs[0].scale


@pytest.mark.parametrize(
    "options", [{}, {"bias": True}, {"batch_norm": False, "bias": True}], ids=["norm", "bias_norm", "bias"]
)
@pytest.mark.usefixtures("conversion_in_this_process")
def test_deep_networks_compute_what_the_file_does(options, tmp_path):
    found = differences(deep_model(**options), tmp_path)
    assert np.mean(found > 0.5) < 1e-3  # without the rounding of biases 4 % with batch norm, up to 5 steps
    assert found.max() < 1.01


@pytest.mark.usefixtures("conversion_in_this_process")
def test_a_channel_of_zeros_gives_its_bias(tmp_path):
    model = deep_model(bias=True, depth=2)
    for layer in model.layers:
        if isinstance(layer, layers.DepthwiseConv2D):
            kernel = layer.kernel.numpy()
            kernel[:, :, 1] = 0.0
            layer.kernel.assign(kernel)
    assert differences(model, tmp_path).max() < 1.01


@pytest.mark.usefixtures("conversion_in_this_process")
def test_a_layer_used_twice_rounds_its_bias_to_two_grids(tmp_path):
    keras.utils.set_random_seed(4)
    x = keras.Input((8, 8, 4))
    shared = layers.DepthwiseConv2D(3, padding="same", bias_initializer="normal", name="shared")
    model = keras.Model(x, shared(layers.ReLU()(shared(x))))
    assert differences(model, tmp_path).max() < 1.01


def test_the_bias_of_a_batch_norm_is_rounded_where_its_statistics_are_fixed():
    norm = layers.BatchNormalization(epsilon=0.0)
    folded = RoundedOffset(norm)
    x, scale = np.array([[0.25], [1.25]], np.float32), np.array([0.25], np.float32)
    folded.build(x.shape)
    norm.moving_mean.assign([0.1])
    norm.moving_variance.assign([4.0])
    norm.gamma.assign([-2.0])
    norm.beta.assign([0.3])
    # The slope is -1, so the bias is 0.4 on a grid of 0.25.
    np.testing.assert_allclose(folded(x, sum_scale=scale), 0.5 - x, atol=1e-6)
    np.testing.assert_allclose(folded(x, sum_scale=0.0), 0.4 - x, atol=1e-6)
    np.testing.assert_allclose(folded(x, sum_scale=scale, training=True), norm(x, training=True), atol=1e-6)
    norm.moving_mean.assign([0.1])
    norm.moving_variance.assign([4.0])
    norm.trainable = False
    np.testing.assert_allclose(folded(x, sum_scale=scale, training=True), 0.5 - x, atol=1e-6)


def test_batch_norms_without_gamma_or_beta():
    x = np.array([[0.3]], np.float32)
    for options in ({"center": False}, {"scale": False}, {"center": False, "scale": False}):
        norm = layers.BatchNormalization(epsilon=0.0, **options)
        folded = RoundedOffset(norm)
        folded.build(x.shape)
        norm.moving_mean.assign([0.2])
        np.testing.assert_allclose(
            folded(x, sum_scale=np.array([0.5], np.float32)), x, atol=1e-6
        )  # the bias is -0.2: none


def test_without_rounding_a_layer_keeps_its_bias():
    layer = QuantizeAware(layers.Dense(1), (0,))
    layer.build((None, 1))
    layer.layer.kernel.assign([[1.27]])
    layer.layer.bias.assign([0.13])
    x = np.zeros((1, 1), np.float32)
    outputs, scale = layer(x, input_scale=10.0)
    assert float(outputs[0, 0]) == pytest.approx(0.1)
    assert scale.numpy() == pytest.approx([0.1])
    layer.rounding = False
    outputs, scale = layer(x, input_scale=10.0)
    assert float(outputs[0, 0]) == pytest.approx(0.13)
    assert scale.numpy() == [0.0]


def test_saved_and_stripped_models_keep_the_bias(tmp_path):
    model = deep_model(bias=True, depth=2)
    aware = quantize_aware(model, calibration=SAMPLES)
    aware.save(tmp_path / "aware.keras")
    loaded = keras.models.load_model(tmp_path / "aware.keras")
    np.testing.assert_array_equal(loaded.predict(SAMPLES, verbose=0), aware.predict(SAMPLES, verbose=0))
    np.testing.assert_array_equal(strip(loaded).predict(SAMPLES, verbose=0), model.predict(SAMPLES, verbose=0))


@pytest.mark.usefixtures("conversion_in_this_process")
def test_pixels_scaled_to_minus_one_to_one_round_alike(tmp_path):
    x = keras.Input((8, 8, 1), name="pixels")
    model = keras.Model(x, layers.Rescaling(1 / 127.5, offset=-1)(x))
    pixels = np.arange(256, dtype=np.float32).reshape(4, 8, 8, 1)
    aware = quantize_aware(model, calibration=pixels)
    artifact = export_tflite(aware, tmp_path / "model.tflite", verify=False)
    (received,) = run_tflite(artifact.path, {"pixels": pixels}).values()
    apart = np.abs(aware.predict(pixels, verbose=0) - received) / artifact.outputs[0].scale
    assert apart.max() < 0.01  # half of them are a step apart where all pixels lie midway between two steps
