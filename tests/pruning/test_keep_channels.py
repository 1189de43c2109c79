"""Channels kept by the fraction that each layer is given."""

import keras
import numpy as np
import pytest

from tfopt.errors import ConfigError, ModelError
from tfopt.pruning.channels import keep_channels

layers = keras.layers


def residual() -> keras.Model:
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(16, 3, padding="same", name="first")(x)
    y = layers.Add()([y, layers.Conv2D(16, 1, name="shortcut")(x)])
    y = layers.Conv2D(8, 3, name="last")(y)
    return keras.Model(x, layers.Dense(2, name="scores")(layers.GlobalAveragePooling2D()(y)))


def filters(model: keras.Model) -> dict[str, int]:
    return {layer.name: layer.filters for layer in model.layers if isinstance(layer, layers.Conv2D)}


def test_each_layer_keeps_its_fraction_and_others_all() -> None:
    assert filters(keep_channels(residual(), {"last": 0.25})) == {"first": 16, "shortcut": 16, "last": 2}
    assert filters(keep_channels(residual(), {"last": 3, ".*": 0.5})) == {"first": 8, "shortcut": 8, "last": 3}


def test_tied_layers_keep_the_highest_fraction() -> None:
    kept = filters(keep_channels(residual(), {"first": 0.25, "shortcut": 0.5}))
    assert kept == {"first": 8, "shortcut": 8, "last": 8}


def test_the_most_important_channels_stay() -> None:
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4, use_bias=False, name="hidden"), layers.Dense(1, use_bias=False)]
    )
    hidden, last = (layer.kernel for layer in model.layers)
    hidden.assign(np.outer([1, 1, 1], [0.1, 4, 2, 0.3]))
    last.assign(np.array([[1.0], [2.0], [3.0], [4.0]]))
    smaller = keep_channels(model, {"hidden": 0.5})
    x = np.array([[1.0, 2.0, 3.0]], "float32")
    np.testing.assert_allclose(smaller(x), [[6 * (4 * 2 + 2 * 3)]], rtol=1e-6)
    np.testing.assert_allclose(model(x), [[6 * (0.1 + 4 * 2 + 2 * 3 + 0.3 * 4)]], rtol=1e-6)  # left as it is


def test_all_channels_make_a_copy() -> None:
    model = residual()
    copy = keep_channels(model, {".*": 1.0})
    assert filters(copy) == filters(model)
    assert not {id(weight) for weight in copy.weights} & {id(weight) for weight in model.weights}


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"absent": 0.5}, "keep_channels: fractions='absent' matches no layer that makes channels"),
        ({"last": 1.5}, r"keep_channels: fractions\['last'\] must be a fraction in \[0, 1\].*Received: 1.5"),
        ({"(": 0.5}, "keys of fractions= must be regular expressions"),
    ],
)
def test_what_cannot_be_is_refused(fractions, message) -> None:
    with pytest.raises(ConfigError, match=message):
        keep_channels(residual(), fractions)
    with pytest.raises(ConfigError, match="multiple_of must be an integer"):
        keep_channels(residual(), {"last": 0.5}, multiple_of=0)


def test_a_model_without_removable_channels_is_refused() -> None:
    with pytest.raises(ModelError, match="no channel of the model"):
        keep_channels(keras.Sequential([keras.Input((3,)), layers.Dense(2)]), {".*": 0.5})
