import keras
import numpy as np
import pytest
from keras import layers

from tfopt.surgery.elementary import as_elementary


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


CASES = {
    "dense": (lambda: layers.Dense(4, activation="relu", bias_initializer="normal"), (5, 3)),
    "convolution": (lambda: layers.Conv2D(4, 3, activation="tanh"), (5, 6, 6, 3)),
    "pooling": (lambda: layers.GlobalAveragePooling2D(), (5, 6, 6, 3)),
    "recurrent": (lambda: layers.LSTM(4), (5, 6, 3)),
    "model": (
        lambda: keras.Sequential([keras.Input((6, 6, 3)), layers.SeparableConv2D(4, 3), layers.Flatten()]),
        (5, 6, 6, 3),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_steps_become_samples(name):
    keras.utils.set_random_seed(0)
    make, shape = CASES[name]
    x = keras.Input(shape)
    model = keras.Model(x, layers.TimeDistributed(make(), name="steps")(x))
    rewritten = as_elementary(model)
    assert not any(isinstance(layer, layers.TimeDistributed) for layer in rewritten.layers)
    assert rewritten.output_shape == model.output_shape
    assert rewritten.count_params() == model.count_params()
    np.testing.assert_allclose(rewritten(normal(3, *shape)), model(normal(3, *shape)), rtol=1e-4, atol=1e-5)


def test_a_dense_layer_takes_any_number_of_steps():
    x = keras.Input((None, 3))
    rewritten = as_elementary(keras.Model(x, layers.TimeDistributed(layers.Dense(4))(x)))
    assert [type(layer) for layer in rewritten.layers[1:]] == [layers.Dense]


def test_of_an_unknown_number_of_steps_other_layers_stay():
    x = keras.Input((None, 6, 6, 3))
    rewritten = as_elementary(keras.Model(x, layers.TimeDistributed(layers.Conv2D(4, 3))(x)))
    assert isinstance(rewritten.layers[-1], layers.TimeDistributed)
