"""Exits put on a model: what reads a layer within it and answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import keras
from keras import layers

from tfopt.distillation.logits_source import find_logits
from tfopt.early_exit.network import EarlyExitNetwork
from tfopt.errors import ConfigError, ModelError
from tfopt.surgery.graph import Call, Graph, Value, read_graph, rebuild, unique_name
from tfopt.surgery.model import check_model

__all__ = ["answer_kind", "attach_exits"]

_POOLING = {3: layers.GlobalAveragePooling1D, 4: layers.GlobalAveragePooling2D, 5: layers.GlobalAveragePooling3D}

Head = Callable[[keras.KerasTensor, str], Any]


def attach_exits(model: keras.Model, exits: Sequence[str], head: Head | None) -> EarlyExitNetwork:
    """What `tfopt.early_exit` does; see there."""
    check_model(model)
    graph = read_graph(model)
    outputs = keras.tree.flatten(graph.outputs)
    if len(outputs) != 1:
        raise ModelError(
            f"early_exit: expected a model with one output. Received: '{model.name}', with {len(outputs)}. "
            "Choose one: keras.Model(model.input, model.outputs[0])."
        )
    activation = answer_kind(graph, outputs[0])
    features = [_layer(graph, name).output for name in _names(graph, exits, outputs[0])]
    trunk = rebuild(replace(graph, outputs=[*features, outputs[0]]))
    taken = {call.name for call in graph.calls} | set(graph.input_names)
    answers = []
    for number, tensor in enumerate(trunk.outputs[:-1], start=1):
        name = unique_name(f"exit_{number}", taken)
        answer = _default_head(tensor, name, outputs[0], activation) if head is None else head(tensor, name)
        if not isinstance(answer, keras.KerasTensor) or tuple(answer.shape) != outputs[0].shape:
            raise ConfigError(
                f"early_exit: expected a head whose output has the shape of the model's: {outputs[0].shape}. "
                f"Received: {getattr(answer, 'shape', answer)} for the exit at '{exits[number - 1]}'."
            )
        answers.append(answer)
    return EarlyExitNetwork(trunk.input, [*answers, trunk.outputs[-1]], name=graph.name)


def answer_kind(graph: Graph, output: Value) -> Literal["softmax", "sigmoid", "linear"]:
    """What an answer ends in: it holds probabilities after a softmax or a sigmoid, else logits.

    Raises:
        ModelError: if it does not tell one class of each sample.
    """
    shape = output.shape
    if len(shape) != 2 or shape[1] is None:
        raise ModelError(
            f"Early exits need a classifier, whose output has the shape (batch, classes). Received: {shape} from "
            f"'{graph.name}'."
        )
    try:
        source = find_logits(graph, output)
    except ConfigError:  # it ends in a sigmoid
        if shape[1] == 1:
            return "sigmoid"
        raise ModelError(
            f"Early exits need classes that exclude each other. Received: '{graph.name}', which ends in {shape[1]} "
            "sigmoids. End it in a softmax, or in one sigmoid for two classes."
        ) from None
    return "softmax" if source.after_softmax or source.value is not output else "linear"


def _names(graph: Graph, exits: Sequence[str], output: Value) -> Sequence[str]:
    if isinstance(exits, str) or not exits or not all(isinstance(name, str) for name in exits):
        raise ConfigError(f"early_exit: exits must be a list of layer names, at least one. Received: {exits!r}.")
    needed = {output}
    for call in reversed(graph.calls):
        if not needed.isdisjoint(keras.tree.flatten(call.outputs)):
            needed.update(call.inputs)
    places = []
    for name in exits:
        call = _layer(graph, name)
        if call.output is output or call.output not in needed:
            raise ConfigError(
                f"early_exit: expected layers that the output is computed from. Received: '{name}', which "
                f"{'makes the output' if call.output is output else 'the output does not depend on'}."
            )
        places.append(graph.calls.index(call))
    if any(later <= earlier for earlier, later in pairwise(places)):
        ordered = [name for _, name in sorted(zip(places, exits, strict=True))]
        raise ConfigError(
            f"early_exit: exits must be named once, in the order in which they run: {ordered}. Received: {list(exits)}."
        )
    return exits


def _layer(graph: Graph, name: str) -> Call:
    calls = [call for call in graph.calls if call.name == name]
    if len(calls) != 1:
        problem = f"is called {len(calls)} times" if calls else "is not there"
        raise ConfigError(
            f"early_exit: expected the name of a layer that '{graph.name}' calls once. Received: '{name}', which "
            f"{problem}. Available: {', '.join(dict.fromkeys(call.name for call in graph.calls))}."
        )
    return calls[0]


def _default_head(features: keras.KerasTensor, name: str, output: Value, activation: str) -> keras.KerasTensor:
    rank = len(features.shape)
    if rank != 2 and rank not in _POOLING:
        raise ConfigError(
            f"early_exit: no default head fits features of shape {tuple(features.shape)}. Give one with head=."
        )
    if rank in _POOLING:
        features = _POOLING[rank](name=f"{name}_pooling")(features)
    # In float32 under mixed precision too, as every softmax and loss should be.
    return layers.Dense(output.shape[1], activation=activation, dtype="float32", name=name)(features)
