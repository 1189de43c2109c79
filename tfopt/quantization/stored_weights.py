"""What a model's weights take in the file that is made of it: arrays of integers where they are quantized."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import keras
import numpy as np
from keras import ops

from tfopt.quantization.fake_quant import weight_scale
from tfopt.quantization.layers import FakeQuantize, LearnedFakeQuantize, QuantizeAware
from tfopt.surgery.graph import read_graph
from tfopt.surgery.select import iterate_layers

__all__ = ["stored_weights"]

RANGES = (FakeQuantize, LearnedFakeQuantize)


def stored_weights(model: keras.Model) -> list[np.ndarray]:
    """The weights of a model as its .tflite file would hold them, about.

    Weights that `quantize_aware` rounds are int8 with a float32 scale for each channel, or float16; the table of an
    Embedding whose output is rounded has that output's grid; a batch norm is the one offset that is left of it after
    folding; ranges of activations are no arrays, random states are left out, and all else is float32. It is an
    estimate: the file also holds its graph, some kB, and a batch norm that follows no convolution keeps its factors.

    Args:
        model: quantize-aware or float, built.

    Returns:
        The arrays, in no order that matters.

    Example:
        >>> from tfopt.quantization import quantize_aware
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(8)])
        >>> sum(array.nbytes for array in stored_weights(model))  # 64 · 8 + 8 numbers
        2080
        >>> sum(array.nbytes for array in stored_weights(quantize_aware(model)))  # 64 · 8 + 8 biases + 8 scales
        576
    """
    stored: list[np.ndarray] = []
    counted: set[int] = set()
    for wrapper in (layer for layer in model.layers if isinstance(layer, QuantizeAware)):
        for name in wrapper.weight_names:
            weight = attrgetter(name)(wrapper.layer)
            counted.add(id(weight))
            stored += _rounded(ops.convert_to_tensor(weight), wrapper.scale_axes)
    for table, ranges in _rounded_tables(model):
        if id(table) not in counted:
            counted.add(id(table))
            stored += _codes(table, ranges)
    for layer in iterate_layers(model):
        if isinstance(layer, RANGES):
            continue
        weights = [weight for weight in layer.weights if id(weight) not in counted]
        counted.update(id(weight) for weight in weights)
        arrays = [np.asarray(weight) for weight in weights if "float" in keras.backend.standardize_dtype(weight.dtype)]
        stored += arrays[:1] if isinstance(layer, keras.layers.BatchNormalization) else arrays
    return stored


def _rounded(weight: object, scale_axes: tuple[int, ...] | None) -> list[np.ndarray]:
    if scale_axes is None:
        return [np.asarray(weight, np.float16)]
    scale = np.asarray(weight_scale(weight, scale_axes))
    steps = np.round(np.asarray(weight) / np.where(scale > 0, scale, 1))
    return [steps.astype(np.int8), scale.astype(np.float32)]


def _rounded_tables(model: keras.Model) -> Iterator[tuple[keras.Variable, keras.Layer]]:
    """The tables whose rows are rounded after they are looked up, each with the layer that rounds them."""
    for kinds in (RANGES, keras.layers.Embedding):  # most models have none, and this is asked after every epoch
        if not any(isinstance(layer, kinds) for layer in model.layers):
            return
    graph = read_graph(model)
    for call in graph.calls:
        if isinstance(call.operation, keras.layers.Embedding):
            takers = [taker.operation for taker in graph.consumers.get(call.output, [])]
            if takers and all(isinstance(taker, RANGES) for taker in takers):
                yield call.operation.embeddings, takers[0]


def _codes(table: keras.Variable, ranges: Any) -> list[np.ndarray]:
    rounded, scale = (np.asarray(tensor) for tensor in ranges(ops.convert_to_tensor(table)))
    kind = np.dtype(f"int{ranges.bits}")
    codes = np.round(rounded / np.where(scale > 0, scale, 1))
    return [(codes - codes.min() + np.iinfo(kind).min).astype(kind), scale.astype(np.float32)]
