"""Wide Dense layers pruned in blocks: their files with and without the zeros, measured beside each other.

`measure_sparse_inference` is for benchmarks/compression.py.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import keras
from worker_files import load_data

import tfopt
from tfopt.callbacks import MagnitudePruning

__all__ = ["measure_sparse_inference"]

BLOCKS = {"none": (1, 4), "int8": (1, 16)}
"""What TFLite's sparse kernels take, by quantization."""
WIDTH = 1024
SETTINGS = {"epochs": 3, "batch_size": 128}


def measure_sparse_inference(path: Path, *, sparsities: tuple[float, ...] = (0.8, 0.9)) -> dict[str, Any]:
    """Trains a perceptron while it is pruned, and measures it dense and sparse in one run.

    Args:
        path: the data, an .npz of images.
        sparsities: share of zeros.
    """
    data = load_data(str(path))
    shape, classes = data["x_train"].shape[1:], int(data["y_train"].max()) + 1
    steps = SETTINGS["epochs"] * -(-len(data["x_train"]) // SETTINGS["batch_size"])
    rows = []
    for quantization, block in BLOCKS.items():
        for sparsity in sparsities:
            keras.utils.set_random_seed(0)
            layers = keras.layers
            model = keras.Sequential(
                [
                    keras.Input(shape),
                    layers.Flatten(),
                    layers.Dense(WIDTH, activation="relu"),
                    layers.Dense(WIDTH, activation="relu"),
                    layers.Dense(classes),
                ]
            )
            model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
            prune = MagnitudePruning(sparsity, end_step=round(0.7 * steps), frequency=50, block=block)
            model.fit(data["x_train"], data["y_train"], verbose=0, callbacks=[prune], **SETTINGS)
            with tempfile.TemporaryDirectory(prefix="tfopt-sparse-") as folder:
                artifacts = {
                    name: tfopt.export_tflite(
                        model,
                        Path(folder, f"{name}.tflite"),
                        quantization,
                        calibration=data["x_train"][:512],
                        sparse_weights=name == "sparse",
                    )
                    for name in ("dense", "sparse")
                }
                report = tfopt.benchmark(
                    artifacts, (data["x_test"], data["y_test"]), threads=(1,), repeats=500, seconds=2.0, progress=False
                )
            dense, sparse = (
                {"accuracy": entry.score, "size_bytes": entry.size_bytes, "p50_ms": entry.latencies[0].p50_ms}
                for entry in report.entries
            )
            rows.append(
                {
                    "quantization": quantization,
                    "block": block,
                    "sparsity": sparsity,
                    "dense": dense,
                    "sparse": sparse,
                    "latency_ratio": sparse["p50_ms"] / dense["p50_ms"],
                    "size_ratio": sparse["size_bytes"] / dense["size_bytes"],
                }
            )
            print(
                f"sparse inference, {quantization}, {sparsity:.0%}: {rows[-1]['latency_ratio']:.2f}× dense", flush=True
            )
    return {"settings": {**SETTINGS, "width": WIDTH}, "rows": rows}
