"""Reading a tf_keras model as a list of calls, from `model.get_config()`, the format of its files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfopt.errors import ModelError
from tfopt.interop.legacy import import_tf_keras

__all__ = ["LayerCall", "Tensor", "TfKerasGraph", "read_tf_keras", "tensors_in"]


@dataclass(frozen=True)
class Tensor:
    """What one call of a layer gives: its layer's name, which of the layer's calls, which of its outputs."""

    layer: str
    node: int
    index: int


@dataclass(frozen=True, eq=False)
class LayerCall:
    """One call of a layer of tf_keras.

    Args:
        layer: the layer, or a model that is nested as one.
        node: which of the layer's calls it is.
        inputs: the first argument, with a `Tensor` for each tensor.
        kwargs: the other arguments, by name, likewise.
    """

    layer: Any
    node: int
    inputs: Any
    kwargs: dict[str, Any]


@dataclass(frozen=True, eq=False)
class TfKerasGraph:
    """A Functional model of tf_keras: inputs and outputs in order, and calls in an order in which they can run."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    calls: tuple[LayerCall, ...]


def read_tf_keras(model: Any) -> TfKerasGraph:
    """Reads a Functional model of tf_keras.

    Raises:
        ModelError: if the model is subclassed: its graph is known to its code alone.
    """
    config = _config(model)
    layers = {layer.name: layer for layer in model.layers}
    entries = config["layers"]
    starts = _first_nodes(config, entries, layers)
    pending = []
    for entry in entries:
        layer = layers[entry["name"]]
        for node, spec in enumerate(entry["inbound_nodes"], start=starts[entry["name"]]):
            inputs, kwargs = _arguments(spec, layers, is_operation=_is_operation(layer))
            pending.append(LayerCall(layer, node, inputs, kwargs))
    inputs = tuple(_references(config["input_layers"]))
    known = {(tensor.layer, tensor.node) for tensor in inputs}
    calls: list[LayerCall] = []
    while pending:
        ready = [call for call in pending if all((t.layer, t.node) in known for t in _tensors_of(call))]
        if not ready:
            raise ModelError(
                f"The tf_keras model '{model.name}' has calls that nothing feeds: {pending[0].layer.name}."
            )
        calls.extend(ready)
        known.update((call.layer.name, call.node) for call in ready)
        pending = [call for call in pending if call not in ready]
    return TfKerasGraph(inputs, tuple(_references(config["output_layers"])), tuple(calls))


def tensors_in(structure: Any) -> Iterator[Tensor]:
    """The tensors within a structure of arguments."""
    yield from (leaf for leaf in tf.nest.flatten(structure) if isinstance(leaf, Tensor))


def _config(model: Any) -> dict[str, Any]:
    try:
        config = model.get_config()
        if "input_layers" not in config:  # a subclass of a Functional model with a constructor of its own
            config = import_tf_keras().Model(model.input, model.output, name=model.name).get_config()
    except (NotImplementedError, AttributeError):  # what Keras 2 raises for a subclassed model, refused below
        config = {}
    if "input_layers" not in config:
        raise ModelError(
            f"The tf_keras model '{model.name}' is subclassed ({type(model).__name__}): its layers are called by its "
            "own code, so they cannot be translated. Write it as a Functional model of tf_keras, or rebuild it in "
            "Keras 3."
        )
    return config


def _first_nodes(config: dict[str, Any], entries: list[dict[str, Any]], layers: dict[str, Any]) -> dict[str, int]:
    """The number that each layer's first call has: 1 for a nested model with an input of its own, else 0."""
    used: dict[str, set[int]] = {}
    references = [*_references(config["input_layers"]), *_references(config["output_layers"])]
    for entry in entries:
        for spec in entry["inbound_nodes"]:
            inputs, kwargs = _arguments(spec, layers, is_operation=True)
            references.extend(tensors_in((inputs, kwargs)))
    for reference in references:
        used.setdefault(reference.layer, set()).add(reference.node)
    return {
        entry["name"]: int(max(used.get(entry["name"], {0}), default=0) >= max(1, len(entry["inbound_nodes"])))
        for entry in entries
    }


def _is_operation(layer: Any) -> bool:
    return type(layer).__name__ in {"TFOpLambda", "SlicingOpLambda"}


def _tensors_of(call: LayerCall) -> Iterator[Tensor]:
    return tensors_in((call.inputs, call.kwargs))


def _arguments(spec: Any, layers: dict[str, Any], *, is_operation: bool) -> tuple[Any, dict[str, Any]]:
    """The first argument of a call and the others, out of how tf_keras writes them."""
    found: dict[str, Any] = {}

    def first(item: Any) -> Any:
        if _is_first_argument(item):
            if len(item) > 3:
                found.update(item[3])
            return item[2] if item[0] == "_CONSTANT_VALUE" else Tensor(*item[:3])
        if isinstance(item, dict):
            return {key: first(value) for key, value in item.items()}
        return [first(value) for value in item]

    def other(item: Any) -> Any:
        if _is_tensor(item) and item[0] in layers:
            return Tensor(*item)
        if isinstance(item, dict):
            return {key: other(value) for key, value in item.items()}
        return [other(value) for value in item] if isinstance(item, (list, tuple)) else item

    inputs = first(spec)
    if isinstance(inputs, list) and len(inputs) == 1 and not is_operation:
        inputs = inputs[0]
    return inputs, {name: other(value) for name, value in found.items()}


def _is_tensor(item: Any) -> bool:
    return (
        isinstance(item, (list, tuple))
        and len(item) == 3
        and isinstance(item[0], str)
        and all(isinstance(number, int) for number in item[1:])
    )


def _is_first_argument(item: Any) -> bool:
    return (
        isinstance(item, (list, tuple))
        and len(item) in (3, 4)
        and isinstance(item[0], str)
        and isinstance(item[1], int)
    )


def _references(structure: Any) -> Iterator[Tensor]:
    if _is_tensor(structure):
        yield Tensor(*structure)
    elif isinstance(structure, dict):
        for key in sorted(structure):
            yield from _references(structure[key])
    else:
        for item in structure:
            yield from _references(item)
