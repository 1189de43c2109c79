import keras
import numpy as np
import pytest
from keras import layers

from tfopt.errors import ModelError
from tfopt.surgery.affine import affine_as_depthwise, scale_and_offset


def batch_norm(shape, **options):
    layer = layers.BatchNormalization(name="norm", **options)
    layer.build((None, *shape))
    generator = np.random.default_rng(0)
    layer.moving_mean.assign(generator.normal(size=shape[-1]))
    layer.moving_variance.assign(generator.uniform(0.01, 4.0, shape[-1]))
    if layer.scale:
        layer.gamma.assign(generator.normal(size=shape[-1]))
    if layer.center:
        layer.beta.assign(generator.normal(size=shape[-1]))
    return layer


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("epsilon", [1e-3, 0.5])
def test_scale_and_offset_are_what_inference_computes(scale, center, epsilon):
    layer = batch_norm((5,), scale=scale, center=center, epsilon=epsilon)
    x = np.random.default_rng(1).normal(size=(32, 5)).astype(np.float32)
    factor, offset = scale_and_offset(layer, 5)
    assert factor.shape == offset.shape == (5,)
    assert factor.dtype == offset.dtype == np.float32
    np.testing.assert_allclose(x * factor + offset, layer(x, training=False), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (4, 6, 5), (2, 3, 4, 5)], ids=str)
def test_depthwise_convolution_computes_the_same(shape):
    layer = batch_norm(shape)
    x = keras.Input(shape)
    model = keras.Model(x, affine_as_depthwise(layer, x))
    convolutions = [part for part in model.layers if isinstance(part, layers.DepthwiseConv2D)]
    assert [part.name for part in convolutions] == ["norm"]
    assert convolutions[0].kernel.shape == (1, 1, 5, 1)
    assert model.output_shape == (None, *shape)
    data = np.random.default_rng(1).normal(size=(8, *shape)).astype(np.float32)
    np.testing.assert_allclose(model(data), layer(data, training=False), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Rescaling(0.5, offset=-1.0),
        layers.Rescaling([0.5, 1.0, 2.0], offset=[0.0, 1.0, -1.0]),
        layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 0.0, 4.0]),
    ],
    ids=["numbers", "per channel", "normalization"],
)
def test_rescaling_and_normalization_as_a_depthwise_convolution(layer):
    x = keras.Input((4, 6, 3))
    layer.build((None, 4, 6, 3))
    model = keras.Model(x, affine_as_depthwise(layer, x))
    data = np.random.default_rng(1).normal(size=(8, 4, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(model(data), layer(data), rtol=1e-4, atol=1e-5)


def test_of_a_number_of_steps_that_is_unknown_too():
    layer, x = batch_norm((7, 5)), keras.Input((None, 5))
    model = keras.Model(x, affine_as_depthwise(layer, x))
    data = np.random.default_rng(1).normal(size=(2, 7, 5)).astype(np.float32)
    np.testing.assert_allclose(model(data), layer(data, training=False), rtol=1e-4, atol=1e-5)


def test_values_that_broadcast_to_more_channels_are_refused():
    with pytest.raises(ModelError, match="one for each of its input's 1 channels"):
        scale_and_offset(layers.Rescaling([1.0, 2.0, 3.0]), 1)
