"""Splitting fused activations: `Dense(activation="softmax")` becomes `Dense` and `Softmax`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from tfopt.surgery.graph import Call, Copier, copy_call, read_graph, rebuild

__all__ = ["split_activations"]


def split_activations(model: keras.Model) -> keras.Model:
    """Gives every activation a layer of its own, so that each tensor of the model can be seen and quantized.

    The new layer is called `NAME_activation`; the outputs stay the same.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "relu", name="hidden")])
        >>> [layer.name for layer in split_activations(model).layers][1:]
        ['hidden', 'hidden_activation']
    """
    linear: dict[int, keras.Layer] = {}

    def split(call: Call, copy: Copier, args: Any, kwargs: Any) -> Any:
        layer = call.operation
        if not _has_own_activation(layer):
            return copy_call(call, copy, args, kwargs)
        if id(layer) not in linear:
            linear[id(layer)] = activation_layer(layer.activation, f"{call.name}_activation")
            copy(layer).activation = keras.activations.linear
        return linear[id(layer)](copy(layer)(*args, **kwargs))

    return rebuild(read_graph(model), on_call=split)


def _has_own_activation(operation: keras.Operation) -> bool:
    # Recurrent layers apply their activation inside the cell: it cannot be split off.
    return (
        isinstance(operation, keras.Layer)
        and hasattr(operation, "kernel")
        and not isinstance(operation, keras.layers.RNN)
        and getattr(operation, "activation", keras.activations.linear) is not keras.activations.linear
    )


def activation_layer(activation: Callable[[Any], Any], name: str) -> keras.Layer:
    """The layer for an activation function; ReLU, ReLU6 and Softmax become their own layers."""
    match activation:
        case keras.activations.relu:
            return keras.layers.ReLU(name=name)
        case keras.activations.relu6:
            return keras.layers.ReLU(max_value=6.0, name=name)
        case keras.activations.softmax:
            return keras.layers.Softmax(name=name)
    return keras.layers.Activation(activation, name=name)
