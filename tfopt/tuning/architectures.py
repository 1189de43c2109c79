"""A space of image classifiers: width, depth, kernels and kinds of blocks, as hyperparameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from tfopt.schedules.arguments import check_steps

__all__ = ["image_classifiers"]

BLOCKS = ("convolution", "separable", "inverted_residual")
MOMENTUM = 0.9
"""Of batch norms: Keras's 0.99 does not settle in the few steps of a trial."""


def image_classifiers(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    stages: int = 3,
    widths: Sequence[int] = (8, 16, 24, 32, 48, 64),
    most_blocks: int = 3,
    kernels: Sequence[int] = (3, 5),
) -> Callable[[Any], keras.Model]:
    """A function from hyperparameters to a compiled convolutional network, as `tune` takes it.

    A strided convolution, stages of blocks, of which all but the first halve the image, the mean of each channel, and
    the logits. Each stage has a width, a number of blocks, a kernel and a kind of block: "convolution"; "separable", a
    depthwise and a 1×1 convolution; or "inverted_residual", a separable one after an expansion by 4, added to its
    input. Adam's learning rate is searched too.

    Args:
        input_shape: height, width and channels of an image.
        classes: how many there are; targets are their numbers.
        stages: how many.
        widths: channels that a stage may have.
        most_blocks: that a stage may have.
        kernels: sizes of kernels.

    Raises:
        ConfigError: if a number is below 1.

    Example:
        >>> import keras_tuner
        >>> build = image_classifiers((16, 16, 1), classes=10, stages=1)
        >>> hp = keras_tuner.HyperParameters()
        >>> build(hp).output_shape, sorted(hp.values)
        ((None, 10), ['block_1', 'depth_1', 'kernel_1', 'learning_rate', 'width_1'])

    References: Sandler et al. 2018, arXiv:1801.04381 (inverted residuals); Tan et al. 2019, arXiv:1807.11626 (MnasNet:
    a choice for each stage).
    """
    for name, number in (("classes", classes), ("stages", stages), ("most_blocks", most_blocks)):
        check_steps(f"image_classifiers: {name}", number, minimum=1)

    def build(hp: Any) -> keras.Model:
        layers = keras.layers
        x = inputs = keras.Input(input_shape, name="image")
        x = _normalized(layers.Conv2D(min(widths), 3, strides=2, padding="same", use_bias=False)(x))
        for stage in range(1, stages + 1):
            width, kernel = hp.Choice(f"width_{stage}", list(widths)), hp.Choice(f"kernel_{stage}", list(kernels))
            block = hp.Choice(f"block_{stage}", list(BLOCKS))
            for number in range(hp.Int(f"depth_{stage}", 1, most_blocks)):
                x = _block(x, block, width, kernel, strides=2 if stage > 1 and number == 0 else 1)
        scores = layers.Dense(classes, name="scores")(layers.GlobalAveragePooling2D()(x))
        model = keras.Model(inputs, scores)
        rate = hp.Float("learning_rate", 1e-3, 2e-2, sampling="log", default=5e-3)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
        return model

    return build


def _block(x: Any, block: str, width: int, kernel: int, *, strides: int) -> Any:
    layers = keras.layers
    if block == "convolution":
        return _normalized(layers.Conv2D(width, kernel, strides=strides, padding="same", use_bias=False)(x))
    depthwise = layers.DepthwiseConv2D(kernel, strides=strides, padding="same", use_bias=False)
    if block == "separable":
        return _normalized(layers.Conv2D(width, 1, use_bias=False)(_normalized(depthwise(x))))
    y = _normalized(layers.Conv2D(4 * x.shape[-1], 1, use_bias=False)(x))
    y = layers.Conv2D(width, 1, use_bias=False)(_normalized(depthwise(y)))
    y = layers.BatchNormalization(momentum=MOMENTUM)(y)
    return layers.Add()([x, y]) if strides == 1 and x.shape[-1] == width else y


def _normalized(x: Any) -> Any:
    return keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=MOMENTUM)(x))
