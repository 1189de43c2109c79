"""Which Keras layers each operator of a .tflite computes, so that messages speak of the user's layers.

A model is traced with each layer in a TensorFlow name scope of its own, named by the layer's path ("block/conv"). The
converter keeps the names of the operations it makes an operator from as the name of what that operator writes, but for
operations it folds into constants (batch norm) and for outputs of the file; those are found from the traced graph.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tfopt.export.tflite_file import Operator, Tensor, TfliteFile
from tfopt.quantization.layers import (
    FakeQuantize,
    FixedFakeQuantize,
    KeptInFloat,
    LearnedFakeQuantize,
    NamedOutput,
    QuantizeAware,
)
from tfopt.quantization.rounded_offset import RoundedOffset
from tfopt.surgery.elementary import origin_of
from tfopt.surgery.graph import Graph, Value, read_graph, unique_name

__all__ = ["LayerScopes", "layer_scopes", "operator_layers"]

_CONVERSIONS = {"QUANTIZE", "DEQUANTIZE", "DENSIFY", "CAST"}
"""Operators that change how numbers are stored; the converter puts them in where it needs them."""


@dataclass(frozen=True)
class LayerScopes:
    """A model's calls, and the name scope that each is to run in.

    Args:
        graph: the calls.
        scopes: for each call, in order, its scope; None for what is no layer of the user's.
        layers: the layer that each scope stands for: its name, after those of the models it is nested in.
    """

    graph: Graph
    scopes: tuple[str | None, ...]
    layers: dict[str, str]

    def call(self, tensors: Sequence[Any]) -> list[Any]:
        """Runs the calls for inference on a flat list of inputs, as the model would, and returns its flat outputs."""
        results = dict(zip(keras.tree.flatten(self.graph.inputs), tensors, strict=True))

        def lookup(leaf: Any) -> Any:
            return results[leaf] if isinstance(leaf, Value) else leaf

        for call, scope in zip(self.graph.calls, self.scopes, strict=True):
            args, kwargs = keras.tree.map_structure(lookup, (call.args, call.kwargs))
            if isinstance(call.operation, keras.Layer):
                kwargs["training"] = False
            # The slash at the end: not within another scope, and not numbered where a layer is called twice.
            with tf.name_scope(f"{scope}/") if scope else nullcontext():
                outputs = call.operation(*args, **kwargs)
            results.update(zip(keras.tree.flatten(call.outputs), keras.tree.flatten(outputs), strict=True))
        return [results[value] for value in keras.tree.flatten(self.graph.outputs)]

    def layer_of(self, name: str) -> str | None:
        """The layer in whose scope a TensorFlow operation of this name was made.

        Example:
            >>> LayerScopes(None, (), {"block/conv": "block/conv"}).layer_of("block/conv/conv/BiasAdd")
            'block/conv'
        """
        parts = name.split("/")
        prefixes = ("/".join(parts[:length]) for length in range(len(parts) - 1, 0, -1))
        return next((self.layers[prefix] for prefix in prefixes if prefix in self.layers), None)


def layer_scopes(convertible: keras.Model, model: keras.Model) -> LayerScopes:
    """Finds the scope for each call of the model that is converted.

    Args:
        convertible: what is converted: the user's model, or one made from it (`freeze`, `strip`, `in_float32`).
        model: the user's model, whose layers give the names; those of a quantize-aware one are as in its
            coverage table.
    """
    graph = read_graph(convertible)
    paths = _layer_paths(model)
    layers: dict[str, str] = {}
    known: dict[str, str] = {}
    taken: set[str] = set()
    scopes: list[str | None] = []
    for call in graph.calls:
        path = None if isinstance(call.operation, FixedFakeQuantize) else paths.get(origin_of(call.name, paths))
        if path is not None and path not in known:
            known[path] = unique_name(_scope_name(path), taken)
            layers[known[path]] = path
        scopes.append(None if path is None else known[path])
    return LayerScopes(graph, tuple(scopes), layers)


def operator_layers(file: TfliteFile, function: Any, scopes: LayerScopes) -> tuple[tuple[str, ...], ...]:
    """Tells which layers each operator of a file computes.

    Args:
        file: what the converter made.
        function: the TensorFlow function that it was made from, as `write_archive` returns it.
        scopes: those that the function was traced with.

    Returns:
        For each of `file.operators` its layers in the order of their computation: several where the converter fused
        them, none where it computes no layer, such as the QUANTIZE of an input. An operator that only changes how
        numbers are stored within the model counts as one of the layer that needs it.
    """
    places = {operation.name: place for place, operation in enumerate(function.graph.get_operations())}
    writers = {id(tensor): index for index, operator in enumerate(file.operators) for tensor in operator.outputs}
    named = [set(_names(operator.outputs, places)) for operator in file.operators]
    uses = Counter(id(tensor) for operator in file.operators for tensor in operator.inputs)
    for names, operator in zip(named, file.operators, strict=True):
        if names.isdisjoint(places):  # it writes an output of the file, which has a name of its own
            names.update(_names([one for one in operator.inputs if one.constant and uses[id(one)] == 1], places))
    for name, tensor in function.structured_outputs.items():
        writer = _computing(file.outputs[name], file.operators, writers)
        operation = _first_in(tensor.op, lambda one: scopes.layer_of(one.name) is not None)
        if writer is not None and operation is not None and not any(operation.name in names for names in named):
            named[writer].add(operation.name)
    for name, index in _unnamed(function, named, scopes).items():
        named[index].add(name)
    layers = []
    for names in named:
        ordered = sorted(names, key=lambda name: (places.get(name, len(places)), name))
        layers.append(tuple(dict.fromkeys(filter(None, map(scopes.layer_of, ordered)))))
    return tuple(_with_conversions(file.operators, layers, writers))


def _layer_paths(model: keras.Model) -> dict[str, str]:
    """The path of each layer of a model, by the name that it has in the model laid flat."""
    graph = read_graph(model)
    outputs = {call.name for call in graph.calls if isinstance(call.operation, NamedOutput)}
    nested = dict(_nested_paths(model, ()))
    paths: dict[str, str] = {}
    for call in graph.calls:
        match call.operation:
            case FakeQuantize() | LearnedFakeQuantize() | FixedFakeQuantize() | KeptInFloat() | NamedOutput():
                continue
            case QuantizeAware() | RoundedOffset() as wrapper:
                paths[wrapper.layer.name] = wrapper.layer.name
            case _ if (name := call.name.removesuffix("_unrounded")) in outputs:  # the rounded output bears its name
                paths |= {call.name: name, name: name}
            case operation:
                paths[call.name] = nested.get(id(operation), call.name)
    return paths


def _nested_paths(model: keras.Model, scope: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    for operation in model.layers if isinstance(model, keras.Sequential) else model.operations:
        path = (*scope, operation.name)
        if isinstance(operation, keras.Model):
            yield from _nested_paths(operation, path)
        else:
            yield id(operation), "/".join(path)


def _scope_name(path: str) -> str:
    scope = re.sub(r"[^A-Za-z0-9_.\-/]", "_", path)
    return scope if re.match(r"[A-Za-z0-9.]", scope) else f"layer{scope}"


def _names(tensors: Iterable[Tensor], known: Collection[str]) -> Iterator[str]:
    """The TensorFlow operations that tensors are named after."""
    for tensor in tensors:
        for name in filter(None, tensor.name.split(";")):
            # The converter numbers a name that it has given already; the operations of a loop are not known.
            stems = (name[:end] for end in range(len(name), len(name.rstrip("0123456789")) - 1, -1))
            yield next((stem for stem in stems if stem in known), name)


def _first_in(operation: Any, accept: Callable[[Any], bool]) -> Any:
    """The operation, or the nearest before it along its first inputs, that is accepted."""
    while not accept(operation):
        if not operation.inputs:
            return None
        operation = operation.inputs[0].op
    return operation


def _computing(tensor: Tensor, operators: tuple[Operator, ...], writers: dict[int, int]) -> int | None:
    """The operator that computes a tensor, before its numbers are stored otherwise."""
    index = writers.get(id(tensor))
    while index is not None and operators[index].name in _CONVERSIONS and operators[index].inputs:
        index = writers.get(id(operators[index].inputs[0]))
    return index


def _unnamed(function: Any, named: list[set[str]], scopes: LayerScopes) -> dict[str, int]:
    """The operators that hold the operations which none is named after.

    That is the operator before it in the graph, in which the converter fused it, unless its layer is that of the
    operator after it.
    """
    owners = {name: index for index, names in enumerate(named) for name in names}
    layers = [{scopes.layer_of(name) for name in names} for names in named]
    inputs = function.inputs[: len(function.inputs) - len(function.captured_inputs)]
    computed = {tensor.op.name for tensor in inputs}  # what is no constant
    before: dict[str, int] = {}
    after: dict[str, int] = {}
    operations = function.graph.get_operations()  # in the order in which they were made
    for operation in operations:
        sources = [tensor.op.name for tensor in operation.inputs if tensor.op.name in computed]
        if sources:
            computed.add(operation.name)
            known = [index for name in sources if (index := owners.get(name, before.get(name))) is not None]
            before |= {operation.name: max(known)} if known else {}
    for operation in reversed(operations):
        readers = [reader.name for tensor in operation.outputs for reader in tensor.consumers()]
        known = [index for name in readers if (index := owners.get(name, after.get(name))) is not None]
        after |= {operation.name: min(known)} if known else {}
    found: dict[str, int] = {}
    for name in computed - owners.keys():
        choices = [index for index in (before.get(name), after.get(name)) if index is not None]
        chosen = [index for index in choices if scopes.layer_of(name) in layers[index]] or choices
        found |= {name: chosen[0]} if chosen else {}
    return found


def _with_conversions(
    operators: tuple[Operator, ...], layers: list[tuple[str, ...]], writers: dict[int, int]
) -> list[tuple[str, ...]]:
    """Gives the operators that no operation of the model stands behind to the layer before them, or after."""
    readers: dict[int, int] = {}
    for index, operator in enumerate(operators):
        for tensor in operator.inputs:
            readers.setdefault(id(tensor), index)
    complete = list(layers)
    for index, operator in enumerate(operators):
        if not complete[index] and operator.name not in {"DEQUANTIZE", "DENSIFY"}:
            before = (complete[writers[id(tensor)]] for tensor in operator.inputs if id(tensor) in writers)
            complete[index] = next((names[-1:] for names in before if names), ())
    for index, operator in reversed(list(enumerate(operators))):
        if not complete[index] and operator.name in {"DEQUANTIZE", "DENSIFY"}:
            after = (complete[readers[id(tensor)]] for tensor in operator.outputs if id(tensor) in readers)
            complete[index] = next((names[:1] for names in after if names), ())
    return complete
