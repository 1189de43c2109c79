"""Operations on symbolic tensors (`x + 1`, `keras.ops.square(x)`) as the layers that do the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from tfopt.surgery.activations import apply_activation, apply_elu
from tfopt.surgery.graph import Call, Copier, Value
from tfopt.surgery.positive import PositiveFunction
from tfopt.surgery.rewriting import Rewriting

__all__ = ["OPERATIONS", "split_average", "split_merge", "split_operator", "split_softmax"]

_ARITHMETIC: dict[str, type[keras.Layer] | None] = {
    "Add": layers.Add,
    "Subtract": layers.Subtract,
    "Multiply": layers.Multiply,
    "Maximum": layers.Maximum,
    "Minimum": layers.Minimum,
    "TrueDivide": None,
    "Divide": None,
}
_ACTIVATIONS = {
    "HardSigmoid": keras.activations.hard_sigmoid,
    "LogSigmoid": keras.activations.log_sigmoid,
    "Relu": keras.activations.relu,
    "Relu6": keras.activations.relu6,
    "Selu": keras.activations.selu,
    "Softplus": keras.activations.softplus,
    "Softsign": keras.activations.softsign,
    "TanhShrink": keras.activations.tanh_shrink,
}
_POSITIVE = {"Rsqrt": "rsqrt", "Sqrt": "sqrt", "Log": "log"}

OPERATIONS = frozenset({*_ARITHMETIC, *_ACTIVATIONS, *_POSITIVE}) | {
    "Celu",
    "Clip",
    "Elu",
    "Matmul",
    "Negative",
    "Power",
    "Softmax",
    "Square",
}
"""The classes of operations that may become layers."""


def split_operator(
    call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any], rewriting: Rewriting
) -> Any:
    """Turns an operation into the layers that do the same, where there are some.

    With a number or a constant per channel, arithmetic becomes a Rescaling, with another tensor an Add, Subtract or
    Multiply.
    """
    kind = type(call.operation).__name__  # what a .keras file calls the operation
    if kind in _ARITHMETIC and len(args) == 2:
        return _arithmetic(kind, call, args, rewriting)
    if kind in _ACTIVATIONS:
        return apply_activation(_ACTIVATIONS[kind], args[0], rewriting.name(call), rewriting)
    if kind in _POSITIVE:
        return PositiveFunction(_POSITIVE[kind], name=rewriting.name(call))(args[0])
    match kind:
        case "Negative":
            return layers.Rescaling(-1.0, name=rewriting.name(call))(args[0])
        case "Square":
            return layers.Multiply(name=rewriting.name(call))([args[0], args[0]])
        case "Power" if _number(args[1]) == 2:
            return layers.Multiply(name=rewriting.name(call))([args[0], args[0]])
        case "Elu" | "Celu":
            alpha = call.operation.get_config()["alpha"]
            if kind == "Elu" or alpha == 1:
                return apply_elu(args[0], alpha, rewriting.name(call), rewriting)
        case "Clip":
            bounds = call.operation.get_config()
            if (bounds["x_min"], bounds["x_max"]) == (0, 6):
                return layers.ReLU(6.0, name=rewriting.name(call))(args[0])
        case "Matmul" if isinstance(call.args[0], Value) and not isinstance(call.args[1], Value):
            return _product_with_constant(call, args, rewriting)
        case "Softmax":
            return split_softmax(call, copy, args, kwargs, rewriting)
    return None


def split_average(call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any], rewriting: Rewriting) -> Any:
    """Makes an Average layer additions and a division, which the converter would leave in float."""
    layer, tensors = call.operation, args[0]
    name = rewriting.name(call)
    total = _in_pairs(layers.Add, tensors, rewriting.unique(f"{name}_sum"), layer.dtype_policy, rewriting)
    return layers.Rescaling(1 / len(tensors), name=name, dtype=layer.dtype_policy)(total)


def split_merge(call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any], rewriting: Rewriting) -> Any:
    """Makes an Add or Multiply of several tensors one of two at a time, as TFLite computes it."""
    layer = call.operation
    return _in_pairs(type(layer), args[0], rewriting.name(call), layer.dtype_policy, rewriting)


def _in_pairs(kind: type[keras.Layer], tensors: Sequence[Any], name: str, dtype: Any, rewriting: Rewriting) -> Any:
    total, *others = tensors
    for index, tensor in enumerate(others, 2):
        part = name if index == len(tensors) else rewriting.unique(f"{name}_{index}")
        total = kind(name=part, dtype=dtype)([total, tensor])
    return total


def split_softmax(call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any], rewriting: Rewriting) -> Any:
    """Moves the axis of a softmax to the end, where TFLite has it, and back."""
    axis, rank = call.operation.get_config()["axis"], len(args[0].shape)
    if not isinstance(axis, int) or axis % rank in (0, rank - 1) or len(call.inputs) > 1:
        return None
    name = rewriting.name(call)
    order = list(range(1, rank))
    order[axis % rank - 1], order[-1] = order[-1], order[axis % rank - 1]
    moved = layers.Permute(order, name=rewriting.unique(f"{name}_axis_last"))(args[0])
    weights = layers.Softmax(name=rewriting.unique(f"{name}_softmax"))(moved)
    return layers.Permute(order, name=name)(weights)


def _arithmetic(kind: str, call: Call, args: tuple[Any, ...], rewriting: Rewriting) -> Any:
    left, right = (isinstance(argument, Value) for argument in call.args)
    if left and right:
        layer = _ARITHMETIC[kind]
        if layer is None or len(args[0].shape) != len(args[1].shape):
            return None
        return layer(name=rewriting.name(call))(list(args))
    tensor, constant = args if left else reversed(args)
    if kind in ("Maximum", "Minimum"):
        is_relu = kind == "Maximum" and _number(constant) == 0
        return layers.ReLU(name=rewriting.name(call))(tensor) if is_relu else None
    rescaling = _rescaling(kind, constant, constant_first=right)
    if rescaling is None or any(np.size(part) not in (1, tensor.shape[-1]) for part in rescaling):
        return None
    return layers.Rescaling(*rescaling, name=rewriting.name(call))(tensor)


def _number(constant: Any) -> float | None:
    """The constant as a number, or None if it is none."""
    try:
        values = np.asarray(constant, np.float64)
    except (TypeError, ValueError):
        return None
    return float(values.reshape(())) if values.size == 1 else None


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


def _product_with_constant(call: Call, args: tuple[Any, ...], rewriting: Rewriting) -> Any:
    constant = ops.convert_to_numpy(args[1])
    if constant.ndim != 2 or len(args[0].shape) < 2:
        return None
    dense = layers.Dense(constant.shape[1], use_bias=False, trainable=False, name=rewriting.name(call))
    outputs = dense(args[0])
    dense.kernel.assign(constant)
    return outputs
