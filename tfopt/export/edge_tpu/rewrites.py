"""Layers that the Edge TPU does not have, as equal ones that it has."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from tfopt.surgery.elementary import as_elementary
from tfopt.surgery.graph import Call, Copier, copy_call, read_graph, rebuild

__all__ = ["rewrite_for_edge_tpu"]


def rewrite_for_edge_tpu(model: keras.Model) -> keras.Model:
    """Returns an equal model in which leaky ReLUs are PReLUs, and Dense layers on sequences are convolutions.

    A model without these is returned as it is.

    Example:
        >>> x = keras.Input((4, 3))
        >>> model = keras.Model(x, layers.Dense(2, activation="leaky_relu", name="scores")(x))
        >>> [type(layer).__name__ for layer in rewrite_for_edge_tpu(model).layers]
        ['InputLayer', 'Conv1D', 'PReLU']

    References: Coral, "TensorFlow models on the Edge TPU", supported operations.
    """
    elementary = as_elementary(model)  # activations within layers become layers
    graph = read_graph(elementary)
    if not any(_is_leaky(call) or _is_dense_on_sequence(call) for call in graph.calls):
        return model
    convolutions: dict[int, keras.Layer] = {}

    def visit(call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if _is_leaky(call):
            return _as_prelu(call, *args, **kwargs)
        if _is_dense_on_sequence(call):
            dense = call.operation
            if id(dense) not in convolutions:
                convolutions[id(dense)] = _as_convolution(dense, call.name)
            return convolutions[id(dense)](*args)
        return copy_call(call, copy, args, kwargs)

    return rebuild(graph, on_call=visit)


def _is_leaky(call: Call) -> bool:
    match call.operation:
        case layers.LeakyReLU():
            return True
        case layers.Activation(activation=keras.activations.leaky_relu):
            return True
    return type(call.operation).__name__ == "LeakyRelu"  # all there is to tell an operation by


def _as_prelu(call: Call, x: Any) -> Any:
    slopes = layers.PReLU(shared_axes=list(range(1, len(x.shape) - 1)) or None, name=call.name)
    slopes.build(x.shape)
    slope = -float(call.operation(np.float32(-1)))
    slopes.alpha.assign(np.full(slopes.alpha.shape, slope))
    return slopes(x)


def _is_dense_on_sequence(call: Call) -> bool:
    dense = call.operation
    return type(dense) is layers.Dense and len(call.inputs[0].shape) == 3 and dense.quantization_mode is None


def _as_convolution(dense: layers.Dense, name: str) -> keras.Layer:
    convolution = layers.Conv1D(dense.units, 1, activation=dense.activation, use_bias=dense.use_bias, name=name)
    convolution.build((None, None, dense.kernel.shape[0]))
    convolution.kernel.assign(keras.ops.expand_dims(dense.kernel, 0))
    if dense.use_bias:
        convolution.bias.assign(dense.bias)
    return convolution
