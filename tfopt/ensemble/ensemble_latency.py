"""How long ensembles of several sizes take, measured in turns."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from tfopt.benchmark.protocol import measure
from tfopt.benchmark.tflite import TfliteRunner
from tfopt.export.signature import call_flat
from tfopt.export.tflite import export_tflite

__all__ = ["Runtime", "latencies_ms"]

Runtime = Literal["keras", "tflite"]


def latencies_ms(
    models: Mapping[int, keras.Model], samples: Sequence[np.ndarray], *, runtime: Runtime, seconds: float
) -> dict[int, float]:
    """The median time of one inference of each model, in milliseconds.

    Args:
        models: what to time, by a number of the caller's.
        samples: one array for each input, of as many samples as an inference takes; for "tflite" the first counts.
        runtime: "keras": a compiled `tf.function`, at TensorFlow's thread counts; "tflite": a float32 .tflite on one
            thread.
        seconds: in which inferences of each are recorded, at least.
    """
    with tempfile.TemporaryDirectory() as folder:
        calls = {
            number: _compiled(model, samples)
            if runtime == "keras"
            else _interpreted(model, samples, Path(folder, f"{number}.tflite"))
            for number, model in models.items()
        }
        timings = measure(calls, repeats=30, seconds=seconds)
    return {number: timing.p50_ms for number, timing in timings.items()}


def _compiled(model: keras.Model, samples: Sequence[np.ndarray]) -> Callable[[], object]:
    tensors = [tf.constant(array, tensor.dtype) for array, tensor in zip(samples, model.inputs, strict=True)]
    function: Any = tf.function(lambda *given: call_flat(model, given)).get_concrete_function(*tensors)
    return lambda: [output.numpy() for output in function(*tensors)]


def _interpreted(model: keras.Model, samples: Sequence[np.ndarray], path: Path) -> Callable[[], object]:
    calibration: Any = dict(zip([tensor.name for tensor in model.inputs], samples, strict=True))
    artifact = export_tflite(model, path, "none", calibration=calibration)
    runner = TfliteRunner(path, [1], record=artifact)
    return runner.timed_calls([array[:1] for array in samples])[1]
