"""How long an epoch takes after its last step: TensorFlow waits for the thread that tunes a dataset.

    python benchmarks/epoch_end.py [--data FOLDER] [--rounds 5]

The network is the small CNN of `tfopt demo` on the first images of Fashion-MNIST (FOLDER holds fashion_mnist.npz), as
many as make epochs of very different length. An epoch is one `fit`; its steps are the same, only the input differs:
arrays, a dataset of slices that ends with `prefetch(AUTOTUNE)`, and `tfopt.training_batches`, which gathers the rows of
a batch and is not tuned. All of them take turns. Means count, since not every epoch waits.

Writes benchmarks/results/epoch_end.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfopt.artifact import write_whole
from tfopt.benchmark.machine import this_machine
from tfopt.data import load_npz
from tfopt.demo import small_cnn
from tfopt.training_batches import epoch_batches

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results" / "epoch_end.json"
SAMPLES = (1000, 1500, 2000, 3000, 4000, 6000)
BATCH_SIZE = 32


def tuned(x: np.ndarray, y: np.ndarray) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x)).batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)


WAYS: dict[str, Callable[[keras.Model, np.ndarray, np.ndarray], Any]] = {
    "arrays": lambda model, x, y: model.fit(x, y, batch_size=BATCH_SIZE, verbose=0),
    "autotuned dataset": lambda model, x, y: model.fit(tuned(x, y), shuffle=False, verbose=0),
    "dataset without autotuning": lambda model, x, y: model.fit(
        epoch_batches((x, y), BATCH_SIZE), shuffle=False, verbose=0
    ),
}


def build() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = small_cnn((28, 28, 1), classes=10)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data_folder = os.environ.get("TFOPT_DATA") or ROOT.parents[1] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data_folder)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    data = load_npz(arguments.data / "fashion_mnist.npz")
    x, y = data.x_train[: max(SAMPLES), ..., np.newaxis], data.y_train[: max(SAMPLES)]
    models = {way: build() for way in WAYS}
    for way, fit in WAYS.items():  # traces the graph, for whole batches and the last one
        fit(models[way], x[: BATCH_SIZE + 1], y[: BATCH_SIZE + 1])
    seconds: dict[str, dict[str, list[float]]] = {str(count): {way: [] for way in WAYS} for count in SAMPLES}
    for _ in range(arguments.rounds):
        for count in SAMPLES:
            for way, fit in WAYS.items():
                started = time.perf_counter()
                fit(models[way], x[:count], y[:count])
                seconds[str(count)][way].append(time.perf_counter() - started)
    for count, ways in seconds.items():
        print(count, ", ".join(f"{way} {statistics.mean(values):.2f} s" for way, values in ways.items()), flush=True)
    result = {"machine": this_machine().model_dump(), "batch_size": BATCH_SIZE, "seconds": seconds}
    with write_whole(arguments.out) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
