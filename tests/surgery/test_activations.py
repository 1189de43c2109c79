import keras
import numpy as np
import pytest
from keras import layers

from tfopt.surgery.activations import activation_layers, split_activations

X = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)


def kinds(model):
    return [(layer.name, type(layer)) for layer in model.layers[1:]]


@pytest.mark.parametrize(
    ("activation", "kind"),
    [
        ("relu", layers.ReLU),
        ("relu6", layers.ReLU),
        ("softmax", layers.Softmax),
        ("sigmoid", layers.Activation),
        ("gelu", layers.Activation),
    ],
)
@pytest.mark.parametrize("base", ["dense", "conv", "depthwise"])
def test_activation_becomes_a_layer_and_the_outputs_stay(base, activation, kind):
    keras.utils.set_random_seed(0)
    options = {"activation": activation, "kernel_initializer": "normal", "name": base}
    layer = {
        "dense": lambda: layers.Dense(4, **options),
        "conv": lambda: layers.Conv2D(4, 3, **options),
        "depthwise": lambda: layers.DepthwiseConv2D(
            3, activation=activation, depthwise_initializer="normal", name=base
        ),
    }[base]()
    model = keras.Sequential([keras.Input((8, 8, 3)), layer])
    split = split_activations(model)
    assert kinds(split) == [(base, type(layer)), (f"{base}_activation", kind)]
    assert split.layers[1].activation is keras.activations.linear
    np.testing.assert_allclose(split(X), model(X), atol=1e-6)
    assert model.layers[0].activation is keras.activations.get(activation)


def test_layers_of_the_usual_activations_have_the_same_values():
    x = np.linspace(-9, 9, 37, dtype=np.float32).reshape(1, -1)
    for activation in ("relu", "relu6", "softmax", "sigmoid", "tanh", "gelu", "hard_sigmoid"):
        function = keras.activations.get(activation)
        outputs = x
        for layer in activation_layers(function, "a"):
            outputs = layer(outputs)
        np.testing.assert_allclose(outputs, function(x), atol=1e-6)


def test_linear_and_missing_activations_get_no_layer():
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="conv"), layers.Activation("relu", name="act")]
    )
    assert kinds(split_activations(model)) == [("conv", layers.Conv2D), ("act", layers.Activation)]


def test_activation_of_a_shared_layer_is_shared():
    x, shared = keras.Input((4,)), layers.Dense(4, activation="relu", name="shared")
    model = keras.Model(x, shared(shared(x)))
    split = split_activations(model)
    assert kinds(split) == [("shared", layers.Dense), ("shared_activation", layers.ReLU)]
    data = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_array_equal(split(data), model(data))


def test_recurrent_layers_keep_theirs():
    model = keras.Sequential([keras.Input((5, 3)), layers.SimpleRNN(4, activation="relu", name="rnn")])
    assert kinds(split_activations(model)) == [("rnn", layers.SimpleRNN)]


def test_activations_of_nested_models_are_split():
    nested = keras.Sequential([keras.Input((4,)), layers.Dense(3, "tanh", name="inner")])
    model = keras.Sequential([keras.Input((4,)), nested, layers.Dense(2, "softmax", name="outer")])
    names = [name for name, _ in kinds(split_activations(model))]
    assert names == ["inner", "inner_activation", "outer", "outer_activation"]


def test_new_names_make_way_for_those_in_use():
    x = keras.Input((4,), name="x")
    y = layers.Dense(3, "relu", name="hidden")(x)
    model = keras.Model(x, layers.Dense(2, name="hidden_activation")(y))
    split = split_activations(model)
    assert [layer.name for layer in split.layers if isinstance(layer, layers.Dense)] == ["hidden", "hidden_activation"]
    data = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_array_equal(split(data), model(data))
