"""A trained or new model with penalties on its kernels, and with dropout: what makes weights small enough to prune."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras

from tfopt.errors import ConfigError, ModelError
from tfopt.surgery.graph import Call, Copier, copy_call, read_graph, rebuild
from tfopt.surgery.model import check_model
from tfopt.surgery.rewriting import Rewriting
from tfopt.surgery.select import LayerFilter, iterate_layers, select_kernels

__all__ = ["RegularizerSum", "regularize"]


@keras.saving.register_keras_serializable("tfopt")
class RegularizerSum(keras.regularizers.Regularizer):
    """The sum of two penalties.

    Args:
        first: a regularizer.
        second: another.

    Example:
        >>> both = RegularizerSum(keras.regularizers.L1(1.0), keras.regularizers.L2(1.0))
        >>> float(both(keras.ops.array([2.0, -1.0])))
        8.0
    """

    def __init__(self, first: Callable[[Any], Any], second: Callable[[Any], Any]) -> None:
        self.first = keras.regularizers.get(first)
        self.second = keras.regularizers.get(second)

    def __call__(self, x: Any) -> Any:
        """The penalty of a weight."""
        return self.first(x) + self.second(x)

    def get_config(self) -> dict[str, Any]:
        """The two, serialized."""
        serialize = keras.saving.serialize_keras_object
        return {"first": serialize(self.first), "second": serialize(self.second)}


def regularize(
    model: keras.Model,
    *,
    l1: float = 0.0,
    l2: float = 0.0,
    dropout: float = 0.0,
    layers: LayerFilter | None = None,
) -> keras.Model:
    """Returns the model with penalties on its kernels, and with dropout before its dense layers.

    Use it before `fit`, so that pruning has something to remove: under an L1 penalty the weights that do little shrink
    towards zero, and zeroing them costs little. An L2 penalty keeps all of them small. A penalty acts through the loss,
    so the model must be compiled and trained; pruning comes after or in the same fit.

    The weights are kept, and the given model is left as it is. Penalties that a kernel has already stay, and the new
    ones are added to them. Nested models are laid flat. Penalties and dropout are part of the model's configuration, so
    they are saved and loaded with it; only a kernel within a composite layer of your own depends on what that layer's
    `get_config` says.

    Args:
        model: a Functional or Sequential model.
        l1: the penalty is `l1 * sum(|w|)` for each kernel.
        l2: and `l2 * sum(w²)`.
        dropout: share of the inputs of each selected Dense layer that is set to zero in training, in [0, 1). A layer
            that takes its input from a Dropout layer keeps that one instead.
        layers: a predicate on a layer, or a regular expression that its whole name matches; default: every Dense and
            Conv kernel (see `tfopt.surgery.select.select_kernels`).

    Returns:
        A new model, not compiled.

    Raises:
        ConfigError: if a value is out of range, none is above 0, `layers` matches nothing, or there is dropout but no
            Dense layer among them.
        ModelError: if the model is not a built Keras 3 model of finite weights, is subclassed, or has no such kernel.

    Example:
        >>> import numpy as np
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden")])
        >>> penalized = regularize(model, l1=0.01, dropout=0.2)
        >>> [layer.name for layer in penalized.layers][1:]
        ['hidden_dropout', 'hidden']
        >>> kernel = model.layers[0].kernel
        >>> bool(np.isclose(penalized.losses[0], 0.01 * np.abs(kernel).sum()))
        True

    References:
        Tibshirani 1996 (L1); Srivastava et al. 2014, JMLR 15 (dropout); Han et al. 2015, arXiv:1506.02626, on both with
        pruning.
    """
    check_model(model)
    l1, l2 = _penalty("l1", l1), _penalty("l2", l2)
    rate = _penalty("dropout", dropout)
    if rate >= 1:
        raise ConfigError(f"regularize: dropout must be in [0, 1). Received: {dropout!r}.")
    if not (l1 or l2 or rate):
        raise ConfigError("regularize: nothing to do. Received: l1=0, l2=0, dropout=0. Give one of them above 0.")
    kernels = {id(layer) for layer, _ in select_kernels(model, layers)}
    graph = read_graph(model)
    rewriting = Rewriting(graph)
    copies: dict[int, tuple[keras.Layer, keras.Layer]] = {}
    producers = {value: call for call in graph.calls for value in keras.tree.flatten(call.outputs)}
    dropped = False

    def visit(call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal dropped
        if isinstance(call.operation, keras.Layer):
            copies[id(call.operation)] = call.operation, copy(call.operation)
        if rate and id(dense := _dense(call.operation)) in kernels and dense is not None:
            dropped = True
            producer = producers.get(call.inputs[0])
            if producer is None or not isinstance(producer.operation, keras.layers.Dropout):
                name = rewriting.unique(f"{call.name}_dropout")
                args = (keras.layers.Dropout(rate, name=name, dtype=dense.dtype_policy)(args[0]), *args[1:])
        return copy_call(call, copy, args, kwargs)

    rebuilt = rebuild(graph, on_call=visit)
    if rate and not dropped:
        raise ConfigError(
            f"regularize: dropout={dropout:g} goes before Dense layers, and none is selected in '{model.name}'. "
            "Leave dropout out, or select Dense layers with layers=."
        )
    if l1 or l2:
        for original, duplicate in copies.values():
            for before, after in zip(iterate_layers(original), iterate_layers(duplicate), strict=True):
                if id(before) in kernels:
                    _add_penalty(after, l1, l2)
    return rebuilt


def _penalty(name: str, value: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise ConfigError(f"regularize: {name} must be a finite number of at least 0. Received: {value!r}.")
    return number


def _dense(operation: keras.Operation) -> keras.layers.Dense | None:
    if isinstance(operation, keras.layers.TimeDistributed):
        return _dense(operation.layer)
    return operation if isinstance(operation, keras.layers.Dense) else None


def _add_penalty(layer: keras.Layer, l1: float, l2: float) -> None:
    if isinstance(layer, keras.layers.Embedding):
        kernel, attribute = layer.embeddings, "embeddings_regularizer"
    elif hasattr(layer, "kernel"):
        kernel, attribute = layer.kernel, "kernel_regularizer"
    else:
        kernel, attribute = layer.pointwise_kernel, "pointwise_regularizer"
    if isinstance(layer, (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)):
        attribute = "depthwise_regularizer"
    if not hasattr(layer, attribute):
        raise ModelError(
            f"regularize: the layer '{layer.name}' ({type(layer).__name__}) takes no {attribute}. "
            "Leave it out with layers=."
        )
    combined = _combined(kernel.regularizer, l1, l2)
    # The layer says what is saved, the variable what is computed.
    setattr(layer, attribute, combined)
    kernel.regularizer = combined


def _combined(present: Callable[[Any], Any] | None, l1: float, l2: float) -> keras.regularizers.Regularizer:
    match present:
        case keras.regularizers.L1L2():
            return keras.regularizers.L1L2(l1 + float(present.l1), l2 + float(present.l2))
        case keras.regularizers.L1():
            return keras.regularizers.L1L2(l1 + float(present.l1), l2)
        case keras.regularizers.L2():
            return keras.regularizers.L1L2(l1, l2 + float(present.l2))
    new = keras.regularizers.L1L2(l1, l2)
    return new if present is None else RegularizerSum(present, new)
