"""A smaller model: the same graph with fewer channels and the weights of those that stay."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfopt.pruning.channel_groups import ChannelGroups
from tfopt.surgery.graph import Call, Copier, copy_call, rebuild

__all__ = ["remove_channels"]


def remove_channels(groups: ChannelGroups, stays: np.ndarray) -> keras.Model:
    """Builds the model without some channels; the given one is left as it is.

    It computes what the given one computes with the weights that read those channels set to zero.

    Args:
        groups: the channels of the model.
        stays: bool of shape `(groups.count,)`; channels of a group with a reason must stay.
    """
    changed = {id(resize.operation) for resize in groups.resizes if not stays[resize.channels].all()}
    sliced = {id(axis.weight) for axis in groups.axes if not stays[axis.channels].all()}
    smaller: dict[int, tuple[keras.Operation, keras.Operation]] = {}

    def visit(call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        operation = call.operation
        weights = operation.weights if isinstance(operation, keras.Layer) else []
        if id(operation) not in changed and sliced.isdisjoint(map(id, weights)):
            return copy_call(call, copy, args, kwargs)
        if id(operation) not in smaller:
            config = {**_for_other_sizes(operation.get_config()), "name": call.name}
            for resize in groups.resizes:
                if resize.operation is operation:
                    resize.change(config, stays[resize.channels])
            smaller[id(operation)] = operation, type(operation).from_config(config)
        return smaller[id(operation)][1](*args, **kwargs)

    model = rebuild(groups.graph, on_call=visit)
    for original, layer in smaller.values():
        if isinstance(original, keras.Layer):
            layer.set_weights([_select(groups, weight, stays) for weight in original.weights])
            if isinstance(layer, keras.layers.Normalization):
                layer.finalize_state()  # it computes with what it derives from its weights
    return model


def _for_other_sizes(config: dict[str, Any]) -> dict[str, Any]:
    """A layer's config without what fits weights of the original sizes only."""
    changed: dict[str, Any] = {}
    for key, value in config.items():
        if key == "build_config":  # a wrapper would build its layers for it at once
            continue
        if isinstance(value, dict):
            # An array to start from, as for pretrained embeddings; the weights are set in any case.
            of_array = value.get("class_name") == "Constant" and not isinstance(value["config"]["value"], (int, float))
            value = "zeros" if of_array else _for_other_sizes(value)
        changed[key] = value
    return changed


def _select(groups: ChannelGroups, weight: keras.Variable, stays: np.ndarray) -> np.ndarray:
    values = keras.ops.convert_to_numpy(weight)
    for axis in groups.axes_of(weight):
        values = np.compress(stays[axis.channels], values, axis=axis.axis)
    return values
