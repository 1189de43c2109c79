"""What pruning an ensemble of seven models to at most three costs in accuracy, and saves in time.

    python benchmarks/ensemble.py [--data FOLDER] [--seeds 1] [--only adult fashion]

On each data set seven networks are trained alike, of several sizes and each from a seed of its own: dense ones on
Adult (14 columns, words one-hot), convolutional ones on 20,000 images of Fashion-MNIST. `prune(size=3, target="latency:
50%")` chooses on a fifth of the training data that no model saw; all accuracies are of the test set, which nothing was
chosen on. Beside it: each single model, all seven alike, every three of the seven alike (mean, best and worst on the
test set), and one student distilled from the chosen.

Latency: medians of one inference of a float32 .tflite on one thread, all sizes in turns (`tfopt.benchmark`'s
protocol). FOLDER holds adult.data.gz, adult.test.gz and fashion_mnist.npz.

Writes benchmarks/results/ensemble.json.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import tfopt
from tfopt.benchmark.machine import this_machine
from tfopt.data import load_npz

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results" / "ensemble.json"
layers = keras.layers

SIZE, TARGET = 3, "latency: 50%"
NUMBERS = (0, 2, 4, 10, 11, 12)
SETTINGS: dict[str, dict[str, Any]] = {
    "adult": {
        "widths": [[32, 16], [64, 32], [64, 64], [96, 48], [128, 64], [128, 128], [192, 64]],
        "epochs": 5,
        "batch_size": 128,
        "learning_rate": 1e-3,
        "student_epochs": 5,
    },
    "fashion": {
        "widths": [[8, 16, 32], [8, 24, 48], [12, 24, 48], [12, 32, 64], [16, 32, 64], [16, 48, 64], [20, 40, 80]],
        "epochs": 5,
        "batch_size": 64,
        "learning_rate": 2e-3,
        "student_epochs": 5,
        "samples": 20_000,
    },
}

Split = tuple[np.ndarray, np.ndarray]


def adult(folder: Path) -> tuple[Split, Split]:
    def rows(name: str) -> tuple[np.ndarray, np.ndarray]:
        with gzip.open(folder / name, "rt") as stream:
            lines = [row for row in csv.reader(stream, skipinitialspace=True) if len(row) == 15]
        table = np.array(lines, dtype=object)
        return table[:, :14], np.array([">50K" in row[14] for row in lines], dtype=np.int64)

    (x_train, y_train), (x_test, y_test) = rows("adult.data.gz"), rows("adult.test.gz")
    words = [index for index in range(14) if index not in NUMBERS]
    encoder = make_column_transformer(
        (StandardScaler(), list(NUMBERS)), (OneHotEncoder(handle_unknown="ignore"), words), sparse_threshold=0
    )
    x_train = encoder.fit_transform(x_train).astype(np.float32)
    return (x_train, y_train), (encoder.transform(x_test).astype(np.float32), y_test)


def fashion(folder: Path) -> tuple[Split, Split]:
    data = load_npz(folder / "fashion_mnist.npz")
    chosen = np.random.default_rng(0).permutation(len(data.x_train))[: SETTINGS["fashion"]["samples"]]
    return (data.x_train[chosen][..., None], data.y_train[chosen]), (data.x_test[..., None], data.y_test)


def dense(shape: tuple[int, ...], classes: int, widths: list[int]) -> keras.Model:
    hidden = [layers.Dense(units, activation="relu") for units in widths]
    return keras.Sequential([keras.Input(shape, name="x"), *hidden, layers.Dense(classes, activation="softmax")])


def convolutional(shape: tuple[int, ...], classes: int, widths: list[int]) -> keras.Model:
    x = inputs = keras.Input(shape, name="x")
    for filters in widths:
        x = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    return keras.Model(inputs, layers.Dense(classes, activation="softmax")(layers.Flatten()(x)))


DATA: dict[str, tuple[Callable[[Path], tuple[Split, Split]], Callable[..., keras.Model]]] = {
    "adult": (adult, dense),
    "fashion": (fashion, convolutional),
}


def decaying(name: str, samples: int, epochs: int) -> keras.optimizers.Optimizer:
    steps = epochs * -(-samples // SETTINGS[name]["batch_size"])
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(SETTINGS[name]["learning_rate"], steps))


def trained(name: str, x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, keras.Model]:
    settings, build = SETTINGS[name], DATA[name][1]
    models = {}
    for number, widths in enumerate(settings["widths"]):
        keras.utils.set_random_seed(100 * seed + number)
        model = build(x.shape[1:], int(y.max()) + 1, widths)
        model.compile(decaying(name, len(x), settings["epochs"]), "sparse_categorical_crossentropy")
        model.fit(x, y, batch_size=settings["batch_size"], epochs=settings["epochs"], verbose=0)
        models["-".join(map(str, widths))] = model
    return models


def one_run(name: str, folder: Path, seed: int) -> dict[str, Any]:
    (x, y), (x_test, y_test) = DATA[name][0](folder)
    held_out, kept = np.split(np.random.default_rng(seed).permutation(len(x)), [len(x) // 5])
    started = time.perf_counter()
    models = trained(name, x[kept], y[kept], seed)
    training_seconds = time.perf_counter() - started

    pruned = tfopt.ensemble.prune(
        models, (x[held_out], y[held_out]), size=SIZE, target=TARGET, runtime="tflite", seconds=1.0
    )
    print(pruned, flush=True)
    answers = {key: model.predict(x_test, batch_size=256, verbose=0) for key, model in models.items()}

    def accuracy(weights: dict[str, float]) -> float:
        mean = sum(share * answers[key] for key, share in weights.items())
        return float(np.mean(mean.argmax(-1) == y_test))

    assert (
        abs(np.mean(pruned.model.predict(x_test, verbose=0).argmax(-1) == y_test) - accuracy(pruned.chosen.weights))
        < 1e-3
    )
    subsets = [accuracy(dict.fromkeys(subset, 1 / SIZE)) for subset in itertools.combinations(answers, SIZE)]
    keras.utils.set_random_seed(seed)
    settings, middle = SETTINGS[name], SETTINGS[name]["widths"][len(models) // 2]
    student = DATA[name][1](x.shape[1:], answers[next(iter(answers))].shape[-1], middle)
    pruned.distill(
        student,
        (x[kept], y[kept]),
        optimizer=decaying(name, len(kept), settings["student_epochs"]),
        epochs=settings["student_epochs"],
        batch_size=settings["batch_size"],
        verbose=0,
    )
    alone = "-".join(map(str, middle))
    return {
        "seed": seed,
        "training_seconds": training_seconds,
        "samples": {"training": len(kept), "validation": len(held_out), "test": len(x_test)},
        "singles": {key: accuracy({key: 1.0}) for key in answers},
        "rows": [
            {
                "weights": dict(row.weights),
                "validation_accuracy": row.score,
                "test_accuracy": accuracy(dict(row.weights)),
                "latency_ms": row.latency_ms,
                "chosen": row is pruned.chosen,
                "whole": row is pruned.whole,
            }
            for row in (*pruned.rows, pruned.whole)
        ],
        "any_three": {"mean": float(np.mean(subsets)), "best": float(np.max(subsets)), "worst": float(np.min(subsets))},
        "student": {
            "widths": middle,
            "alone_accuracy": accuracy({alone: 1.0}),
            "distilled_accuracy": float(np.mean(student.predict(x_test, verbose=0).argmax(-1) == y_test)),
        },
    }


def summary(run: dict[str, Any]) -> dict[str, float]:
    """What was asked: the points of accuracy lost by the pruned ensemble, and how many times as fast it is."""
    chosen, whole = (next(row for row in run["rows"] if row[key]) for key in ("chosen", "whole"))
    return {
        "size": len(chosen["weights"]),
        "drop": whole["test_accuracy"] - chosen["test_accuracy"],
        "speedup": whole["latency_ms"] / chosen["latency_ms"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("TFOPT_DATA") or ROOT.parents[1] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0 on")
    parser.add_argument("--only", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    results: dict[str, Any] = {"settings": SETTINGS, "machine": this_machine().model_dump(), "data": {}}
    for seed in range(arguments.seeds):
        for name in arguments.only:
            runs = results["data"].setdefault(name, [])
            run = one_run(name, arguments.data, seed)
            run["summary"] = summary(run)
            runs.append(run)
            print(
                f"{name}, seed {seed}: {run['summary']['size']} of 7 models, "
                f"{100 * run['summary']['drop']:+.2f} points lost on the test set, "
                f"{run['summary']['speedup']:.2f}x as fast; student {run['student']['distilled_accuracy']:.2%} "
                f"({run['student']['alone_accuracy']:.2%} alone)",
                flush=True,
            )
            arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"Wrote {arguments.out}.")


if __name__ == "__main__":
    main()
