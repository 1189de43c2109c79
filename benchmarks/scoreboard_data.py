"""Reads the data sets of benchmarks/scoreboard.py and writes each as one file of arrays, which every tool can read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from distillation_worker import banking77
from early_stopping import adult
from worker_files import load_data

from tfopt.artifact import write_whole

__all__ = ["prepare"]

CALIBRATION_SAMPLES = 256
IMAGES = {"fashion_mnist": "fashion_mnist.npz", "sign_digits": "sign_digits_48.npz", "spoken_digits": "fsdd_logmel.npz"}
Arrays = dict[str, np.ndarray]


def read(name: str, folder: Path) -> Arrays:
    if name == "adult":
        return vars(adult(folder))
    return banking77(folder) if name == "banking77" else load_data(str(folder / IMAGES[name]))


def prepare(name: str, folder: Path, path: Path, *, train_samples: int, test_samples: int) -> None:
    """Writes training, test and calibration samples, in an order that has nothing to do with their classes.

    Args:
        name: of the data set.
        folder: where the data lies.
        path: the .npz to write.
        train_samples: how many of the training data; 0: all.
        test_samples: how many of the test data; 0: all.
    """
    data, generator = read(name, folder), np.random.default_rng(0)
    found: Arrays = {}
    for part, count in (("train", train_samples), ("test", test_samples)):
        x, y = data[f"x_{part}"], data[f"y_{part}"]
        rows = generator.permutation(len(x))[: count or len(x)]
        found |= {f"x_{part}": x[rows], f"y_{part}": y[rows].astype(np.int64)}
    with write_whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **found, calibration=found["x_train"][:CALIBRATION_SAMPLES])  # type: ignore[arg-type]
