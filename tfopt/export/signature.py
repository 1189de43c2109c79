"""The signature of an exported model: what its inputs and outputs are called, and how Keras is called by it."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from typing import Any

import keras

from tfopt.errors import ModelError

__all__ = [
    "SIGNATURE",
    "call_flat",
    "check_static",
    "input_names",
    "input_structure",
    "output_names",
    "tensor_shapes",
]

SIGNATURE = "serving_default"


def check_static(model: keras.Model, exporter: str) -> None:
    """Refuses a model whose inputs have no shapes, or an unknown size beside the batch.

    Args:
        model: the model.
        exporter: what the message begins with.

    Raises:
        ModelError: if it is one.
    """
    if not getattr(model, "inputs", None):
        raise ModelError(
            f"{exporter}: the model '{model.name}' is subclassed, so its inputs have no shapes. "
            "Wrap it: x = keras.Input(shape); model = keras.Model(x, your_model(x))."
        )
    for tensor in model.inputs:
        if None in tensor.shape[1:]:
            raise ModelError(
                f"{exporter}: the input '{tensor.name}' must have a static shape beside its batch. "
                f"Received: {tuple(tensor.shape)}. Rebuild the model with a fixed keras.Input(shape)."
            )


def input_names(model: keras.Model) -> list[str]:
    """The names of the inputs, in order, as identifiers that differ; one without a name is `input_layer`."""
    # Keras counts what has no name over the whole process; clients need the same name from every version.
    return _identifiers([re.sub(r"^(keras_tensor|input_layer)(_\d+)?$", "input_layer", x.name) for x in model.inputs])


def output_names(model: keras.Model) -> list[str]:
    """The names of the outputs, in order: the keys of a dict of outputs, or the layers that make them.

    Characters that TensorFlow does not take become `_`, a name that does not begin with a letter or is a word of
    Python gets `tensor_` in front, and a second tensor of the same name gets `_1`.

    Example:
        >>> x = keras.Input((2,))
        >>> output_names(keras.Model(x, {"class": keras.layers.Dense(1)(x), "score 1": keras.layers.Dense(1)(x)}))
        ['tensor_class', 'score_1']
    """
    if isinstance(model, keras.Sequential):
        return _identifiers([model.layers[-1].name])
    paths = [path for path, _ in keras.tree.flatten_with_path(model.output)]
    return _identifiers(
        [
            path[-1] if path and isinstance(path[-1], str) else layer_name
            for path, layer_name in zip(paths, model.output_names, strict=True)
        ]
    )


def tensor_shapes(model: keras.Model) -> tuple[dict[str, tuple[int | None, ...]], dict[str, tuple[int | None, ...]]]:
    """The shapes of the inputs and of the outputs by these names, with the batch."""
    inputs, outputs = (
        {name: tuple(tensor.shape) for name, tensor in zip(names, tensors, strict=True)}
        for names, tensors in ((input_names(model), model.inputs), (output_names(model), model.outputs))
    )
    return inputs, outputs


def input_structure(model: keras.Model) -> Any:
    """The symbolic inputs in the structure in which the model takes them."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def call_flat(model: keras.Model, tensors: Sequence[Any]) -> list[Any]:
    """Runs a model for inference on a flat list of inputs and returns a flat list of outputs."""
    structured = keras.tree.pack_sequence_as(input_structure(model), list(tensors))
    return keras.tree.flatten(model(structured, training=False))


def _identifiers(names: Sequence[str]) -> list[str]:
    identifiers: list[str] = []
    for name in names:
        identifier = re.sub(r"[^A-Za-z0-9_]", "_", name)
        if not identifier[:1].isalpha() or keyword.iskeyword(identifier) or identifier == "self":
            identifier = f"tensor_{identifier}"
        unique, number = identifier, 0
        while unique in identifiers:
            number += 1
            unique = f"{identifier}_{number}"
        identifiers.append(unique)
    return identifiers
