"""Layers that the Edge TPU does not have, as equal ones that it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from tfopt.surgery.activations import has_own_activation
from tfopt.surgery.graph import Call, Copier, copy_call, read_graph, rebuild

__all__ = ["rewrite_for_edge_tpu"]


def rewrite_for_edge_tpu(model: keras.Model) -> keras.Model:
    """Returns an equal model in which leaky ReLUs are PReLUs, and Dense layers on sequences are convolutions.

    A model without these is returned as it is.

    Example:
        >>> x = keras.Input((4, 3))
        >>> model = keras.Model(x, layers.Dense(2, activation="leaky_relu", name="scores")(x))
        >>> [layer.name for layer in rewrite_for_edge_tpu(model).layers[1:]]
        ['scores', 'scores_activation']

    References: Coral, "TensorFlow models on the Edge TPU", supported operations.
    """
    graph = read_graph(model)
    if not any(_leaky_function(call) or _is_dense_on_sequence(call) for call in graph.calls):
        return model
    convolutions: dict[int, keras.Layer] = {}

    def compute(call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls the layer, without a leaky activation of its own."""
        if _is_dense_on_sequence(call):
            if id(call.operation) not in convolutions:
                convolutions[id(call.operation)] = _as_convolution(call.operation, call.name)
            return convolutions[id(call.operation)](*args)
        if has_own_activation(call.operation) and _leaky_function(call):
            copy(call.operation).activation = keras.activations.linear
        return copy_call(call, copy, args, kwargs)

    def visit(call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        leaky = _leaky_function(call)
        if leaky is None:
            return compute(call, copy, args, kwargs)
        if has_own_activation(call.operation):
            return _prelu(leaky, compute(call, copy, args, kwargs), f"{call.name}_activation")
        return _prelu(leaky, args[0], call.name)

    return rebuild(graph, on_call=visit)


def _leaky_function(call: Call) -> Callable[[Any], Any] | None:
    """The leaky ReLU that a layer is, or applies after its kernel; None if there is none."""
    operation = call.operation
    # Of an operation, its class's name is all there is to tell it by.
    if isinstance(operation, layers.LeakyReLU) or type(operation).__name__ == "LeakyRelu":
        return operation
    applies = isinstance(operation, layers.Activation) or has_own_activation(operation)
    return operation.activation if applies and operation.activation is keras.activations.leaky_relu else None


def _prelu(leaky: Callable[[Any], Any], x: Any, name: str) -> Any:
    slopes = layers.PReLU(shared_axes=list(range(1, len(x.shape) - 1)) or None, name=name)
    slopes.build(x.shape)
    slopes.alpha.assign(np.full(slopes.alpha.shape, -float(leaky(np.float32(-1)))))
    return slopes(x)


def _is_dense_on_sequence(call: Call) -> bool:
    dense = call.operation
    return type(dense) is layers.Dense and len(call.inputs[0].shape) == 3 and dense.quantization_mode is None


def _as_convolution(dense: layers.Dense, name: str) -> keras.Layer:
    activation = None if dense.activation is keras.activations.leaky_relu else dense.activation
    convolution = layers.Conv1D(dense.units, 1, activation=activation, use_bias=dense.use_bias, name=name)
    convolution.build((None, None, dense.kernel.shape[0]))
    convolution.kernel.assign(keras.ops.expand_dims(dense.kernel, 0))
    if dense.use_bias:
        convolution.bias.assign(dense.bias)
    return convolution
