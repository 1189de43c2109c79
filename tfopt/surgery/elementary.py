"""Composite layers as the elementary ones that a converter makes of them, each with an output of its own."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfopt.surgery.activations import split_activations
from tfopt.surgery.graph import Call, Copier, Value, copy_call, read_graph, rebuild

__all__ = ["as_elementary", "split_operators", "split_separable_convolutions"]


def as_elementary(model: keras.Model) -> keras.Model:
    """Returns an equal model in which every tensor that an int8 network stores is some layer's output.

    Example:
        >>> x = keras.Input((8, 8, 3))
        >>> model = keras.Model(x, keras.layers.SeparableConv2D(4, 3, activation="relu", name="sep")(x) * 2.0)
        >>> [layer.name for layer in as_elementary(model).layers][1:]
        ['sep_depthwise', 'sep', 'sep_activation', 'multiply']
    """
    return split_activations(split_separable_convolutions(split_operators(model)))


def split_operators(model: keras.Model) -> keras.Model:
    """Turns arithmetic on symbolic tensors (`x + 1`, `x * y`) into the layers that do the same.

    With a number or a constant per channel it becomes a Rescaling, with another tensor an Add, Subtract or Multiply.
    """

    def as_layer(call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # The class name is what a .keras file calls the operation.
        kind = type(call.operation).__name__
        if isinstance(call.operation, keras.Layer) or kind not in _ARITHMETIC or len(args) != 2:
            return copy_call(call, copy, args, kwargs)
        left, right = (isinstance(argument, Value) for argument in call.args)
        if left and right:
            layer = _ARITHMETIC[kind]
            same_rank = len(args[0].shape) == len(args[1].shape)
            if layer is None or not same_rank:
                return copy_call(call, copy, args, kwargs)
            return layer(name=call.name)(list(args))
        rescaling = _rescaling(kind, args[1] if left else args[0], constant_first=right)
        tensor = args[0] if left else args[1]
        if rescaling is None or any(np.size(part) not in (1, tensor.shape[-1]) for part in rescaling):
            return copy_call(call, copy, args, kwargs)
        return keras.layers.Rescaling(*rescaling, name=call.name)(tensor)

    return rebuild(read_graph(model), on_call=as_layer)


_ARITHMETIC: dict[str, type[keras.Layer] | None] = {
    "Add": keras.layers.Add,
    "Subtract": keras.layers.Subtract,
    "Multiply": keras.layers.Multiply,
    "TrueDivide": None,
    "Divide": None,
}


def _rescaling(kind: str, constant: Any, *, constant_first: bool) -> tuple[Any, Any] | None:
    try:
        values = np.asarray(constant, np.float64)
    except (TypeError, ValueError):
        return None
    if values.size > 1 and values.shape[-1] != values.size:
        return None  # not one value per channel
    number: Any = float(values.reshape(())) if values.size == 1 else values.reshape(-1).tolist()
    match kind:
        case "Add":
            return 1.0, number
        case "Subtract":
            return (-1.0, number) if constant_first else (1.0, np.negative(number).tolist())
        case "Multiply":
            return number, 0.0
    return None if constant_first else (np.reciprocal(np.asarray(number, np.float64)).tolist(), 0.0)


def split_separable_convolutions(model: keras.Model) -> keras.Model:
    """Turns a SeparableConv into the depthwise and the 1×1 convolution it consists of."""
    parts: dict[int, tuple[keras.Layer, keras.Layer]] = {}

    def split(call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer = call.operation
        match layer:
            case keras.layers.SeparableConv2D():
                depthwise_class, pointwise_class = keras.layers.DepthwiseConv2D, keras.layers.Conv2D
            case keras.layers.SeparableConv1D():
                depthwise_class, pointwise_class = keras.layers.DepthwiseConv1D, keras.layers.Conv1D
            case _:
                return copy_call(call, copy, args, kwargs)
        if id(layer) not in parts:
            parts[id(layer)] = (
                depthwise_class(
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
                    name=f"{call.name}_depthwise",
                ),
                pointwise_class(
                    layer.filters,
                    1,
                    data_format=layer.data_format,
                    activation=layer.activation,
                    use_bias=layer.use_bias,
                    kernel_regularizer=layer.pointwise_regularizer,
                    bias_regularizer=layer.bias_regularizer,
                    kernel_constraint=layer.pointwise_constraint,
                    bias_constraint=layer.bias_constraint,
                    dtype=layer.dtype_policy,
                    trainable=layer.trainable,
                    name=call.name,
                ),
            )
        depthwise, pointwise = parts[id(layer)]
        outputs = pointwise(depthwise(*args, **kwargs))
        depthwise.kernel.assign(layer.depthwise_kernel)
        pointwise.kernel.assign(layer.pointwise_kernel)
        if layer.use_bias:
            pointwise.bias.assign(layer.bias)
        return outputs

    return rebuild(read_graph(model), on_call=split)
