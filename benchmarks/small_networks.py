"""The networks of benchmarks/quantization.py and compression.py; the code serves Keras 3 and tf_keras alike.

They end in logits: the int8 grid of a softmax would hide differences between two files.
"""

from __future__ import annotations

from functools import partial
from typing import Any

__all__ = ["NETWORKS"]


def plain_cnn(
    keras: Any,
    shape: tuple[int, ...],
    classes: int,
    *,
    stages: tuple[tuple[int, ...], ...] = ((16,), (32,), (64,)),
    units: int = 64,
    momentum: float = 0.99,
) -> Any:
    """Stages of convolutions with batch norms, each ending in a pooling, and dense layers."""
    layers = keras.layers
    x = inputs = keras.Input(shape, name="image")
    for stage in stages:
        for filters in stage:
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.BatchNormalization(momentum=momentum)(x)
            x = layers.ReLU()(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(units)(x)
    x = layers.ReLU()(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x))


def separable_cnn(
    keras: Any,
    shape: tuple[int, ...],
    classes: int,
    *,
    stem: int = 16,
    blocks: tuple[tuple[int, int], ...] = ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1)),
    momentum: float = 0.99,
) -> Any:
    """Depthwise and 1×1 convolutions after a strided stem, as MobileNet has them, with ReLU."""
    layers = keras.layers
    x = inputs = keras.Input(shape, name="image")
    x = layers.Conv2D(stem, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=momentum)(x)
    x = layers.ReLU()(x)
    for filters, strides in blocks:
        x = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=momentum)(x)
        x = layers.ReLU()(x)
        x = layers.Conv2D(filters, 1, use_bias=False)(x)
        x = layers.BatchNormalization(momentum=momentum)(x)
        x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x))


def mobilenet_v2(keras: Any, shape: tuple[int, ...], classes: int) -> Any:
    """The network of keras.applications, with random weights."""
    return keras.applications.MobileNetV2(input_shape=shape, weights=None, classes=classes, classifier_activation=None)


def residual_cnn(keras: Any, shape: tuple[int, ...], classes: int) -> Any:
    """A ResNet of three stages of two blocks with identity or 1×1 shortcuts."""
    layers = keras.layers
    x = inputs = keras.Input(shape, name="image")

    def convolution(x: Any, filters: int, size: int, strides: int = 1) -> Any:
        x = layers.Conv2D(filters, size, strides=strides, padding="same", use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.9)(x)  # 0.99 would not settle in a thousand steps

    x = layers.ReLU()(convolution(x, 48, 3, strides=2))
    for filters, strides in ((48, 1), (48, 1), (96, 2), (96, 1), (192, 2), (192, 1)):
        shortcut = x if strides == 1 else convolution(x, filters, 1, strides)
        y = layers.ReLU()(convolution(x, filters, 3, strides))
        x = layers.ReLU()(layers.Add()([convolution(y, filters, 3), shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x))


NETWORKS = {
    "plain_cnn": plain_cnn,
    "wide_cnn": partial(plain_cnn, stages=((24, 24), (48, 48), (96,)), units=96, momentum=0.9),
    "separable_cnn": separable_cnn,
    # As MLPerf Tiny's keyword spotting has it (arXiv:2106.07597), with a square stem.
    "ds_cnn": partial(separable_cnn, stem=64, blocks=((64, 1),) * 4, momentum=0.9),
    "wide_separable_cnn": partial(
        separable_cnn, stem=32, blocks=((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (256, 1)), momentum=0.9
    ),
    "residual_cnn": residual_cnn,
    "mobilenet_v2": mobilenet_v2,
}
