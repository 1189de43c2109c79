"""Pooling over steps as pooling over the rows of an image that has one."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from tfopt.surgery.graph import Call, Copier
from tfopt.surgery.rewriting import Rewriting

__all__ = ["split_pooling_of_steps"]

_OF_IMAGES = {layers.MaxPooling1D: layers.MaxPooling2D, layers.AveragePooling1D: layers.AveragePooling2D}


def split_pooling_of_steps(
    call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any], rewriting: Rewriting
) -> Any:
    """Makes a 2-D pooling `NAME_rows` between two reshapes, the last one `NAME`, of a pooling over steps.

    TensorFlow expands and squeezes the tensor around either; the converter merges the expansions of a tensor that both
    read, and then leaves one of the two in float (TensorFlow 2.21).
    """
    layer, [steps] = call.operation, [*args, *kwargs.values()]
    if layer.data_format != "channels_last":
        return None
    channels = steps.shape[-1]
    pooling = _OF_IMAGES[type(layer)](
        (1, *layer.pool_size),
        strides=(1, *layer.strides),
        padding=layer.padding,
        dtype=layer.dtype_policy,
        name=rewriting.unique(f"{call.name}_rows"),
    )

    def reshape(shape: tuple[int, ...], name: str) -> keras.Layer:
        return layers.Reshape(shape, dtype=layer.dtype_policy, name=name)

    rows = reshape((1, -1, channels), rewriting.unique(f"{call.name}_image"))(steps)
    return reshape((-1, channels), rewriting.name(call))(pooling(rows))
