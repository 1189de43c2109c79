import keras
import numpy as np
import pytest
from keras import layers

from tfopt.surgery.elementary import as_elementary

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
    split = as_elementary(model)
    assert kinds(split) == [(base, type(layer)), (f"{base}_activation", kind)]
    assert split.layers[1].activation is keras.activations.linear
    np.testing.assert_allclose(split(X), model(X), atol=1e-6)
    assert model.layers[0].activation is keras.activations.get(activation)


ALL = [
    name
    for name, function in vars(keras.activations).items()
    if getattr(function, "__name__", None) == name and name not in {"get", "serialize", "deserialize", "threshold"}
]


@pytest.mark.parametrize("name", ALL)
def test_every_activation_keeps_its_values_and_the_name_of_the_layer(name):
    x = keras.Input((8,))
    model = keras.Model(x, layers.Activation(name, name="a")(x))
    split = as_elementary(model)
    assert split.operations[-1].name == "a"
    data = np.linspace(-9, 9, 48, dtype=np.float32).reshape(-1, 8)
    np.testing.assert_allclose(split(data), model(data), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_an_elu_keeps_its_alpha(alpha):
    x = keras.Input((8,))
    model = keras.Model(x, layers.ELU(alpha)(x))
    data = np.linspace(-9, 9, 48, dtype=np.float32).reshape(-1, 8)
    split = as_elementary(model)
    assert not any(isinstance(layer, layers.ELU) for layer in split.layers)
    np.testing.assert_allclose(split(data), model(data), rtol=1e-5, atol=1e-6)


def test_an_activation_that_is_a_layer_becomes_that_layer():
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(3, activation=layers.LeakyReLU(0.3), name="hidden")(x))
    split = as_elementary(model)
    assert kinds(split) == [("hidden", layers.Dense), ("hidden_activation", layers.LeakyReLU)]
    data = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_array_equal(split(data), model(data))


def test_linear_and_missing_activations_get_no_layer():
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="conv"), layers.ReLU(name="act")])
    assert as_elementary(model) is model


def test_each_use_of_a_shared_layer_has_its_activation():
    x, shared = keras.Input((4,)), layers.Dense(4, activation="relu", name="shared")
    model = keras.Model(x, shared(shared(x)))
    split = as_elementary(model)
    assert kinds(split) == [
        ("shared", layers.Dense),
        ("shared_activation", layers.ReLU),
        ("shared_activation_1", layers.ReLU),
    ]
    data = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_array_equal(split(data), model(data))


def test_recurrent_layers_keep_theirs():
    model = keras.Sequential([keras.Input((5, 3)), layers.SimpleRNN(4, activation="relu", name="rnn")])
    assert as_elementary(model) is model


def test_activations_of_nested_models_are_split():
    nested = keras.Sequential([keras.Input((4,)), layers.Dense(3, "tanh", name="inner")])
    model = keras.Sequential([keras.Input((4,)), nested, layers.Dense(2, "softmax", name="outer")])
    names = [name for name, _ in kinds(as_elementary(model))]
    assert names == ["inner", "inner_activation", "outer", "outer_activation"]


def test_new_names_make_way_for_those_in_use():
    x = keras.Input((4,), name="x")
    y = layers.Dense(3, "relu", name="hidden")(x)
    model = keras.Model(x, layers.Dense(2, name="hidden_activation")(y))
    split = as_elementary(model)
    assert [layer.name for layer in split.layers if isinstance(layer, layers.Dense)] == ["hidden", "hidden_activation"]
    data = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_array_equal(split(data), model(data))
