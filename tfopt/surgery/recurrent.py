"""Recurrent layers with a fixed number of steps, written out step by step: converters are at odds with loops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
from keras import layers

from tfopt.surgery.graph import Call, Copier, copy_call, read_graph, rebuild

__all__ = ["LONGEST_SEQUENCE", "unroll_recurrent"]

LONGEST_SEQUENCE = 256
"""Longer loops stay: written out, they would take a converter many minutes and make a file of many megabytes."""


def unroll_recurrent(model: keras.Model) -> keras.Model:
    """Returns an equal model whose recurrent layers compute each step by operations of its own.

    TFLite's converter crashes on a loop that it should quantize, and gives what a loop collects a dynamic shape. The
    graph grows by the number of steps; the weights are shared. Layers whose number of steps is open or above
    `LONGEST_SEQUENCE` stay loops, as do convolutional ones and those within other wrappers than Bidirectional. A model
    without recurrent layers is returned as it is.

    Example:
        >>> model = keras.Sequential([keras.Input((5, 3)), layers.Bidirectional(layers.LSTM(4))])
        >>> unroll_recurrent(model).layers[-1].forward_layer.unroll
        True
    """
    graph = read_graph(model)
    if not any(_loops(call) for call in graph.calls):
        return model

    def visit(call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if _loops(call):
            for layer in _recurrent_parts(copy(call.operation)):
                layer.unroll = True
                for cell in getattr(layer.cell, "cells", [layer.cell]):
                    if isinstance(cell, (layers.LSTMCell, layers.GRUCell)):
                        # A product for each gate: where one for all is split, the converter leaves the split of the
                        # first step in float at random, since the state of zeros makes no use of one part.
                        cell.implementation = 1
        return copy_call(call, copy, args, kwargs)

    return rebuild(graph, on_call=visit)


def _loops(call: Call) -> bool:
    shape = call.inputs[0].shape if call.inputs else ()
    # Convolutional ones, which take images, cannot be unrolled.
    sequence = len(shape) == 3 and shape[1] is not None and shape[1] <= LONGEST_SEQUENCE
    return sequence and any(not layer.unroll for layer in _recurrent_parts(call.operation))


def _recurrent_parts(operation: keras.Operation) -> Iterator[layers.RNN]:
    match operation:
        case layers.RNN():
            yield operation
        case layers.Bidirectional():
            yield from (operation.forward_layer, operation.backward_layer)
