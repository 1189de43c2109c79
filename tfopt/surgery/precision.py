"""Mixed precision is for training: at inference a model is exported in float32, as its weights are stored."""

from __future__ import annotations

from typing import Any

import keras

from tfopt.surgery.graph import Call, Copier, copy_call, read_graph, rebuild

__all__ = ["in_float32"]


def in_float32(model: keras.Model) -> keras.Model:
    """Returns the model computing in float32, or the model itself if it does already.

    Example:
        >>> layer = keras.layers.Dense(3, dtype="mixed_float16")
        >>> model = keras.Sequential([keras.Input((4,)), layer])
        >>> in_float32(model).layers[-1].compute_dtype
        'float32'
    """
    graph = read_graph(model)
    if all(_computes_in_float32(call.operation) for call in graph.calls):
        return model

    def widen(call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer = copy(call.operation)
        if not _computes_in_float32(layer):
            for part in (layer, layer.layer) if isinstance(layer, keras.layers.Wrapper) else (layer,):
                part.dtype_policy = "float32"
        return copy_call(call, copy, args, kwargs)

    return rebuild(graph, on_call=widen)


def _computes_in_float32(operation: keras.Operation) -> bool:
    return not isinstance(operation, keras.Layer) or operation.compute_dtype == "float32"
