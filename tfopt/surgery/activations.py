"""Splitting fused activations: `Dense(activation="softmax")` becomes `Dense` and `Softmax`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from tfopt.surgery.graph import Call, Copier, copy_call, read_graph, rebuild, unique_name

__all__ = ["split_activations"]


def split_activations(model: keras.Model) -> keras.Model:
    """Gives every activation a layer of its own, so that each tensor of the model can be seen and quantized.

    The new layer is called `NAME_activation`; the outputs stay the same. A hard sigmoid becomes the addition, ReLU6
    and multiplication it consists of.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "relu", name="hidden")])
        >>> [layer.name for layer in split_activations(model).layers][1:]
        ['hidden', 'hidden_activation']
    """
    graph = read_graph(model)
    taken = {*graph.input_names, *(call.name for call in graph.calls)}
    activations: dict[int, list[keras.Layer]] = {}

    def split(call: Call, copy: Copier, args: Any, kwargs: Any) -> Any:
        layer = call.operation
        if not (_has_own_activation(layer) or _is_composite(layer)):
            return copy_call(call, copy, args, kwargs)
        if id(layer) not in activations:
            if isinstance(layer, keras.layers.Activation):
                activations[id(layer)] = activation_layers(layer.activation, call.name, layer.dtype_policy)
            else:
                name = unique_name(f"{call.name}_activation", taken)
                activations[id(layer)] = activation_layers(layer.activation, name, layer.dtype_policy)
                copy(layer).activation = keras.activations.linear
        x = args[0] if isinstance(layer, keras.layers.Activation) else copy(layer)(*args, **kwargs)
        for activation in activations[id(layer)]:
            x = activation(x)
        return x

    return rebuild(graph, on_call=split)


def _is_composite(operation: keras.Operation) -> bool:
    return isinstance(operation, keras.layers.Activation) and operation.activation is keras.activations.hard_sigmoid


def _has_own_activation(operation: keras.Operation) -> bool:
    # Recurrent layers apply their activation inside the cell: it cannot be split off.
    return (
        isinstance(operation, keras.Layer)
        and hasattr(operation, "kernel")
        and not isinstance(operation, keras.layers.RNN)
        and getattr(operation, "activation", keras.activations.linear) is not keras.activations.linear
    )


def activation_layers(activation: Callable[[Any], Any], name: str, dtype: Any = None) -> list[keras.Layer]:
    """The layers for an activation function, elementary ones where it has them; the last is called `name`."""
    match activation:
        case keras.activations.relu:
            return [keras.layers.ReLU(name=name, dtype=dtype)]
        case keras.activations.relu6:
            return [keras.layers.ReLU(max_value=6.0, name=name, dtype=dtype)]
        case keras.activations.softmax:
            return [keras.layers.Softmax(name=name, dtype=dtype)]
        case keras.activations.hard_sigmoid:
            return [
                keras.layers.Rescaling(1.0, 3.0, name=f"{name}_shift", dtype=dtype),
                keras.layers.ReLU(max_value=6.0, name=f"{name}_relu6", dtype=dtype),
                keras.layers.Rescaling(1 / 6, name=name, dtype=dtype),
            ]
    return [keras.layers.Activation(activation, name=name, dtype=dtype)]
