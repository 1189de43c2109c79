"""The models of an ensemble: checked, copied, and their outputs brought to one kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import layers

from tfopt.errors import ConfigError, ModelError
from tfopt.surgery.graph import read_graph, rebuild
from tfopt.surgery.model import check_model

__all__ = ["Member", "average", "members_of", "named_models", "probabilities"]


@dataclass(frozen=True, eq=False)
class Member:
    """One model of an ensemble.

    Args:
        name: how it is called.
        model: a copy of it that gives what is averaged.
        outputs: what it gives for the validation samples, of shape `(n, ...)`.
    """

    name: str
    model: keras.Model
    outputs: np.ndarray


def named_models(models: Mapping[str, keras.Model] | Sequence[keras.Model]) -> dict[str, keras.Model]:
    """The models by name: those of a mapping, or model_0, model_1, ….

    Raises:
        ConfigError: if there are less than two.
        ModelError: if one is not a built Keras 3 model, or they differ in the shapes of inputs or output.
    """
    named = dict(models) if isinstance(models, Mapping) else {f"model_{i}": model for i, model in enumerate(models)}
    if len(named) < 2 or not all(isinstance(name, str) and name for name in named):
        raise ConfigError(f"prune: expected at least two models, with texts as names. Received: {list(named)}.")
    shapes = {}
    for name, model in named.items():
        check_model(model)
        graph = read_graph(model)
        inputs, outputs = (keras.tree.flatten(one) for one in (graph.inputs, graph.outputs))
        if len(outputs) != 1:
            raise ModelError(f"prune: expected models of one output. Received: {len(outputs)} outputs of '{name}'.")
        shapes[name] = ([(value.shape, value.dtype) for value in inputs], outputs[0].shape)
    first = next(iter(shapes))
    for name, shape in shapes.items():
        if shape != shapes[first]:
            raise ModelError(
                "prune: models that are averaged must take the same inputs and give outputs of one shape. "
                f"Received: {shapes[first]} of '{first}' and {shape} of '{name}'."
            )
    return named


def members_of(named: Mapping[str, keras.Model], arrays: Sequence[np.ndarray], *, classes: bool) -> list[Member]:
    """Copies of the models, with their outputs.

    Args:
        named: the models.
        arrays: one array of samples for each input.
        classes: whether outputs tell classes: logits then become probabilities, since logits of several models differ
            in scale.

    Raises:
        ModelError: if a model gives NaN or infinite values.
    """
    members = []
    for number, (name, model) in enumerate(named.items()):
        given = keras.tree.pack_sequence_as(_structure(model), list(arrays))
        outputs = np.asarray(keras.tree.flatten(model.predict(given, batch_size=256, verbose=0))[0], np.float64)
        if not np.all(np.isfinite(outputs)):
            raise ModelError(f"prune: expected finite outputs. Received: NaN or infinity from '{name}'.")
        copy = rebuild(replace(read_graph(model), name=f"member_{number}"))
        if classes and (outputs.min() < 0 or outputs.max() > 1):
            output = keras.tree.flatten(copy.output)[0]
            last = layers.Softmax if output.shape[-1] > 1 else layers.Activation
            arguments = {} if output.shape[-1] > 1 else {"activation": "sigmoid"}
            answer = last(**arguments, dtype="float32", name="probabilities")(output)
            copy = keras.Model(copy.input, answer, name=copy.name)
            outputs = probabilities(outputs)
        members.append(Member(name, copy, outputs))
    return members


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis; the sigmoid where that has one entry.

    Example:
        >>> probabilities(np.array([[0.0], [100.0]])).tolist(), probabilities(np.zeros((1, 2))).tolist()
        ([[0.5], [1.0]], [[0.5, 0.5]])
    """
    if logits.shape[-1] == 1:
        return 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def average(models: Sequence[keras.Model], weights: Sequence[float], *, name: str) -> keras.Model:
    """One model that gives the weighted mean of what several give for the same inputs.

    Args:
        models: Functional models of one output that take the same inputs; they become layers of the new one.
        weights: one for each, of sum 1.
        name: of the new model.

    Example:
        >>> constant = lambda value: keras.Sequential(
        ...     [keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros",
        ...      bias_initializer=keras.initializers.Constant(value))])
        >>> model = average([constant(1.0), constant(5.0)], [0.75, 0.25], name="ensemble")
        >>> model.predict(np.zeros((1, 1)), verbose=0).tolist()
        [[2.0]]
    """
    structure = _structure(models[0])
    inputs = [
        keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)
        for tensor in keras.tree.flatten(structure)
    ]
    parts: list[Any] = []
    for number, (model, weight) in enumerate(zip(models, weights, strict=True)):
        output = keras.tree.flatten(model(keras.tree.pack_sequence_as(_structure(model), inputs)))[0]
        # The mean in float32, under mixed precision too.
        parts.append(layers.Rescaling(float(weight), dtype="float32", name=f"share_{number}")(output))
    output = parts[0] if len(parts) == 1 else layers.Add(dtype="float32", name="mean")(parts)
    return keras.Model(keras.tree.pack_sequence_as(structure, inputs), output, name=name)


def _structure(model: keras.Model) -> Any:
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input
