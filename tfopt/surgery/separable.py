"""A separable convolution as the depthwise and the 1×1 convolution it consists of."""

from __future__ import annotations

from typing import Any

import keras

from tfopt.surgery.activations import apply_activation
from tfopt.surgery.graph import Call, Copier
from tfopt.surgery.rewriting import Rewriting

__all__ = ["split_separable_convolution"]


def split_separable_convolution(
    call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any], rewriting: Rewriting
) -> Any:
    """Makes `NAME_depthwise` and the 1×1 convolution `NAME` of a SeparableConv."""
    layer = call.operation
    depthwise, pointwise = rewriting.once(layer, lambda: _parts(layer, call.name, rewriting))
    outputs = pointwise(depthwise(*args, **kwargs))
    depthwise.kernel.assign(layer.depthwise_kernel)
    pointwise.kernel.assign(layer.pointwise_kernel)
    if layer.use_bias:
        pointwise.bias.assign(layer.bias)
    if layer.activation is keras.activations.linear:
        return outputs
    name = rewriting.unique(f"{call.name}_activation")
    return apply_activation(layer.activation, outputs, name, rewriting, layer.dtype_policy)


def _parts(layer: keras.Layer, name: str, rewriting: Rewriting) -> tuple[keras.Layer, keras.Layer]:
    if isinstance(layer, keras.layers.SeparableConv2D):
        depthwise_class, pointwise_class = keras.layers.DepthwiseConv2D, keras.layers.Conv2D
    else:
        depthwise_class, pointwise_class = keras.layers.DepthwiseConv1D, keras.layers.Conv1D
    depthwise = depthwise_class(
        layer.kernel_size,
        strides=layer.strides,
        padding=layer.padding,
        depth_multiplier=layer.depth_multiplier,
        data_format=layer.data_format,
        dilation_rate=layer.dilation_rate,
        use_bias=False,
        depthwise_regularizer=layer.depthwise_regularizer,
        depthwise_constraint=layer.depthwise_constraint,
        dtype=layer.dtype_policy,
        trainable=layer.trainable,
        name=rewriting.unique(f"{name}_depthwise"),
    )
    pointwise = pointwise_class(
        layer.filters,
        1,
        data_format=layer.data_format,
        use_bias=layer.use_bias,
        kernel_regularizer=layer.pointwise_regularizer,
        bias_regularizer=layer.bias_regularizer,
        kernel_constraint=layer.pointwise_constraint,
        bias_constraint=layer.bias_constraint,
        dtype=layer.dtype_policy,
        trainable=layer.trainable,
        name=name,
    )
    return depthwise, pointwise
