"""Functions of TensorFlow that were called on the tensors of a tf_keras model, as operations of Keras 3."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import tensorflow as tf
from keras import ops

from tfopt.errors import ModelError

__all__ = ["call_tf_function", "slice_tensor"]


def _binary(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, y: function(x, y)


def _reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return function(x, axis=tuple(axis) if isinstance(axis, list) else axis, keepdims=keepdims)

    return call


def _matmul(a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False) -> Any:
    a, b = (ops.swapaxes(x, -1, -2) if swap else x for x, swap in ((a, transpose_a), (b, transpose_b)))
    return ops.matmul(a, b)


def _pad(tensor: Any, paddings: Any, mode: str = "CONSTANT", constant_values: float = 0) -> Any:
    constant = {"constant_values": constant_values} if mode.upper() == "CONSTANT" else {}
    return ops.pad(tensor, paddings, mode.lower(), **constant)


def _split(value: Any, num_or_size_splits: Any, axis: int = 0) -> Any:
    if isinstance(num_or_size_splits, int):
        return ops.split(value, num_or_size_splits, axis)
    return ops.split(value, list(accumulate(num_or_size_splits))[:-1], axis)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "__operators__.add": _binary(ops.add),
    "cast": lambda x, dtype: ops.cast(x, tf.as_dtype(dtype).name),
    "clip_by_value": lambda x, clip_value_min, clip_value_max: ops.clip(x, clip_value_min, clip_value_max),
    "concat": ops.concatenate,
    "expand_dims": ops.expand_dims,
    "identity": ops.copy,
    "linalg.matmul": _matmul,
    "math.abs": ops.abs,
    "math.add": _binary(ops.add),
    "math.divide": _binary(ops.divide),
    "math.exp": ops.exp,
    "math.log": ops.log,
    "math.maximum": _binary(ops.maximum),
    "math.minimum": _binary(ops.minimum),
    "math.multiply": _binary(ops.multiply),
    "math.negative": ops.negative,
    "math.pow": _binary(ops.power),
    "math.reduce_max": _reduction(ops.max),
    "math.reduce_mean": _reduction(ops.mean),
    "math.reduce_min": _reduction(ops.min),
    "math.reduce_sum": _reduction(ops.sum),
    "math.rsqrt": ops.rsqrt,
    "math.sigmoid": ops.sigmoid,
    "math.sqrt": ops.sqrt,
    "math.square": ops.square,
    "math.subtract": _binary(ops.subtract),
    "math.tanh": ops.tanh,
    "math.truediv": _binary(ops.divide),
    "nn.elu": ops.elu,
    "nn.gelu": lambda x, approximate=False: ops.gelu(x, approximate),
    "nn.leaky_relu": lambda x, alpha=0.2: ops.leaky_relu(x, alpha),
    "nn.relu": ops.relu,
    "nn.relu6": ops.relu6,
    "nn.sigmoid": ops.sigmoid,
    "nn.silu": ops.silu,
    "nn.softmax": ops.softmax,
    "nn.softplus": ops.softplus,
    "nn.swish": ops.silu,
    "nn.tanh": ops.tanh,
    "pad": _pad,
    "reshape": lambda x, shape: ops.reshape(x, tuple(shape)),
    "sigmoid": ops.sigmoid,
    "split": _split,
    "squeeze": lambda x, axis=None: ops.squeeze(x, tuple(axis) if isinstance(axis, list) else axis),
    "stack": ops.stack,
    "tanh": ops.tanh,
    "transpose": lambda x, perm=None: ops.transpose(x, perm),
}


def call_tf_function(name: str, layer: str, first: Any, kwargs: dict[str, Any]) -> Any:
    """Calls what computes the same in Keras 3.

    Args:
        name: of the function, as tf_keras writes it: "math.multiply" for `tf.math.multiply`.
        layer: the name that tf_keras gave the call, for the error.
        first: the first argument, with tensors of Keras 3.
        kwargs: the others, by name.

    Raises:
        ModelError: if there is no such operation here.
    """
    function = _FUNCTIONS.get(name.removeprefix("compat.v1."))
    if function is None:
        raise ModelError(
            f"from_tf_keras: the model calls tf.{name} (layer '{layer}'), which has no translation. Put a layer that "
            f"does the same in its place. Known functions: {', '.join(sorted(_FUNCTIONS))}."
        )
    # None and False are what these arguments are by default: every axis, not conjugated.
    given = {key: value for key, value in kwargs.items() if key != "name" and value is not None and value is not False}
    try:
        return function(first, **given)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"from_tf_keras: the call of tf.{name} (layer '{layer}') cannot be translated with its arguments "
            f"{sorted(kwargs)}: {error}. Put a layer that does the same in its place."
        ) from error


def slice_tensor(x: Any, slice_spec: Any) -> Any:
    """Indexes a tensor as `x[...]` did in tf_keras; a slice is written there as a dict."""

    def index(item: Any) -> Any:
        if isinstance(item, dict):
            return slice(item["start"], item["stop"], item["step"]) if "start" in item else Ellipsis
        return item

    return x[tuple(index(item) for item in slice_spec)] if isinstance(slice_spec, list) else x[index(slice_spec)]
