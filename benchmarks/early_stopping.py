"""What early stopping saves beside a schedule: the planned epochs, and the same training that may stop.

    python benchmarks/early_stopping.py [--data FOLDER] [--sets NAME ...] [--seeds 3]

Both trainings of a seed have the same initial weights, order of samples, schedule (over all planned epochs) and
held-out tenth of the training data, on which the stop is decided; accuracies are those on the test set. FOLDER holds
fashion_mnist.npz, adult.data.gz, adult.test.gz, banking77_train.csv.gz and banking77_test.csv.gz.

Writes benchmarks/results/early_stopping.json; the data sets that were not asked for stay as they are.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from distillation_worker import banking77
from scoreboard_sets import text_cnn

from tfopt.benchmark.machine import this_machine
from tfopt.callbacks import EarlyStopping, LearningRate
from tfopt.data import ArrayDataset, load_npz
from tfopt.schedules import Schedule, cosine, step_decay, warmup

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results" / "early_stopping.json"
Settings = dict[str, Any]

# The patience is a fifth of the planned epochs.
SETS: dict[str, Settings] = {
    "fashion_mnist": {
        "network": "cnn",
        "batch_size": 128,
        "epochs": 24,
        "schedule": {"kind": "step_decay", "peak": 2e-3, "factor": 0.1, "every_epochs": 6},
        "stopping": {"monitor": "val_loss", "patience": 5, "min_delta": 0.005, "relative_delta": True},
    },
    "adult": {
        "network": "mlp",
        "batch_size": 256,
        "epochs": 40,
        "schedule": {"kind": "cosine", "peak": 1e-3, "warmup_epochs": 1},
        "stopping": {
            "monitor": "val_loss",
            "patience": 8,
            "smoothing": 0.5,
            "min_delta": 0.005,
            "relative_delta": True,
        },
    },
    "banking77": {
        "network": "text",
        "batch_size": 64,
        "epochs": 40,
        "schedule": {"kind": "step_decay", "peak": 4e-3, "factor": 0.1, "every_epochs": 10},
        "stopping": {"monitor": "val_accuracy", "patience": 8, "min_delta": 0.001},
    },
}
NUMBERS = (0, 2, 4, 10, 11, 12)  # the columns of Adult that are numbers; the last column is the target


def fashion_mnist(folder: Path) -> ArrayDataset:
    data = load_npz(folder / "fashion_mnist.npz")
    x_train, x_test = (x.reshape(-1, 28, 28, 1) for x in (data.x_train, data.x_test))
    return ArrayDataset(x_train, data.y_train, x_test, data.y_test)


def adult(folder: Path) -> ArrayDataset:
    """Numbers standardized, words one-hot, by what the training rows have."""

    def rows(name: str) -> np.ndarray:
        with gzip.open(folder / name, "rt") as file:
            lines = [[cell.strip() for cell in line.strip().rstrip(".").split(",")] for line in file]
        return np.array([cells for cells in lines if len(cells) == 15])

    train, test = rows("adult.data.gz"), rows("adult.test.gz")
    columns: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    for number in range(14):
        if number in NUMBERS:
            known = train[:, number].astype(np.float32)
            for split, table in (("train", train), ("test", test)):
                column = (table[:, number].astype(np.float32) - known.mean()) / known.std()
                columns[split].append(column[:, np.newaxis])
        else:
            words = np.unique(train[:, number])
            for split, table in (("train", train), ("test", test)):
                columns[split].append((table[:, number, np.newaxis] == words).astype(np.float32))
    x_train, x_test = (np.concatenate(columns[split], axis=1) for split in ("train", "test"))
    y_train, y_test = ((table[:, 14] == ">50K").astype(np.int64) for table in (train, test))
    return ArrayDataset(x_train, y_train, x_test, y_test)


def mlp(shape: tuple[int, ...], classes: int) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )


def cnn(shape: tuple[int, ...], classes: int) -> keras.Model:
    layers: list[keras.Layer] = []
    for channels in (16, 32, 64):
        layers += [
            keras.layers.Conv2D(channels, 3, strides=2, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
        ]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(classes, activation="softmax")]
    return keras.Sequential([keras.Input(shape), *layers])


def text(shape: tuple[int, ...], classes: int) -> keras.Model:
    scores = text_cnn(keras, shape, classes)
    return keras.Model(scores.inputs, keras.layers.Softmax()(scores.output))


NETWORKS = {"cnn": cnn, "mlp": mlp, "text": text}
LOADERS: dict[str, Callable[[Path], ArrayDataset]] = {
    "fashion_mnist": fashion_mnist,
    "adult": adult,
    "banking77": lambda folder: ArrayDataset(**banking77(folder)),
}


def build(settings: Settings, data: ArrayDataset) -> keras.Model:
    shape, classes = data.x_train.shape[1:], int(data.y_train.max()) + 1
    return NETWORKS[settings["network"]](shape, classes)


def schedule_of(settings: Settings, steps: int) -> Schedule:
    """The schedule of the planned training, whose epochs have so many steps."""
    schedule = settings["schedule"]
    if schedule["kind"] == "step_decay":
        return step_decay(schedule["peak"], factor=schedule["factor"], every_steps=schedule["every_epochs"] * steps)
    rise = schedule["warmup_epochs"] * steps
    return warmup(cosine(schedule["peak"], steps=settings["epochs"] * steps - rise), rise)


def train(settings: Settings, data: ArrayDataset, seed: int, stopping: EarlyStopping | None) -> Settings:
    """Trains with nine tenths of the training data; returns accuracy on the test set, epochs and seconds."""
    keras.utils.set_random_seed(seed)
    order = np.random.default_rng(seed).permutation(len(data.x_train))
    held_out, kept = np.split(order, [len(order) // 10])
    model = build(settings, data)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    rate = LearningRate(schedule_of(settings, -(-len(kept) // settings["batch_size"])))
    started = time.perf_counter()
    history = model.fit(
        data.x_train[kept],
        data.y_train[kept],
        batch_size=settings["batch_size"],
        epochs=settings["epochs"],
        validation_data=(data.x_train[held_out], data.y_train[held_out]),
        callbacks=[rate] if stopping is None else [rate, stopping],
        verbose=0,
    )
    seconds = time.perf_counter() - started
    accuracy = float(model.evaluate(data.x_test, data.y_test, verbose=0, return_dict=True)["accuracy"])
    return {
        "accuracy": accuracy,
        "epochs": len(history.epoch),
        "seconds": seconds,
        "val_accuracy": history.history["val_accuracy"],
        "val_loss": history.history["val_loss"],
    }


def one_seed(settings: Settings, data: ArrayDataset, seed: int) -> Settings:
    full = train(settings, data, seed, None)
    stopping = EarlyStopping(**settings["stopping"], restore_best_weights=True)
    stopped = train(settings, data, seed, stopping)
    summary = stopping.summary
    assert summary
    stopped |= {
        "best_epoch": summary.best_epoch,
        "reason": summary.reason,
        "estimated_seconds_saved": summary.seconds_saved,
    }
    return {
        "seed": seed,
        "full": full,
        "stopped": stopped,
        "epochs_saved": 1 - stopped["epochs"] / full["epochs"],
        "seconds_saved": 1 - stopped["seconds"] / full["seconds"],
        "accuracy_change": stopped["accuracy"] - full["accuracy"],
    }


def measure(name: str, arguments: argparse.Namespace) -> Settings:
    settings, data = SETS[name], LOADERS[name](arguments.data)
    if arguments.samples:
        data = ArrayDataset(
            data.x_train[: arguments.samples], data.y_train[: arguments.samples], data.x_test, data.y_test
        )
    runs = []
    for seed in range(arguments.seeds):
        runs.append(run := one_seed(settings, data, seed))
        print(
            f"{name}, seed {seed}: {run['stopped']['epochs']} of {run['full']['epochs']} epochs, "
            f"{run['epochs_saved']:.0%} saved, accuracy {run['full']['accuracy']:.2%} full and "
            f"{run['stopped']['accuracy']:.2%} stopped",
            flush=True,
        )
    means = {
        key: statistics.mean(run[key] for run in runs) for key in ("epochs_saved", "seconds_saved", "accuracy_change")
    }
    print(f"{name}: " + ", ".join(f"{key} {value:+.2%}" for key, value in means.items()), flush=True)
    return {"settings": settings, "samples": len(data.x_train), "means": means, "runs": runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("TFOPT_DATA") or ROOT.parents[1] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--samples", type=int, default=0, help="of the training data, for a trial; 0: all")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for name in arguments.sets:
        results[name] = measure(name, arguments)
        results["machine"] = this_machine().model_dump()
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"Wrote {arguments.out}.")


if __name__ == "__main__":
    main()
