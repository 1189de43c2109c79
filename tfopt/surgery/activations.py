"""Activations as layers of their own, each an operator of TFLite or made of some."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from tfopt.surgery.graph import Call, Copier
from tfopt.surgery.positive import PositiveFunction
from tfopt.surgery.rewriting import Rewriting

__all__ = ["apply_activation", "apply_elu", "has_own_activation", "split_activation", "split_elu"]

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017, arXiv:1706.02515


def split_activation(
    call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any], rewriting: Rewriting
) -> Any:
    """Gives a fused activation a layer of its own (`Dense(activation="relu")` becomes `Dense` and `ReLU`).

    The new layer is called `NAME_activation`.
    """
    layer = call.operation
    if isinstance(layer, keras.layers.Activation):
        return apply_activation(layer.activation, args[0], rewriting.name(call), rewriting, layer.dtype_policy)
    if not has_own_activation(layer):
        return None
    without = copy(layer)
    without.activation = keras.activations.linear
    name = rewriting.unique(f"{call.name}_activation")
    return apply_activation(layer.activation, without(*args, **kwargs), name, rewriting, layer.dtype_policy)


def has_own_activation(operation: keras.Operation) -> bool:
    """Whether a layer with a kernel applies an activation after it."""
    # Recurrent layers apply their activation inside the cell: it cannot be split off.
    return (
        isinstance(operation, keras.Layer)
        and hasattr(operation, "kernel")
        and not isinstance(operation, keras.layers.RNN)
        and getattr(operation, "activation", keras.activations.linear) is not keras.activations.linear
    )


def split_elu(call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any], rewriting: Rewriting) -> Any:
    """Makes an ELU layer of the operators it consists of."""
    layer = call.operation
    return apply_elu(args[0], layer.alpha, rewriting.name(call), rewriting, layer.dtype_policy)


def apply_activation(
    activation: Callable[[Any], Any], x: Any, name: str, rewriting: Rewriting, dtype: Any = None
) -> Any:
    """Applies an activation function as layers, elementary ones where it is made of such; the last is called `name`."""

    def part(suffix: str) -> dict[str, Any]:
        return {"name": rewriting.unique(f"{name}_{suffix}"), "dtype": dtype}

    own = {"name": name, "dtype": dtype}
    match activation:
        case keras.activations.relu:
            return keras.layers.ReLU(**own)(x)
        case keras.activations.relu6:
            return keras.layers.ReLU(max_value=6.0, **own)(x)
        case keras.activations.softmax:
            return keras.layers.Softmax(**own)(x)
        case keras.activations.hard_sigmoid:
            x = keras.layers.Rescaling(1.0, 3.0, **part("shift"))(x)
            x = keras.layers.ReLU(max_value=6.0, **part("relu6"))(x)
            return keras.layers.Rescaling(1 / 6, **own)(x)
        case keras.Layer() if not activation.weights:
            return type(activation).from_config({**activation.get_config(), **own})(x)
        case _ if rewriting.masked:
            return keras.layers.Activation(activation, **own)(x)
        case keras.activations.elu | keras.activations.celu:
            return apply_elu(x, 1.0, name, rewriting, dtype)
        case keras.activations.selu:
            x = apply_elu(x, SELU_ALPHA, part("elu")["name"], rewriting, dtype)
            return keras.layers.Rescaling(SELU_SCALE, **own)(x)
        case keras.activations.softplus:
            # log(1 + exp(x)), written so that no exponential is above 1
            distance = rewriting.apply(ops.absolute, x, name=part("distance")["name"])
            decay = keras.layers.Rescaling(-1.0, **part("negative"))(distance)
            decay = rewriting.apply(ops.exp, decay, name=part("exponential")["name"])
            decay = keras.layers.Rescaling(1.0, 1.0, **part("plus_one"))(decay)
            decay = PositiveFunction("log", **part("logarithm"))(decay)
            return keras.layers.Add(**own)([keras.layers.ReLU(**part("relu"))(x), decay])
        case keras.activations.log_sigmoid:
            x = keras.layers.Rescaling(-1.0, **part("negative"))(x)
            x = apply_activation(keras.activations.softplus, x, part("softplus")["name"], rewriting, dtype)
            return keras.layers.Rescaling(-1.0, **own)(x)
        case keras.activations.mish:
            gate = apply_activation(keras.activations.softplus, x, part("softplus")["name"], rewriting, dtype)
            gate = keras.layers.Activation("tanh", **part("tanh"))(gate)
            return keras.layers.Multiply(**own)([x, gate])
        case keras.activations.softsign:
            size = rewriting.apply(ops.absolute, x, name=part("size")["name"])
            size = keras.layers.Rescaling(1.0, 1.0, **part("plus_one"))(size)
            inverse = rewriting.apply(ops.reciprocal, size, name=part("reciprocal")["name"])
            return keras.layers.Multiply(**own)([x, inverse])
        case keras.activations.tanh_shrink:
            return keras.layers.Subtract(**own)([x, keras.layers.Activation("tanh", **part("tanh"))(x)])
    return keras.layers.Activation(activation, **own)(x)


def apply_elu(x: Any, alpha: float, name: str, rewriting: Rewriting, dtype: Any = None) -> Any:
    """Applies max(x, 0) + alpha * (exp(min(x, 0)) - 1) as layers; the last is called `name`."""

    def part(suffix: str) -> str:
        return rewriting.unique(f"{name}_{suffix}")

    negative = rewriting.apply(lambda x: ops.minimum(x, 0.0), x, name=part("minimum"))
    negative = rewriting.apply(ops.exp, negative, name=part("exponential"))
    negative = keras.layers.Rescaling(alpha, -alpha, name=part("minus_one"), dtype=dtype)(negative)
    positive = keras.layers.ReLU(name=part("relu"), dtype=dtype)(x)
    return keras.layers.Add(name=name, dtype=dtype)([positive, negative])
