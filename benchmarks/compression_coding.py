"""Deep Compression's three stages on a Fashion-MNIST CNN: prune 80 %, share 16 values, Huffman codes.

    python benchmarks/compression_coding.py [--data FOLDER] [--seeds 1]

FOLDER holds fashion_mnist.npz. Prints one JSON object per seed: after each stage the accuracy on the whole test set and
the bytes of the float32 weights, of the coded file (weights, architecture and tables), and of the zipped .keras file.
The accuracies are those of the models as `load_coded` restores them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfopt.callbacks import LearningRate, MagnitudePruning, PreserveCompression
from tfopt.compression.checkpoint import load_coded, save_coded
from tfopt.compression.clustering import cluster
from tfopt.data import ArrayDataset, load_npz
from tfopt.schedules import cosine

ROOT = Path(__file__).resolve().parent
SPARSITY, CLUSTERS, BATCH_SIZE = 0.8, 16, 128
EPOCHS = {"train": 10, "prune": 8, "fine_tune": 3}
LEARNING_RATES = {"train": 2e-3, "prune": 2e-3, "fine_tune": 3e-4}


def network() -> keras.Model:
    """Two convolutions and a wide dense layer: 207,646 parameters."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(60, activation="relu"),
            layers.Dense(10),
        ]
    )


def deep_compression(
    data: ArrayDataset, *, seed: int, epochs: Mapping[str, int] = EPOCHS, samples: int | None = None
) -> dict[str, Any]:
    """Trains, prunes, clusters, fine-tunes with both kept, and codes; what each stage leaves.

    Args:
        data: images and labels of Fashion-MNIST.
        seed: of the initial weights and the order of the samples.
        epochs: of each fit.
        samples: how many training samples are used; default: all.
    """
    started = time.perf_counter()
    x, y = data.x_train[:samples], data.y_train[:samples]
    steps = -(-len(x) // BATCH_SIZE)
    keras.utils.set_random_seed(seed)
    stages: list[dict[str, Any]] = []

    def fit(model: keras.Model, stage: str, *callbacks: keras.callbacks.Callback) -> None:
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        rate = LearningRate(cosine(LEARNING_RATES[stage], steps=epochs[stage] * steps))
        model.fit(x, y, batch_size=BATCH_SIZE, epochs=epochs[stage], verbose=0, callbacks=[rate, *callbacks])

    def measure(model: keras.Model, stage: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            coded = save_coded(model, Path(folder, "model.coded"))
            restored = load_coded(coded.path)
            file = Path(folder, "model.keras")
            restored.save(file)  # without the optimizer, which the model at hand brings along
            zipped_bytes = len(gzip.compress(file.read_bytes()))
        predicted = restored.predict(data.x_test, batch_size=500, verbose=0).argmax(axis=-1)
        stages.append(
            {
                "stage": stage,
                "accuracy": float(np.mean(predicted == data.y_test)),
                "float32_bytes": coded.raw_bytes,
                "coded_bytes": coded.size_bytes,
                "zipped_keras_bytes": zipped_bytes,
                "ratio": coded.ratio,
            }
        )

    model = network()
    fit(model, "train")
    measure(model, "float")
    prune = MagnitudePruning(SPARSITY, end_step=max(1, round(0.6 * epochs["prune"] * steps)), frequency=50)
    fit(model, "prune", prune)
    measure(model, "pruned")
    model = cluster(model, CLUSTERS)
    measure(model, "clustered")
    fit(model, "fine_tune", PreserveCompression())
    measure(model, "fine-tuned")
    kernels = [np.asarray(weight) for weight in model.weights if weight.name == "kernel"]
    return {
        "seed": seed,
        "parameters": model.count_params(),
        "sparsity": 1 - sum(map(np.count_nonzero, kernels)) / sum(kernel.size for kernel in kernels),
        "distinct_values": [np.unique(kernel).size for kernel in kernels],
        "stages": stages,
        "times_smaller": stages[-1]["ratio"],
        "accuracy_drop": stages[0]["accuracy"] - stages[-1]["accuracy"],
        "seconds": time.perf_counter() - started,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent.parent / "shared" / "data")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    data = load_npz(arguments.data / "fashion_mnist.npz")
    for seed in range(arguments.seeds):
        print(json.dumps(deep_compression(data, seed=seed), indent=2), flush=True)


if __name__ == "__main__":
    main()
