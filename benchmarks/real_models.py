"""What `tfopt.optimize` does to real models: a Fashion-MNIST CNN trained here, and a trained hand-gesture network.

    python benchmarks/real_models.py [--data FOLDER] [--epochs 8]

FOLDER holds fashion_mnist.npz and hand_gesture/ (README: "Measured"). Writes benchmarks/results/real_models.json.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfopt
from tfopt.callbacks import EarlyStopping, LearningRate, MagnitudePruning
from tfopt.data import ArrayDataset, load_npz
from tfopt.demo import small_cnn
from tfopt.schedules import cosine, warmup

ROOT = Path(__file__).resolve().parent
MAX_DROP = 0.005


def fashion_mnist(folder: Path, epochs: int) -> tuple[keras.Model, ArrayDataset]:
    """The demo's CNN, trained, then pruned to half its weights."""
    data = load_npz(folder / "fashion_mnist.npz")
    steps = len(data.x_train) // 128
    model = small_cnn((28, 28, 1), classes=10)
    for stage, stage_epochs, callbacks in (
        (
            "train",
            epochs,
            [
                LearningRate(warmup(cosine(2e-3, steps=epochs * steps), steps=steps // 2)),
                EarlyStopping("val_accuracy", patience=3, restore_best_weights=True),
            ],
        ),
        (
            "prune",
            2,
            [
                MagnitudePruning(0.5, end_step=int(1.5 * steps), frequency=50),
                LearningRate(cosine(5e-4, steps=2 * steps)),
            ],
        ),
    ):
        print(f"fashion_mnist: {stage}")
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(
            data.x_train,
            data.y_train,
            validation_data=(data.x_test, data.y_test),
            batch_size=128,
            epochs=stage_epochs,
            callbacks=callbacks,
            verbose=2,
        )
    return model, data


def hand_gesture(folder: Path, _: int) -> tuple[keras.Model, ArrayDataset]:
    """The published keypoint classifier and its data; a quarter of the rows is held back for the scores."""
    with gzip.open(folder / "hand_gesture" / "keypoint.csv.gz", "rt") as file:
        rows = np.loadtxt(file, delimiter=",", dtype=np.float32)
    rows = np.random.default_rng(0).permutation(rows)
    x, y = rows[:, 1:], rows[:, 0].astype(np.int64)
    cut = len(rows) * 3 // 4
    model = keras.models.load_model(folder / "hand_gesture" / "keypoint_classifier.hdf5", compile=False)
    return model, ArrayDataset(x[:cut], y[:cut], x[cut:], y[cut:])


def _without_folders(report: dict[str, Any]) -> dict[str, Any]:
    """The files lay in a temporary folder, whose name tells nobody anything."""
    return {**report, "entries": [{**entry, "path": Path(entry["path"]).name} for entry in report["entries"]]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parents[1] / "shared" / "data")
    parser.add_argument("--epochs", type=int, default=8)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    results = {}
    for build in (fashion_mnist, hand_gesture):
        model, data = build(arguments.data, arguments.epochs)
        started = time.perf_counter()
        result = tfopt.optimize(
            model,
            (data.x_train, data.y_train),
            (data.x_test, data.y_test),
            max_drop=MAX_DROP,
            out=tempfile.mkdtemp(prefix="tfopt-real-models-"),
        )
        print(result)
        results[build.__name__] = {
            "description": (build.__doc__ or "").strip(),
            "parameters": model.count_params(),
            "optimize_seconds": round(time.perf_counter() - started, 1),
            "max_drop": MAX_DROP,
            "chosen": result.artifact.path.name,
            "report": _without_folders(json.loads(result.report.model_dump_json())),
        }
    path = ROOT / "results" / "real_models.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"Wrote {path}; python benchmarks/render.py puts it into the README.")


if __name__ == "__main__":
    main()
