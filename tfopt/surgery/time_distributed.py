"""A layer applied to every step of a sequence, as that layer with the steps taken for samples."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfopt.surgery.graph import Call, Copier
from tfopt.surgery.rewriting import Rewriting

__all__ = ["unroll_time_distributed"]


def unroll_time_distributed(
    call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any], rewriting: Rewriting
) -> Any:
    """Takes `(n, steps, ...)` for `(n * steps, ...)`, or applies a Dense layer to the last axis as it stands."""
    layer, x = call.operation.layer, args[0]
    if isinstance(layer, keras.layers.Dense):
        return copy(layer, name=call.name)(x)
    steps, *shape = x.shape[1:]
    if None in (steps, *shape):
        return None
    samples = rewriting.apply(lambda x: ops.reshape(x, (-1, *shape)), x, name=rewriting.unique(f"{call.name}_samples"))

    def in_steps(outputs: Any) -> Any:
        name = rewriting.unique(f"{call.name}_steps")
        return rewriting.apply(lambda y: ops.reshape(y, (-1, steps, *y.shape[1:])), outputs, name=name)

    return keras.tree.map_structure(in_steps, copy(layer, name=call.name)(samples))
