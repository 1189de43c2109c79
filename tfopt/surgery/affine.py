"""Layers that multiply and add per channel at inference, and the 1×1 depthwise convolution that equals them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfopt.errors import ModelError

__all__ = ["AFFINE", "affine_as_depthwise", "scale_and_offset"]

AFFINE = (keras.layers.BatchNormalization, keras.layers.Normalization, keras.layers.Rescaling)
"""The layers."""


def scale_and_offset(layer: keras.Layer, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """The `scale` and `offset`, of shape `(channels,)`, with which inference computes `x * scale + offset`.

    Args:
        layer: a BatchNormalization or Normalization over the last axis, or a Rescaling.
        channels: size of the last axis.

    Raises:
        ModelError: if the layer has neither one value nor one per channel.
    """
    match layer:
        case keras.layers.BatchNormalization():
            mean, variance = np.asarray(layer.moving_mean, np.float64), np.asarray(layer.moving_variance, np.float64)
            scale = 1 / np.sqrt(variance + layer.epsilon)
            if layer.scale:
                scale = scale * np.asarray(layer.gamma, np.float64)
            offset = -mean * scale
            if layer.center:
                offset = offset + np.asarray(layer.beta, np.float64)
        case keras.layers.Normalization():
            scale = 1 / np.maximum(np.sqrt(np.asarray(layer.variance, np.float64)), keras.config.epsilon())
            offset = -np.asarray(layer.mean, np.float64) * scale
        case keras.layers.Rescaling():
            scale, offset = np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)
        case _:
            raise TypeError(f"{type(layer).__name__} is not a multiplication and addition per channel.")
    if any(values.size not in (1, channels) for values in (scale, offset)):
        raise ModelError(
            f"The layer '{layer.name}' must have one value, or one for each of its input's {channels} channels. "
            f"Received: {scale.size} to multiply by and {offset.size} to add. "
            "To broadcast to more channels, use keras.layers.Concatenate or keras.ops.repeat first."
        )
    return tuple(  # type: ignore[return-value]
        np.broadcast_to(values.reshape(-1), (channels,)).astype(np.float32) for values in (scale, offset)
    )


def affine_as_depthwise(layer: keras.Layer, x: Any, *, offset: np.ndarray | None = None) -> Any:
    """Applies the 1×1 depthwise convolution that equals a layer to a symbolic tensor of shape `(n, ..., channels)`.

    TFLite's multiplication and addition would round in between, and its converter leaves them in float where no
    range is known in between; a depthwise convolution is one operator, whose int8 weights are exact (each
    channel has one weight, which its scale makes ±127).

    Args:
        layer: what `scale_and_offset` takes.
        x: the tensor.
        offset: what is added, of shape `(channels,)`; by default the layer's own.
    """
    *spatial, channels = (-1 if size is None else size for size in x.shape[1:])
    depthwise = keras.layers.DepthwiseConv2D(1, name=layer.name)
    planar = len(spatial) == 2
    if not planar:
        x = keras.layers.Reshape((-1, 1, channels), name=f"{layer.name}_planar")(x)
    x = depthwise(x)
    if not planar:
        x = keras.layers.Reshape((*spatial, channels), name=f"{layer.name}_shape")(x)
    scale, own_offset = scale_and_offset(layer, channels)
    depthwise.kernel.assign(scale[np.newaxis, np.newaxis, :, np.newaxis])
    depthwise.bias.assign(own_offset if offset is None else offset)
    return x
