"""Reading a Keras model as a flat list of calls, and building a model from it with changes.

The calls are read from `model.get_config()`, the format of .keras files: it is public, and reading it leaves the
user's layers untouched (calling them again would add nodes to them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, count
from typing import Any, Protocol

import keras

from tfopt.errors import ModelError

__all__ = ["Call", "Copier", "Graph", "Value", "copy_call", "read_graph", "rebuild", "unique_name"]


@dataclass(frozen=True, eq=False)
class Value:
    """One symbolic tensor of a graph; its identity is what counts."""

    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True, eq=False)
class Call:
    """One use of a layer (or of a `keras.ops` operation); a shared layer has several.

    Args:
        name: the layer's name, prefixed by its nested model's where two layers share a name.
        operation: the layer itself.
        args: positional arguments, with a `Value` for each tensor.
        kwargs: keyword arguments, likewise.
        outputs: a `Value`, or a structure of them.
    """

    name: str
    operation: keras.Operation
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: Any

    @property
    def inputs(self) -> list[Value]:
        """The tensors among the arguments, in order."""
        return [leaf for leaf in keras.tree.flatten((self.args, self.kwargs)) if isinstance(leaf, Value)]

    @property
    def output(self) -> Value:
        """The first (usually the only) output."""
        return keras.tree.flatten(self.outputs)[0]


@dataclass(frozen=True, eq=False)
class Graph:
    """A model without nesting: its calls in an order in which they can run.

    Args:
        name: the model's name.
        inputs: a `Value`, or a structure of them, as the model takes them.
        input_names: the names of the inputs, flattened.
        outputs: likewise, as the model returns them.
        calls: every call of the model and of the models nested in it.
    """

    name: str
    inputs: Any
    input_names: tuple[str, ...]
    outputs: Any
    calls: tuple[Call, ...]

    @cached_property
    def consumers(self) -> dict[Value, list[Call]]:
        """For each tensor, the calls that take it."""
        found: dict[Value, list[Call]] = {}
        for call in self.calls:
            for value in dict.fromkeys(call.inputs):
                found.setdefault(value, []).append(call)
        return found

    def is_output(self, value: Value) -> bool:
        """Whether the model returns `value`."""
        return value in keras.tree.flatten(self.outputs)


def read_graph(model: keras.Model) -> Graph:
    """Reads a Functional or Sequential model, with the models nested in it laid flat.

    Raises:
        ModelError: if the model (or one nested in it) is subclassed: its graph is known to its code alone.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden")])
        >>> [call.name for call in read_graph(model).calls]
        ['hidden']
    """
    config, _ = _config_and_operations(model)
    inputs = keras.tree.map_structure(lambda tensor: Value(tuple(tensor.shape), tensor.dtype), _symbolic_inputs(model))
    input_names = tuple(tensor.name for tensor in keras.tree.flatten(_symbolic_inputs(model)))
    calls: list[Call] = []
    outputs = _lay_flat(model, inputs, (), calls)
    return Graph(
        name=config["name"],
        inputs=inputs,
        input_names=input_names,
        outputs=outputs,
        calls=tuple(_with_unique_names(calls, set(input_names))),
    )


def unique_name(name: str, taken: set[str]) -> str:
    """The name, with a number where it is taken; it is taken from then on.

    Example:
        >>> unique_name("dense", {"dense", "dense_1"})
        'dense_2'
    """
    candidates = chain((name,), (f"{name}_{number}" for number in count(1)))
    unique = next(candidate for candidate in candidates if candidate not in taken)
    taken.add(unique)
    return unique


class Copier(Protocol):
    """Gives a layer's copy, the same one at every use; a new name may be given at the first."""

    def __call__(self, operation: keras.Operation, name: str | None = None) -> keras.Operation:
        """Gives the copy."""
        ...


CallVisitor = Callable[[Call, Copier, tuple[Any, ...], dict[str, Any]], Any]
ValueVisitor = Callable[[Value, Any], Any]


def copy_call(call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a copy of the layer: what `rebuild` does where nothing is to change."""
    return copy(call.operation)(*args, **kwargs)


def rebuild(
    graph: Graph,
    *,
    on_call: CallVisitor = copy_call,
    on_value: ValueVisitor = lambda _, tensor: tensor,
) -> keras.Model:
    """Builds a new model by running the calls of a graph, each as the visitor says.

    Layers are copied (a shared layer once) with their weights, so the original model is left as it is.

    Args:
        graph: what to build.
        on_call: `(call, copy, args, kwargs) -> outputs` replaces a call; `copy(layer)` gives the layer's copy.
        on_value: `(value, tensor) -> tensor` changes what the consumers of an input or output see.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> rebuild(read_graph(model)).count_params() == model.count_params()
        True
    """
    copies: dict[int, tuple[keras.Operation, keras.Operation]] = {}
    names = {id(call.operation): call.name for call in reversed(graph.calls)}

    def copy(operation: keras.Operation, name: str | None = None) -> keras.Operation:
        if id(operation) not in copies:
            config = operation.get_config()
            if "name" in config:
                config["name"] = name or names.get(id(operation), operation.name)
            # The code of a Lambda is in this program already: there is nothing to be safe from.
            trusted = {"safe_mode": False} if isinstance(operation, keras.layers.Lambda) else {}
            copies[id(operation)] = operation, type(operation).from_config(config, **trusted)
        return copies[id(operation)][1]

    tensors: dict[Value, Any] = {}

    def lookup(leaf: Any) -> Any:
        return tensors[leaf] if isinstance(leaf, Value) else leaf

    def bind(values: Any, results: Any) -> None:
        for value, tensor in zip(keras.tree.flatten(values), keras.tree.flatten(results), strict=True):
            tensors[value] = on_value(value, tensor)

    input_tensors = [
        keras.Input(batch_shape=value.shape, dtype=value.dtype, name=name)
        for value, name in zip(keras.tree.flatten(graph.inputs), graph.input_names, strict=True)
    ]
    bind(graph.inputs, input_tensors)
    for call in graph.calls:
        args, kwargs = keras.tree.map_structure(lookup, (call.args, call.kwargs))
        bind(call.outputs, on_call(call, copy, args, kwargs))
    model = keras.Model(
        keras.tree.pack_sequence_as(graph.inputs, input_tensors),
        keras.tree.map_structure(lookup, graph.outputs),
        name=graph.name,
    )
    for original, duplicate in copies.values():
        if isinstance(original, keras.Layer):
            duplicate.set_weights(original.get_weights())
            if isinstance(duplicate, keras.layers.Normalization):
                duplicate.finalize_state()  # it computes with what it derives from its weights
    return model


def _symbolic_inputs(model: keras.Model) -> Any:
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def _config_and_operations(model: keras.Model) -> tuple[dict[str, Any], dict[str, keras.Operation]]:
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    if not isinstance(model, keras.Function):
        raise ModelError(
            f"The model '{model.name}' is subclassed ({type(model).__name__}): its layers are called by its own code, "
            "so they cannot be rewritten. Build it as a Functional model: "
            "x = keras.Input(shape); model = keras.Model(x, my_layers(x))."
        )
    config = model.get_config()
    if "layers" not in config:  # a subclass of a Functional model with a constructor of its own
        model = keras.Model(model.input, model.output, name=model.name)
        config = model.get_config()
    return config, {operation.name: operation for operation in model.operations}


def _lay_flat(model: keras.Model, inputs: Any, scope: tuple[str, ...], calls: list[Call]) -> Any:
    """Appends the model's calls to `calls` and returns its outputs."""
    config, operations = _config_and_operations(model)
    known: dict[tuple[str, int], Any] = {}
    for reference, value in zip(_references(config["input_layers"]), keras.tree.flatten(inputs), strict=True):
        known[reference.layer, reference.node] = value
    pending = [
        (name, node, spec)
        for name, specs in ((layer["name"], layer["inbound_nodes"]) for layer in config["layers"])
        for node, spec in enumerate(specs)
    ]
    while pending:
        waiting = []
        for name, node, spec in pending:
            if any((layer, index) not in known for layer, index, _ in _tensors_in(spec)):
                waiting.append((name, node, spec))
                continue
            args, kwargs = _resolve(spec["args"], known), _resolve(spec["kwargs"], known)
            known[name, node] = _call(operations[name], tuple(args), kwargs, scope, calls)
        if len(waiting) == len(pending):
            raise ModelError(f"The graph of the model '{model.name}' has calls that nothing feeds: {waiting[0][0]}.")
        pending = waiting

    def output(name: str, node: int, index: int) -> Any:
        # Among the outputs (not among the arguments), a nested Functional model counts its nodes from 1.
        return keras.tree.flatten(known[name, node - isinstance(operations[name], keras.Function)])[index]

    return _map_references(config["output_layers"], output)


def _call(
    operation: keras.Operation, args: tuple[Any, ...], kwargs: dict[str, Any], scope: tuple[str, ...], calls: list[Call]
) -> Any:
    if isinstance(operation, keras.Model):
        return _lay_flat(operation, args[0], (*scope, operation.name), calls)

    def symbolic(leaf: Any) -> Any:
        return keras.KerasTensor(leaf.shape, dtype=leaf.dtype) if isinstance(leaf, Value) else leaf

    symbolic_args, symbolic_kwargs = keras.tree.map_structure(symbolic, (args, kwargs))
    specs = operation.compute_output_spec(*symbolic_args, **symbolic_kwargs)
    outputs = keras.tree.map_structure(lambda spec: Value(tuple(spec.shape), spec.dtype), specs)
    calls.append(Call("/".join((*scope, operation.name)), operation, args, kwargs, outputs))
    return outputs


def _with_unique_names(calls: list[Call], taken: set[str]) -> list[Call]:
    names: dict[int, str] = {}
    # The model's own layers keep their names; those of nested models make way.
    for call in sorted(calls, key=lambda call: call.name.count("/")):
        if id(call.operation) not in names:
            short = call.operation.name
            name = short if short not in taken else call.name.replace("/", "_")
            names[id(call.operation)] = unique_name(name, taken)
    return [replace(call, name=names[id(call.operation)]) for call in calls]


def _tensors_in(spec: Any) -> Iterator[tuple[str, int, int]]:
    if isinstance(spec, dict):
        if spec.get("class_name") == "__keras_tensor__":
            yield tuple(spec["config"]["keras_history"])
        else:
            for item in spec.values():
                yield from _tensors_in(item)
    elif isinstance(spec, (list, tuple)):
        for item in spec:
            yield from _tensors_in(item)


def _resolve(spec: Any, known: dict[tuple[str, int], Any]) -> Any:
    """Turns the serialized arguments of a call into values."""
    if isinstance(spec, (list, tuple)):
        return [_resolve(item, known) for item in spec]
    if not isinstance(spec, dict):
        return spec
    match spec.get("class_name"):
        case "__keras_tensor__":
            name, node, index = spec["config"]["keras_history"]
            return keras.tree.flatten(known[name, node])[index]
        case "__tuple__":
            return tuple(_resolve(item, known) for item in spec["config"]["value"])
        case None:
            return {key: _resolve(item, known) for key, item in spec.items()}
    return keras.saving.deserialize_keras_object(spec)


def _is_reference(spec: Any) -> bool:
    return isinstance(spec, (list, tuple)) and len(spec) == 3 and isinstance(spec[0], str) and isinstance(spec[1], int)


@dataclass(frozen=True)
class _Reference:
    layer: str
    node: int
    index: int


def _references(spec: Any) -> list[_Reference]:
    # Flattened by Keras, which sorts the keys of a dict as it does for the tensors.
    return keras.tree.flatten(_map_references(spec, _Reference))


def _map_references(spec: Any, function: Callable[[str, int, int], Any]) -> Any:
    if _is_reference(spec):
        return function(*spec)
    if isinstance(spec, dict):
        return {key: _map_references(item, function) for key, item in spec.items()}
    return [_map_references(item, function) for item in spec]
