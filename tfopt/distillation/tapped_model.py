"""A model that is run once and gives, beside its output, what layers within it compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from tfopt.distillation.logits_source import LogitsSource, find_logits
from tfopt.errors import ConfigError
from tfopt.surgery.graph import Call, Graph, Value, read_graph

__all__ = ["Tap", "TappedModel"]


class Tap(NamedTuple):
    """What to read from a model.

    Args:
        layer_name: the layer whose output it is, with the names of nested models before it; None is the model's output.
        on_logits: whether class logits are wanted.
        from_logits: whether the layer gives logits; None means to find out.
    """

    layer_name: str | None = None
    on_logits: bool = False
    from_logits: bool | None = None


@dataclass(frozen=True, eq=False)
class _Source:
    """What Keras must not see as part of the layer: the model is not its own."""

    model: keras.Model
    inputs: keras.Model | None
    graph: Graph | None
    calls: tuple[Call, ...]
    taps: tuple[LogitsSource | None, ...]


class TappedModel(keras.layers.Layer):
    """Runs a model's layers, each once, and gives what they compute.

    Runs the layers of a Functional or Sequential model themselves, nested ones included: their weights, losses and
    states are used and updated as when the model is called. Nothing is added to the model. What no tap depends on is
    not run.

    Args:
        model: a built model. Of a subclassed one, whose layers only its own code calls, only the output can be read.
        taps: what to give.
        with_output: whether to give the model's output too.

    Call arguments:
        inputs: what the model takes.

    Returns:
        The output (None without `with_output`), and the list of what the taps read.

    Raises:
        ConfigError: if a layer is not there, or is called several times; if a model has several outputs and none is
            chosen; if it cannot be told whether there are logits.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden"), keras.layers.Dense(2)])
        >>> output, (hidden,) = TappedModel(model, [Tap("hidden")])(ops.ones((1, 4)))
        >>> tuple(output.shape), tuple(hidden.shape)
        ((1, 2), (1, 3))
    """

    def __init__(self, model: keras.Model, taps: Sequence[Tap], *, with_output: bool = True) -> None:
        super().__init__(autocast=False)
        self._source = _read(model, taps, with_output)
        self._with_output = with_output
        self._logarithms = [
            # A layer, because it passes the mask of padded steps on.
            keras.layers.Activation(_Logarithm(source.value.dtype), dtype="float32")
            if source is not None and source.after_softmax
            else None
            for source in self._source.taps
        ]
        self.built = True

    @property
    def shapes(self) -> list[tuple[int | None, ...] | None]:
        """The shape of what each tap reads; None where it is not known."""
        return [None if source is None else source.value.shape for source in self._source.taps]

    def call(self, inputs: Any) -> tuple[Any, list[Any]]:
        """Runs the model."""
        source = self._source
        if source.graph is None or source.inputs is None:
            output = source.model(inputs)
            return output, [output for _ in source.taps]
        tensors = dict(
            zip(keras.tree.flatten(source.graph.inputs), keras.tree.flatten(source.inputs(inputs)), strict=True)
        )

        def lookup(leaf: Any) -> Any:
            return tensors[leaf] if isinstance(leaf, Value) else leaf

        for call in source.calls:
            args, kwargs = keras.tree.map_structure(lookup, (call.args, call.kwargs))
            if isinstance(call.operation, keras.Layer):
                # Recorded when the model was built; as in the model itself, what counts is how it is called now.
                kwargs.pop("training", None)
            outputs = call.operation(*args, **kwargs)
            tensors |= zip(keras.tree.flatten(call.outputs), keras.tree.flatten(outputs), strict=True)
        features = [tensors[tap.value] for tap in source.taps if tap is not None]
        features = [
            tensor if logarithm is None else logarithm(tensor)
            for tensor, logarithm in zip(features, self._logarithms, strict=True)
        ]
        return keras.tree.map_structure(lookup, source.graph.outputs) if self._with_output else None, features


class _Logarithm:
    """Of probabilities, bounded so that neither it nor its gradient is infinite."""

    def __init__(self, dtype: str) -> None:
        self.smallest = {"float16": 6.2e-5, "bfloat16": 1e-30}.get(dtype, float(np.finfo(np.float32).tiny))

    def __call__(self, probabilities: Any) -> Any:
        return ops.log(ops.maximum(probabilities, self.smallest))


def _read(model: keras.Model, taps: Sequence[Tap], with_output: bool) -> _Source:
    if not isinstance(model, (keras.Sequential, keras.Function)):
        for tap in taps:
            if tap.layer_name is not None:
                raise ConfigError(
                    f"The layer '{tap.layer_name}' of '{model.name}' cannot be read: the model is subclassed "
                    f"({type(model).__name__}), so its layers are called by its own code. Build it as a Functional "
                    "model."
                )
            if tap.on_logits and tap.from_logits is not True:
                raise ConfigError(
                    f"Whether the subclassed model '{model.name}' ({type(model).__name__}) gives logits cannot be told "
                    f"from it. Received: from_logits={tap.from_logits}. Pass student_from_logits=True or "
                    "teacher_from_logits=True to the loss if it does; if it ends in a softmax, leave that out of it."
                )
        return _Source(model, None, None, (), tuple(None for _ in taps))
    graph = read_graph(model)
    sources = tuple(_find(model, graph, tap) for tap in taps)
    wanted = {source.value for source in sources}
    if with_output:
        wanted.update(keras.tree.flatten(graph.outputs))
    symbolic = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return _Source(model, keras.Model(symbolic, symbolic), graph, _needed(graph, wanted), sources)


def _needed(graph: Graph, wanted: set[Value]) -> tuple[Call, ...]:
    needed: list[Call] = []
    for call in reversed(graph.calls):
        if not wanted.isdisjoint(keras.tree.flatten(call.outputs)):
            needed.append(call)
            wanted.update(call.inputs)
    return tuple(reversed(needed))


def _find(model: keras.Model, graph: Graph, tap: Tap) -> LogitsSource:
    value = _output(model, graph) if tap.layer_name is None else _layer_output(model, graph, tap.layer_name)
    if not tap.on_logits or tap.from_logits is True:
        return LogitsSource(value, after_softmax=False)
    return LogitsSource(value, after_softmax=True) if tap.from_logits is False else find_logits(graph, value)


def _output(model: keras.Model, graph: Graph) -> Value:
    outputs = keras.tree.flatten(graph.outputs)
    if len(outputs) > 1:
        names = ", ".join(
            call.name for call in graph.calls if not set(outputs).isdisjoint(keras.tree.flatten(call.outputs))
        )
        raise ConfigError(
            f"The model '{model.name}' has {len(outputs)} outputs: name the layer to compare with student_layer_name "
            f"and teacher_layer_name. Its last layers: {names}."
        )
    return outputs[0]


def _layer_output(model: keras.Model, graph: Graph, path: str) -> Value:
    layer: Any = model
    for name in path.split("/"):
        layer = next((part for part in getattr(layer, "layers", ()) if part.name == name), None)
    if isinstance(layer, (keras.Sequential, keras.Function)):
        nested = read_graph(layer)
        output = _output(layer, nested)
        layer = next((call.operation for call in nested.calls if output in keras.tree.flatten(call.outputs)), None)
    calls = [call for call in graph.calls if call.operation is layer]
    if len(calls) != 1:
        problem = "has no layer" if not calls else f"calls {len(calls)} times the layer"
        raise ConfigError(
            f"The model '{model.name}' {problem} '{path}', so its output cannot be compared. "
            f"Available: {', '.join(_paths(model, graph))}."
        )
    return calls[0].output


def _paths(model: keras.Model, graph: Graph) -> list[str]:
    called = {id(call.operation) for call in graph.calls}
    paths = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            paths += [f"{layer.name}/{path}" for path in _paths(layer, graph)]
        elif id(layer) in called:
            paths.append(layer.name)
    return paths
