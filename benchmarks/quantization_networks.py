"""The networks of benchmarks/quantization.py, built with the Keras they are given: Keras 3 or tf_keras.

All end in logits: the int8 grid of a softmax would hide differences between two files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["NETWORKS", "RESCALINGS"]


Scales = Callable[[int], np.ndarray]
"""Gives positive factors for so many channels."""


def plain_cnn(keras: Any, shape: tuple[int, ...], classes: int) -> Any:
    """Convolutions, batch norms and dense layers."""
    layers = keras.layers
    x = inputs = keras.Input(shape, name="image")
    for filters in (16, 32, 64):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(64)(x)
    x = layers.ReLU()(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x))


def separable_cnn(keras: Any, shape: tuple[int, ...], classes: int) -> Any:
    """Depthwise and 1×1 convolutions after a strided stem, as MobileNet has them, with ReLU."""
    layers = keras.layers
    x = inputs = keras.Input(shape, name="image")
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x)
    for filters, strides in ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1)):
        x = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
        x = layers.Conv2D(filters, 1, use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x))


def mobilenet_v2(keras: Any, shape: tuple[int, ...], classes: int) -> Any:
    """The network of keras.applications, with random weights."""
    return keras.applications.MobileNetV2(input_shape=shape, weights=None, classes=classes, classifier_activation=None)


NETWORKS = {"plain_cnn": plain_cnn, "separable_cnn": separable_cnn, "mobilenet_v2": mobilenet_v2}


def rescale_channels(model: Any, scales: Scales) -> None:
    """Spreads the channels of each activation over different widths.

    relu(s·x) = s·relu(x) for s > 0. So each channel of each batch norm is multiplied by an s of its own, and what
    the next layer takes from this channel is divided by it. One grid per tensor then serves channels that differ
    by far, and fits few of them.
    """
    spread = None
    for layer in model.layers:
        match type(layer).__name__:
            case "BatchNormalization":
                gamma, beta, *moving = layer.get_weights()
                spread = scales(len(gamma))
                layer.set_weights([gamma * spread, beta * spread, *moving])
            case "Conv2D" | "DepthwiseConv2D" | "Dense" if spread is not None:
                kernel, *bias = layer.get_weights()
                # (h, w, in, out), (h, w, in, multiplier) or (in, out)
                layer.set_weights([kernel / spread[:, np.newaxis], *bias])
                spread = None


def rescale_depthwise_kernels(model: Any, scales: Scales) -> None:
    """Spreads the channels of each depthwise kernel over different widths; its batch norm takes the factors back.

    No activation changes, so only the grids of the weights meet the difference.
    """
    spread = None
    for layer in model.layers:
        match type(layer).__name__:
            case "DepthwiseConv2D":
                (kernel,) = layer.get_weights()
                spread = scales(kernel.shape[2])
                layer.set_weights([kernel * spread[:, np.newaxis]])
            case "BatchNormalization" if spread is not None:
                gamma, beta, mean, variance = layer.get_weights()
                deviations = np.sqrt(variance + layer.epsilon), np.sqrt(variance * spread**2 + layer.epsilon)
                gamma = gamma * deviations[1] / (deviations[0] * spread)
                layer.set_weights([gamma, beta, mean * spread, variance * spread**2])
                spread = None


RESCALINGS = {"channels": rescale_channels, "depthwise_kernels": rescale_depthwise_kernels}
"""Ways to make a `separable_cnn` hard to quantize without changing what it computes."""
