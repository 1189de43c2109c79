"""Half the FLOPs removed as whole channels: what is left of latency and accuracy after fine-tuning.

`measure_channel_pruning` is for benchmarks/compression.py.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from small_networks import NETWORKS
from worker_files import load_data

import tfopt
from tfopt.callbacks import LearningRate
from tfopt.schedules import cosine
from tfopt.surgery.flops import costs

__all__ = ["measure_channel_pruning"]


def measure_channel_pruning(path: Path, settings: dict[str, Any], *, seed: int) -> dict[str, Any]:
    """Trains a network, prunes its channels, fine-tunes it, and measures the files of both in one run.

    Args:
        path: the data, an .npz.
        settings: the network, the target, and the epochs and rates of "train" and "fine_tune".
        seed: of the initial weights and the order of the samples.
    """
    started = time.perf_counter()
    data = load_data(str(path))
    keras.utils.set_random_seed(seed)
    model = NETWORKS[settings["network"]](keras, data["x_train"].shape[1:], int(data["y_train"].max()) + 1)
    _fit(model, data, settings["train"])
    x = data["x_train"][:512]
    pruned = tfopt.prune_channels(
        model,
        target=settings["target"],
        importance=settings["importance"],
        multiple_of=settings["multiple_of"],
    )
    before = _accuracy(pruned, data)
    _fit(pruned, data, settings["fine_tune"])
    files: dict[str, Path] = {}
    with tempfile.TemporaryDirectory(prefix="tfopt-channels-") as folder:
        for name, one in (("dense", model), ("pruned", pruned)):
            for quantization in ("none", "int8"):
                file = Path(folder, f"{name}_{quantization}.tflite")
                tfopt.export_tflite(one, file, quantization, calibration=x)
                files[f"{name}_{quantization}"] = file
        report = tfopt.benchmark(
            files, (data["x_test"], data["y_test"]), threads=(1,), repeats=500, seconds=2.0, progress=False
        )
    rows = {
        entry.name: {"accuracy": entry.score, "size_bytes": entry.size_bytes, "p50_ms": entry.latencies[0].p50_ms}
        for entry in report.entries
    }
    found = {
        "seed": seed,
        "files": rows,
        "accuracy_before_fine_tuning": before,
        "flops_ratio": costs(pruned).flops / costs(model).flops,
        "parameters": [model.count_params(), pruned.count_params()],
        "latency_ratio": {
            quantization: rows[f"pruned_{quantization}"]["p50_ms"] / rows[f"dense_{quantization}"]["p50_ms"]
            for quantization in ("none", "int8")
        },
        "accuracy_change": {
            quantization: rows[f"pruned_{quantization}"]["accuracy"] - rows[f"dense_{quantization}"]["accuracy"]
            for quantization in ("none", "int8")
        },
        "seconds": time.perf_counter() - started,
    }
    keras.backend.clear_session()
    return found


def _fit(model: keras.Model, data: dict[str, np.ndarray], how: dict[str, Any]) -> None:
    steps = how["epochs"] * -(-len(data["x_train"]) // how["batch_size"])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(
        data["x_train"],
        data["y_train"],
        batch_size=how["batch_size"],
        epochs=how["epochs"],
        verbose=0,
        callbacks=[LearningRate(cosine(how["learning_rate"], steps=steps))],
    )


def _accuracy(model: keras.Model, data: dict[str, np.ndarray]) -> float:
    return float(np.mean(model.predict(data["x_test"], batch_size=500, verbose=0).argmax(axis=-1) == data["y_test"]))
