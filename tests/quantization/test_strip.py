import keras
import numpy as np
import pytest
from keras import layers
from reference_weights import weight_scales

from tfopt.errors import ModelError
from tfopt.quantization import freeze, is_quantize_aware, quantize_aware, strip
from tfopt.quantization.layers import FakeQuantize, FixedFakeQuantize, NamedOutput, QuantizeAware

SAMPLES = np.random.default_rng(0).normal(size=(64, 6, 6, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 6, 3), name="x")
    shared = layers.Conv2D(3, 3, padding="same", activation="relu", name="conv")
    y = layers.BatchNormalization(name="first")(shared(shared(x)))
    y = layers.BatchNormalization(name="second")(layers.MaxPooling2D(name="pool")(y))
    y = layers.Concatenate(name="joined")([y, layers.DepthwiseConv2D(3, padding="same", name="depthwise")(y)])
    y = layers.Dense(4, activation="softmax", name="scores")(layers.Flatten(name="flat")(y))
    model = keras.Model(x, {"scores": y, "image": layers.AveragePooling2D(2, name="image")(x)})
    generator = np.random.default_rng(0)
    model.set_weights([generator.uniform(0.2, 1.0, weight.shape) * 0.5 for weight in model.weights])
    return model


@pytest.fixture(scope="module")
def aware(model):
    return quantize_aware(model, calibration=SAMPLES)


def kinds(model):
    return {type(layer) for layer in model.layers}


def test_strip_gives_the_float_model_back(model, aware):
    stripped = strip(aware)
    assert not kinds(stripped) & {FakeQuantize, FixedFakeQuantize, QuantizeAware, NamedOutput}
    assert not is_quantize_aware(stripped)
    expected, received = model(SAMPLES), stripped(SAMPLES)
    assert received.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(received[name], expected[name], atol=1e-6)


def test_strip_keeps_the_names_of_layers_and_weights_unrounded(model, aware):
    stripped = strip(aware)
    for name in ("conv", "depthwise", "first", "second"):
        for old, new in zip(model.get_layer(name).get_weights(), stripped.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
    assert len([layer for layer in stripped.layers if isinstance(layer, layers.Conv2D)]) == 1


def test_strip_shares_no_weights(aware):
    before = aware.get_weights()
    stripped = strip(aware)
    for weight in stripped.weights:
        weight.assign(keras.ops.zeros_like(weight))
    for old, new in zip(before, aware.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_strip_of_a_float_model_is_a_copy(model):
    stripped = strip(model)
    np.testing.assert_array_equal(stripped(SAMPLES)["scores"], model(SAMPLES)["scores"])


def test_stripped_model_can_be_quantized_anew(aware):
    again = quantize_aware(strip(aware), calibration=SAMPLES)
    np.testing.assert_array_equal(again(SAMPLES)["scores"], aware(SAMPLES)["scores"])


def test_frozen_model_gives_the_same_outputs(aware):
    frozen = freeze(aware)
    expected, received = aware(SAMPLES), frozen(SAMPLES)
    assert received.keys() == expected.keys()
    # A batch norm on its own is added up in another order, so that a value may fall on the other side of a tie.
    for name in expected:
        difference = np.abs(received[name] - expected[name])
        assert np.mean(difference > 1e-5) < 0.02
        assert difference.max() < 0.05


def test_frozen_model_has_constant_ranges_and_weights_on_their_grid(aware):
    frozen = freeze(aware)
    assert not kinds(frozen) & {FakeQuantize, QuantizeAware, NamedOutput}
    for name, axes in {"conv": (0, 1, 2), "depthwise": (0, 1), "scores": (0,)}.items():
        kernel = frozen.get_layer(name).kernel.numpy()
        steps = kernel / weight_scales(kernel, axes)
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)


def test_only_a_batch_norm_that_follows_no_convolution_becomes_a_depthwise_convolution(aware):
    frozen = freeze(aware)
    norms = [type(frozen.get_layer(name)) for name in ("first", "second")]
    assert norms == [layers.DepthwiseConv2D, layers.DepthwiseConv2D]  # the first follows the convolution's ReLU

    keras.utils.set_random_seed(0)
    plain = keras.Sequential(
        [keras.Input((6, 6, 3)), layers.Conv2D(4, 3), layers.BatchNormalization(name="norm"), layers.ReLU()]
    )
    folded = freeze(quantize_aware(plain, calibration=SAMPLES))
    assert type(folded.get_layer("norm")) is layers.BatchNormalization


def test_freezing_leaves_the_model_as_it_is(aware):
    before, config = aware.get_weights(), aware.get_config()
    freeze(aware)
    assert aware.get_config() == config
    for old, new in zip(before, aware.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_range_never_observed_cannot_be_frozen(model):
    with pytest.raises(ModelError, match=r"range 'x_range' .* never observed.*Pass calibration=... to quantize_aware"):
        freeze(quantize_aware(model))
