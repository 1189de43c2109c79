"""Rewriting a layer into the elementary ones it consists of: new names, shared parts, operations with a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import keras

from tfopt.surgery.graph import Call, Copier, Graph, Value, read_graph, unique_name

__all__ = ["Rewrite", "Rewriting"]

T = TypeVar("T")


class Rewriting:
    """What the rewrites of one graph share: the names in use, and the layers that a shared layer became.

    Args:
        graph: what is rewritten.

    Attributes:
        masked: whether the call at hand takes tensors with Keras masks; operations (unlike layers) lose them.
    """

    def __init__(self, graph: Graph) -> None:
        self.masked = False
        self._taken = {*graph.input_names, *(call.name for call in graph.calls)}
        self._parts: dict[int, Any] = {}
        self._renamed: set[str] = set()

    def name(self, call: Call) -> str:
        """The name of what takes a call's place: the call's own, with a number from its second use on."""
        if call.name in self._renamed:
            return self.unique(call.name)
        self._renamed.add(call.name)
        return call.name

    def unique(self, name: str) -> str:
        """The name, with a number where it is taken; it is taken from then on."""
        return unique_name(name, self._taken)

    def once(self, layer: keras.Layer, make: Callable[[], T]) -> T:
        """What a layer with weights became: made at its first use, the same at every other."""
        if id(layer) not in self._parts:
            self._parts[id(layer)] = make()
        return self._parts[id(layer)]

    def apply(self, function: Callable[..., Any], *tensors: Any, name: str) -> Any:
        """Applies a function of `keras.ops` as an operation of a given name.

        Keras numbers its operations by itself, and would take names that the graph has already.
        """
        inputs = [keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype) for tensor in tensors]
        graph = read_graph(keras.Model(inputs, function(*inputs)))
        [call] = graph.calls
        known = dict(zip(graph.inputs, tensors, strict=True))
        args, kwargs = keras.tree.map_structure(
            lambda leaf: known[leaf] if isinstance(leaf, Value) else leaf, (call.args, call.kwargs)
        )
        return type(call.operation).from_config({**call.operation.get_config(), "name": name})(*args, **kwargs)


Rewrite = Callable[[Call, Copier, tuple[Any, ...], dict[str, Any], Rewriting], Any]
"""From a call, the copier of layers and the arguments to the outputs of what takes the call's place; None: it stays."""
