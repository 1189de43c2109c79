"""Batch norm at inference is one multiplication and one addition per channel: a 1×1 depthwise convolution."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

__all__ = ["batch_norm_as_depthwise", "batch_norm_scale_and_offset"]


def batch_norm_scale_and_offset(layer: keras.layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """The `scale` and `offset`, of shape `(channels,)`, with which inference computes `x * scale + offset`."""
    mean, variance = np.asarray(layer.moving_mean, np.float64), np.asarray(layer.moving_variance, np.float64)
    scale = 1 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        scale = scale * np.asarray(layer.gamma, np.float64)
    offset = -mean * scale
    if layer.center:
        offset = offset + np.asarray(layer.beta, np.float64)
    return scale.astype(np.float32), offset.astype(np.float32)


def batch_norm_as_depthwise(layer: keras.layers.BatchNormalization, x: Any) -> Any:
    """Applies an equal 1×1 depthwise convolution to a symbolic tensor of shape `(n, ..., channels)`.

    TFLite's multiplication and addition would round in between, and its converter leaves them in float where no
    range is known in between; a depthwise convolution is one operator, whose int8 weights are exact (each
    channel has one weight, which its scale makes ±127).
    """
    *spatial, channels = x.shape[1:]
    depthwise = keras.layers.DepthwiseConv2D(1, name=layer.name)
    planar = len(spatial) == 2
    if not planar:
        x = keras.layers.Reshape((math.prod(spatial), 1, channels), name=f"{layer.name}_planar")(x)
    x = depthwise(x)
    if not planar:
        x = keras.layers.Reshape((*spatial, channels), name=f"{layer.name}_shape")(x)
    scale, offset = batch_norm_scale_and_offset(layer)
    depthwise.kernel.assign(scale[np.newaxis, np.newaxis, :, np.newaxis])
    depthwise.bias.assign(offset)
    return x
