"""Composite layers as the elementary ones that a converter makes of them, each with an output of its own."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import keras
from keras import layers

from tfopt.surgery.activations import has_own_activation, split_activation, split_elu
from tfopt.surgery.attention import split_attention
from tfopt.surgery.graph import Call, Copier, Graph, Value, copy_call, read_graph, rebuild
from tfopt.surgery.normalizations import (
    split_group_normalization,
    split_layer_normalization,
    split_layer_scale,
    split_rms_normalization,
    split_unit_normalization,
)
from tfopt.surgery.operators import OPERATIONS, split_average, split_merge, split_operator, split_softmax
from tfopt.surgery.rewriting import Rewrite, Rewriting
from tfopt.surgery.separable import split_separable_convolution
from tfopt.surgery.time_distributed import unroll_time_distributed

__all__ = ["as_elementary", "origin_of", "with_elementary_normalizations"]

_NORMALIZATIONS: dict[type, Rewrite] = {
    layers.GroupNormalization: split_group_normalization,
    layers.LayerNormalization: split_layer_normalization,
    layers.RMSNormalization: split_rms_normalization,
    layers.UnitNormalization: split_unit_normalization,
}
_REWRITES: dict[type, Rewrite] = {
    **_NORMALIZATIONS,
    layers.Activation: split_activation,
    layers.Average: split_average,
    layers.ELU: split_elu,
    layers.MultiHeadAttention: split_attention,
    layers.SeparableConv1D: split_separable_convolution,
    layers.SeparableConv2D: split_separable_convolution,
    layers.Softmax: split_softmax,
}
_TIME_DISTRIBUTED: dict[type, Rewrite] = {layers.TimeDistributed: unroll_time_distributed}
_OF_PAIRS = {layers.Add, layers.Multiply, layers.Maximum, layers.Minimum}
_KEEP_MASKS = {split_activation, split_separable_convolution}


def as_elementary(model: keras.Model) -> keras.Model:
    """Returns an equal model in which every tensor that an int8 network stores is some layer's output.

    Where Keras masks flow (from a Masking or an Embedding with `mask_zero`), composite layers stay: what they are made
    of would lose the masks. A model without composite layers is returned as it is.

    Example:
        >>> x = keras.Input((8, 8, 3))
        >>> model = keras.Model(x, keras.layers.SeparableConv2D(4, 3, activation="relu", name="sep")(x))
        >>> [layer.name for layer in as_elementary(model).layers][1:]
        ['sep_depthwise', 'sep', 'sep_activation']
    """
    # Nested models become part of the graph when it is read again, so the layers within a wrapper need a pass before.
    return _rewrite(_rewrite(model, _TIME_DISTRIBUTED), _REWRITES)


def with_elementary_normalizations(model: keras.Model) -> keras.Model:
    """Returns an equal model in which normalizations over a sample's own values are of elementary layers.

    TFLite's converter leaves parts of them in float after training; what else `as_elementary` takes apart, it quantizes
    better whole.

    Example:
        >>> model = keras.Sequential([keras.Input((3, 4)), layers.LayerNormalization(), layers.Dense(2)])
        >>> any(isinstance(layer, layers.LayerNormalization) for layer in with_elementary_normalizations(model).layers)
        False
    """
    return _rewrite(model, _NORMALIZATIONS)


def origin_of(name: str, originals: Collection[str]) -> str:
    """The layer that an elementary layer comes from; the name itself if it comes from none.

    Example:
        >>> origin_of("conv_1_activation", ["conv", "conv_1"])
        'conv_1'
    """
    candidates = (original for original in originals if name == original or name.startswith(f"{original}_"))
    return max(candidates, key=len, default=name)


def _rewrite(model: keras.Model, rewrites: dict[type, Rewrite]) -> keras.Model:
    graph = read_graph(model)
    chosen = {call: _rewrite_of(call, rewrites) for call in graph.calls}
    if not any(chosen.values()):
        return model
    masked = _masked_tensors(graph)
    rewriting = Rewriting(graph)

    def visit(call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        rewrite = chosen[call]
        rewriting.masked = not masked.isdisjoint(call.inputs)
        outputs = None
        if rewrite is not None and (rewrite in _KEEP_MASKS or not rewriting.masked):
            outputs = rewrite(call, copy, args, kwargs, rewriting)
        return copy_call(call, copy, args, kwargs) if outputs is None else outputs

    return rebuild(graph, on_call=visit)


def _rewrite_of(call: Call, rewrites: dict[type, Rewrite]) -> Rewrite | None:
    operation = call.operation
    if rewrites is not _REWRITES or type(operation) in rewrites:
        return rewrites.get(type(operation))
    kind = type(operation).__name__  # all there is to tell an operation, or a layer of keras.applications, by
    if not isinstance(operation, keras.Layer):
        return split_operator if kind in OPERATIONS else None
    if type(operation) in _OF_PAIRS and len(call.inputs) > 2:
        return split_merge
    if kind == "LayerScale" and hasattr(operation, "gamma"):
        return split_layer_scale
    return split_activation if has_own_activation(operation) else None


def _masked_tensors(graph: Graph) -> set[Value]:
    masked: set[Value] = set()
    for call in graph.calls:
        match call.operation:
            case layers.Masking() | layers.Embedding(mask_zero=True):
                masked.update(keras.tree.flatten(call.outputs))
            case layers.RNN(return_sequences=False) | layers.GlobalAveragePooling1D():
                pass
            case keras.Layer(supports_masking=True) if not masked.isdisjoint(call.inputs):
                masked.update(keras.tree.flatten(call.outputs))
    return masked
