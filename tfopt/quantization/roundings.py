"""The roundings of a quantize-aware model: which layer each belongs to, and the model with only some of them on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import keras
import numpy as np
from keras import ops

from tfopt.quantization.layers import (
    SCALE_ARGUMENTS,
    FakeQuantize,
    FixedFakeQuantize,
    LearnedFakeQuantize,
    NamedOutput,
    QuantizeAware,
)
from tfopt.quantization.rounded_offset import RoundedOffset
from tfopt.quantization.strip import call_unwrapped
from tfopt.surgery.graph import Call, Copier, Graph, Value, copy_call, rebuild

__all__ = ["MODEL_OUTPUT", "RoundedLayer", "SwitchableModel", "rounded_layers"]

MODEL_OUTPUT = ""
"""Among the readers of a layer's output: the model's own output."""

_WRAPPERS = (QuantizeAware, RoundedOffset)
_ROUNDINGS = (FakeQuantize, LearnedFakeQuantize, FixedFakeQuantize)


@dataclass(eq=False)
class RoundedLayer:
    """A layer with what is fused into it or passes its output on, and the roundings of it all.

    Args:
        kind: the layer's class.
        names: the layer's, then those of the others.
        weights: the layers with rounded weights.
        roundings: the calls that round outputs.
        readers: the layers that read an output; None is the model's output.
    """

    kind: str
    names: list[str] = field(default_factory=list)
    weights: list[QuantizeAware] = field(default_factory=list)
    roundings: list[Call] = field(default_factory=list)
    readers: set[RoundedLayer | None] = field(default_factory=set)


def rounded_layers(graph: Graph) -> list[RoundedLayer]:
    """Assigns each rounding of a quantize-aware graph to a layer, in the order of the graph.

    A layer begins where weights are rounded, or where rounded tensors are read and the result is rounded again. What
    comes between it and its rounding (batch norm, ReLU) is fused into it; what hands its rounded output on
    unchanged (max-pooling, Flatten) is part of it too. The inputs of the model come first, as layers of their own.
    """
    owners: dict[Value, RoundedLayer] = {}
    found: dict[int, RoundedLayer] = {}  # by the id of the operation, since a layer may be shared
    settled: set[Value] = set()  # what a layer may begin from: inputs, and what is rounded
    for value, name in zip(keras.tree.flatten(graph.inputs), graph.input_names, strict=True):
        owners[value] = RoundedLayer("InputLayer", [name])
        found[id(value)] = owners[value]
        settled.add(value)
    for call in graph.calls:
        operation = call.operation
        sources = [
            value
            for value in dict.fromkeys(call.inputs)
            if not any(value is call.kwargs.get(name) for name in SCALE_ARGUMENTS)
        ]
        owner = owners[sources[0]]
        if isinstance(operation, _ROUNDINGS):
            owner.roundings.append(call)
            settled.add(call.output)
        elif not isinstance(operation, NamedOutput):
            is_rounded = any(
                isinstance(reader.operation, _ROUNDINGS) for reader in graph.consumers.get(call.output, [])
            )
            if isinstance(operation, QuantizeAware) or (is_rounded and (len(sources) > 1 or sources[0] in settled)):
                layer = operation.layer if isinstance(operation, _WRAPPERS) else operation
                owner = found.setdefault(id(operation), RoundedLayer(type(layer).__name__))
                if isinstance(operation, QuantizeAware) and operation not in owner.weights:
                    owner.weights.append(operation)
            name = operation.layer.name if isinstance(operation, _WRAPPERS) else call.name
            owner.names.append(name.removesuffix("_unrounded"))
            for source in sources:
                if owners[source] is not owner:
                    owners[source].readers.add(owner)
        owners.update(dict.fromkeys(keras.tree.flatten(call.outputs), owner))
    for value in keras.tree.flatten(graph.outputs):
        owners[value].readers.add(None)
    return list(found.values())


class SwitchableModel:
    """A quantize-aware model in which every rounding can be on or off, without tracing it anew.

    Args:
        graph: the model's.
    """

    def __init__(self, graph: Graph) -> None:
        self._switches: dict[Call, _Switched] = {}
        layers: list[tuple[QuantizeAware, keras.Layer]] = []

        def open_up(call: Call, copy: Copier, args: Any, kwargs: Any) -> Any:
            match call.operation:
                case QuantizeAware() as wrapper:
                    layers.append((wrapper, copy(wrapper.layer)))
                    return call_unwrapped(call, copy, args, kwargs)
                case RoundedOffset():
                    return call_unwrapped(call, copy, args, kwargs)
                case FakeQuantize() | LearnedFakeQuantize() | FixedFakeQuantize() as rounding:
                    self._switches[call] = _Switched(copy(rounding), dtype=rounding.dtype_policy)
                    return self._switches[call](*args, **kwargs), None
                case NamedOutput():  # its name is that of a layer, which is no longer wrapped
                    return args[0]
            return copy_call(call, copy, args, kwargs)

        model = rebuild(graph, on_call=open_up)
        self._model = keras.Model(model.inputs, keras.tree.flatten(model.outputs))
        self._weights = {
            wrapper: [
                (attrgetter(name)(layer), np.asarray(attrgetter(name)(wrapper.layer)), np.asarray(rounded))
                for name, rounded in wrapper.rounded_weights().items()
            ]
            for wrapper, layer in layers
        }

    def predict(self, samples: list[np.ndarray], on: Iterable[QuantizeAware | Call] = ()) -> list[np.ndarray]:
        """The outputs, one float64 array each.

        Args:
            samples: one array per input.
            on: the weights and the outputs to round; all else is in float.
        """
        on = list(on)
        try:
            for rounding in on:
                self._set(rounding, on=True)
            outputs = self._model.predict(samples, verbose=0)
        finally:
            for rounding in on:
                self._set(rounding, on=False)
        return [np.asarray(array, np.float64) for array in keras.tree.flatten(outputs)]

    def _set(self, rounding: QuantizeAware | Call, *, on: bool) -> None:
        if isinstance(rounding, Call):
            self._switches[rounding].on.assign(float(on))
        else:
            for variable, original, rounded in self._weights[rounding]:
                variable.assign(rounded if on else original)


class _Switched(keras.layers.Layer):
    """Rounds activations while its switch is on."""

    def __init__(self, rounding: keras.Layer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rounding = rounding
        self.on = self.add_weight(name="on", shape=(), initializer="zeros", trainable=False, autocast=False)
        self.built = True

    def call(self, x: Any, **kwargs: Any) -> Any:
        return ops.cond(self.on > 0, lambda: self.rounding(x, **kwargs)[0], lambda: x)

    def compute_output_shape(self, input_shape: Any, **_: Any) -> Any:
        return input_shape
