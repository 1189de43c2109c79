"""The space of image classifiers."""

from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest

from tfopt.errors import ConfigError
from tfopt.tuning import image_classifiers


def built(**values: Any) -> keras.Model:
    hp = keras_tuner.HyperParameters()
    for name, value in values.items():
        hp.Fixed(name, value)
    return image_classifiers((16, 16, 1), 5, stages=2)(hp)


def kinds(model: keras.Model) -> list[str]:
    return [type(layer).__name__ for layer in model.layers]


def test_hyperparameters_are_what_is_built() -> None:
    model = built(
        width_1=16, kernel_1=5, block_1="convolution", depth_1=2, width_2=24, kernel_2=3, block_2="separable", depth_2=1
    )
    stem, first, second = [layer for layer in model.layers if type(layer) is keras.layers.Conv2D][:3]
    assert stem.strides == (2, 2)
    assert (first.filters, first.kernel_size, second.filters) == (16, (5, 5), 16)
    (depthwise,) = [layer for layer in model.layers if type(layer) is keras.layers.DepthwiseConv2D]
    assert (depthwise.kernel_size, depthwise.strides) == ((3, 3), (2, 2))
    assert depthwise.output.shape == (None, 4, 4, 16)
    assert model.output_shape == (None, 5)


def test_an_inverted_residual_is_added_where_shapes_allow() -> None:
    same = built(block_1="inverted_residual", width_1=8, depth_1=3, block_2="separable")
    wider = built(block_1="inverted_residual", width_1=16, depth_1=3, block_2="separable")
    assert kinds(same).count("Add") == 3
    assert kinds(wider).count("Add") == 2


@pytest.mark.slow
def test_a_network_of_the_space_learns() -> None:
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(128, 16, 16, 1)).astype("float32")
    y = (x[:, :8].mean(axis=(1, 2, 3)) > x[:, 8:].mean(axis=(1, 2, 3))).astype(int)
    model = built(block_1="convolution", block_2="inverted_residual", learning_rate=0.01)
    losses = model.fit(x, y, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]


def test_numbers_below_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="image_classifiers: stages must be a whole number of at least 1"):
        image_classifiers((16, 16, 1), 5, stages=0)
