"""Activation ranges from data: what each tensor of a quantize-aware model reaches on calibration samples."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfopt.quantization.layers import FakeQuantize, LearnedFakeQuantize
from tfopt.surgery.graph import Call, Copier, copy_call, read_graph, rebuild

__all__ = ["calibrate"]


def calibrate(model: keras.Model, samples: list[np.ndarray], *, method: str = "min_max", batch_size: int = 32) -> None:
    """Sets every range of a quantize-aware model to the smallest and largest value that samples reach.

    The activations run in float meanwhile, so that one layer's rounding does not narrow the next one's range.

    Args:
        model: a model made by `quantize_aware`; its ranges are set in place.
        samples: one checked array of shape `(n, ...)` per input.
        batch_size: samples per forward pass.
    """
    observed: list[tuple[FakeQuantize | LearnedFakeQuantize, int]] = []
    extremes: list[Any] = []

    def observe(call: Call, copy: Copier, args: Any, kwargs: Any) -> Any:
        if not isinstance(call.operation, (FakeQuantize, LearnedFakeQuantize)):
            return copy_call(call, copy, args, kwargs)
        observed.append((call.operation, kwargs["member"]))
        extremes.append([keras.ops.min(args[0]), keras.ops.max(args[0])])
        return args[0]

    float_model = rebuild(read_graph(model), on_call=observe)
    probe = keras.Model(float_model.inputs, extremes)
    batches = [
        np.asarray(keras.tree.flatten(probe([array[start : start + batch_size] for array in samples], training=False)))
        for start in range(0, len(samples[0]), batch_size)
    ]
    reached = np.stack(batches).reshape(len(batches), -1, 2)
    minima, maxima = reached[..., 0].min(axis=0), reached[..., 1].max(axis=0)
    for (layer, member), minimum, maximum in zip(observed, minima, maxima, strict=True):
        layer.start_at(minimum, maximum, member=member)
