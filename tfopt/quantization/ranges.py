"""Activation ranges from data: what each tensor of a quantize-aware model reaches on calibration samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tfopt.errors import DataError
from tfopt.quantization.layers import FakeQuantize, LearnedFakeQuantize
from tfopt.quantization.range_search import Histogram, entropy_range, mse_range, percentile_range
from tfopt.quantization.spec import activation_steps
from tfopt.recipe import RangeMethod
from tfopt.surgery.graph import Call, Copier, copy_call, read_graph, rebuild

__all__ = ["calibrate"]


def calibrate(
    model: keras.Model, samples: list[np.ndarray], *, method: RangeMethod = "min_max", batch_size: int = 32
) -> None:
    """Sets every range of a quantize-aware model to what samples reach, or to the part of it that is worth a grid.

    The activations run in float meanwhile, so that one layer's rounding does not narrow the next one's range. Tensors
    that share a range are searched one by one, and the range holds the results of all.

    Args:
        model: a model made by `quantize_aware`; its ranges are set in place.
        samples: one checked array of shape `(n, ...)` per input.
        method: "min_max": all values; "percentile": all but 0.005 % of the values at either end; "mse": the range
            with the least squared error of rounding and clipping; "entropy": the one that loses the least
            information. All but the first run the samples twice.
        batch_size: samples per forward pass.

    Raises:
        DataError: if samples lead to values that are not finite.

    References:
        Wu et al. 2020, arXiv:2004.09602, section 4.2.
    """
    observed: list[tuple[FakeQuantize | LearnedFakeQuantize, int]] = []
    tensors: list[Any] = []

    def observe(call: Call, copy: Copier, args: Any, kwargs: Any) -> Any:
        if not isinstance(call.operation, (FakeQuantize, LearnedFakeQuantize)):
            return copy_call(call, copy, args, kwargs)
        observed.append((call.operation, kwargs["member"]))
        tensors.append(args[0])
        return args[0], 0.0  # no grid: biases stay as they are, too

    float_model = rebuild(read_graph(model), on_call=observe)

    if not observed:  # a model of float activations
        return

    # It ends at the tensors: an operation put behind them could have the name of one of the user's layers.
    probe = keras.Model(float_model.inputs, tensors)

    def run() -> Iterator[list[np.ndarray]]:
        for start in range(0, len(samples[0]), batch_size):
            batch = [array[start : start + batch_size] for array in samples]
            # A model of one output gives it without a list around it.
            yield [np.asarray(values, np.float32) for values in keras.tree.flatten(probe(batch, training=False))]

    reached = np.array([[(values.min(), values.max()) for values in batch] for batch in run()])
    minima, maxima = reached[..., 0].min(axis=0), reached[..., 1].max(axis=0)
    ranges = list(zip(minima.tolist(), maxima.tolist(), strict=True))
    for (layer, _), extremes in zip(observed, ranges, strict=True):
        if not np.all(np.isfinite(extremes)):
            raise DataError(
                f"calibration data must lead to finite activations. Received: values from {extremes[0]} to "
                f"{extremes[1]} at '{layer.name}'. Check that the samples are scaled as in training."
            )
    if method != "min_max":
        histograms = [Histogram(*extremes) for extremes in ranges]
        for batch in run():
            for histogram, values in zip(histograms, batch, strict=True):
                histogram.add(values)
        ranges = [
            _search(histogram, method, steps=activation_steps(layer.bits))
            for histogram, (layer, _) in zip(histograms, observed, strict=True)
        ]
    for (layer, member), (minimum, maximum) in zip(observed, ranges, strict=True):
        layer.start_at(minimum, maximum, member=member)


def _search(histogram: Histogram, method: RangeMethod, *, steps: int) -> tuple[float, float]:
    match method:
        case "percentile":
            return percentile_range(histogram)
        case "mse":
            return mse_range(histogram, steps=steps)
        case "entropy":
            return entropy_range(histogram, steps=steps)
    raise ValueError(f"{method!r} is no way to set a range.")
