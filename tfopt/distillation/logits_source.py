"""Where in a graph the class logits are: before a final softmax, if there is one."""

from __future__ import annotations

from typing import NamedTuple

import keras

from tfopt.errors import ConfigError
from tfopt.quantization.layers import FakeQuantize, FixedFakeQuantize, KeptInFloat, LearnedFakeQuantize, NamedOutput
from tfopt.surgery.graph import Call, Graph, Value

__all__ = ["LogitsSource", "find_logits"]

_ROUNDS_OR_NAMES = (FakeQuantize, LearnedFakeQuantize, FixedFakeQuantize, KeptInFloat, NamedOutput)
_MOVES = (keras.layers.Reshape, keras.layers.Flatten, keras.layers.Identity, keras.layers.Dropout)


class LogitsSource(NamedTuple):
    """What to read for the logits.

    Args:
        value: the tensor.
        after_softmax: whether it holds probabilities, whose logarithms are the logits: a softmax fused into a layer
            leaves no tensor before it.
    """

    value: Value
    after_softmax: bool


def find_logits(graph: Graph, value: Value) -> LogitsSource:
    """Goes back from a tensor to the logits it was made of, where it comes from a softmax.

    Args:
        graph: the model that holds the tensor.
        value: the tensor, usually the model's output. Roundings of a quantize-aware model are looked through.

    Raises:
        ConfigError: if it comes from a sigmoid: the classes of such an output do not exclude each other.

    Example:
        >>> from tfopt.surgery.graph import read_graph
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Softmax()])
        >>> graph = read_graph(model)
        >>> source = find_logits(graph, graph.outputs)
        >>> source.value is graph.calls[0].output, source.after_softmax
        (True, False)
    """
    producers = {output: call for call in graph.calls for output in keras.tree.flatten(call.outputs)}
    moved, at = False, value
    while at in producers:
        call = producers[at]
        match _activation(call):
            case "softmax" if call.inputs and _is_only_softmax(call) and not moved:
                return LogitsSource(call.inputs[0], after_softmax=False)
            case "softmax":
                return LogitsSource(value, after_softmax=True)
            case "sigmoid":
                raise ConfigError(
                    f"The model '{graph.name}' ends in a sigmoid ('{call.name}'), and LogitsLoss and DecoupledLoss "
                    "compare classes that exclude each other. Use FeatureLoss(None, None), which compares the outputs "
                    "themselves."
                )
        passes_on = isinstance(call.operation, (*_ROUNDS_OR_NAMES, *_MOVES)) or _is_linear_activation(call)
        if not passes_on:
            break
        moved = moved or isinstance(call.operation, _MOVES)
        at = call.inputs[0]
    return LogitsSource(value, after_softmax=False)


def _activation(call: Call) -> str | None:
    """The name of what a call applies last, if that is a softmax over the classes or a sigmoid."""
    operation = call.operation
    while isinstance(operation, keras.layers.Wrapper):
        operation = operation.layer
    if isinstance(operation, keras.layers.RNN):
        return None
    rank = len(call.output.shape)
    if isinstance(operation, keras.layers.Softmax) or type(operation).__name__ == "Softmax":  # the latter of keras.ops
        axis = operation.get_config()["axis"]
        return "softmax" if axis in (-1, rank - 1, [-1], [rank - 1]) else None
    if type(operation).__name__ == "Sigmoid":
        return "sigmoid"
    activation = getattr(operation, "activation", None)
    if activation is keras.activations.softmax or isinstance(activation, keras.layers.Softmax):
        return "softmax"
    return "sigmoid" if activation is keras.activations.sigmoid else None


def _is_only_softmax(call: Call) -> bool:
    return isinstance(call.operation, (keras.layers.Softmax, keras.layers.Activation)) or (
        type(call.operation).__name__ == "Softmax"
    )


def _is_linear_activation(call: Call) -> bool:
    operation = call.operation
    return isinstance(operation, keras.layers.Activation) and operation.activation is keras.activations.linear
