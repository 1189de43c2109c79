"""Accuracy, size and latency of the files of benchmarks/scoreboard.py: by one runner, whichever tool wrote them."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from export_files import Samples, scores, timed_call
from scoreboard_task import Method, Row, Task

from tfopt.benchmark.protocol import measure

__all__ = ["METHODS"]

BATCH_SIZE = 500
REPEATS = 100
SECONDS = 0.5


def samples_of(task: Task) -> Samples:
    data = task.data
    return Samples([data["x_test"]], [data["y_test"]], [np.load(task.folder / "float.npy")], [])


def saved_model_call(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]

    def call(x: np.ndarray) -> np.ndarray:
        (output,) = signature(**{name: tf.constant(x)}).values()
        return output.numpy()

    call.loaded = loaded  # type: ignore[attr-defined]  # its functions live no longer than it does
    return call


def score(task: Task) -> Row:
    """How often a file is right on the test set, how often it says what the float network says, and its size."""
    path, samples = task.folder / task.files[0], samples_of(task)
    parts = [path] if path.is_file() else [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    contents = [part.read_bytes() for part in parts]
    found: Row = {
        "size_bytes": sum(map(len, contents)),
        "gzip_bytes": sum(len(gzip.compress(content, 9, mtime=0)) for content in contents),
    }
    if path.is_file():
        of_file = scores(path, samples)
        return found | {"accuracy": of_file["accuracy"][0], "top1_agreement": of_file["top1_agreement"]}
    call, (x,), (y,), (answers,) = saved_model_call(path), samples.x, samples.y, samples.answers
    received = np.concatenate([call(x[start : start + BATCH_SIZE]) for start in range(0, len(x), BATCH_SIZE)])
    classes = received.argmax(-1)
    agreement = float(np.mean(classes == answers.argmax(-1)))
    return found | {"accuracy": float(np.mean(classes == y)), "top1_agreement": agreement}


def time_files(task: Task) -> Row:
    """One sample at a time on one thread, all files in turns."""
    samples, calls = samples_of(task), dict[str, Callable[[], object]]()
    for name in task.files:
        path = task.folder / name
        if path.is_file():
            calls[name] = timed_call(path, samples)
        else:
            calls[name] = _first_sample(saved_model_call(path), samples)
    timings = measure(calls, repeats=REPEATS, seconds=SECONDS)
    return {name: {"p50_ms": timing.p50_ms, "settled": timing.settled} for name, timing in timings.items()}


def _first_sample(call: Callable[[np.ndarray], np.ndarray], samples: Samples) -> Callable[[], Any]:
    first = samples.x[0][:1]
    return lambda: call(first)


METHODS: dict[str, Method] = {"score": score, "time": time_files}
