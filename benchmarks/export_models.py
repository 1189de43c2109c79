"""The models of benchmarks/export.py, each with its data, trained for some minutes.

They end in logits: the int8 grid of a softmax would hide differences between two files.
"""

from __future__ import annotations

import csv
import gzip
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from distillation_worker import LENGTH, WORDS, banking77
from networks import NETWORKS as LARGEST_PIXELS
from small_networks import plain_cnn

from tfopt.data import load_npz

__all__ = ["MODELS", "Case", "train"]

L = keras.layers
ADULT_COLUMNS = (
    *("age", "workclass", "weight", "education", "education_years", "marital_status", "occupation", "relationship"),
    *("race", "sex", "capital_gain", "capital_loss", "hours", "country", "income"),
)
ADULT_NUMBERS = ("age", "weight", "education_years", "capital_gain", "capital_loss", "hours")
ADULT_OUTPUTS = ("income", "marital_status")

Arrays = list[np.ndarray]


@dataclass(frozen=True, eq=False)
class Case:
    """A model, not trained yet, and its data: an array for each input, and classes for each output.

    Args:
        data: what it is trained on, in words.
        model: with logits.
        x_train: samples of shape `(n, ...)` for each input.
        y_train: class numbers of shape `(n,)` for each output.
        x_test: as `x_train`.
        y_test: as `y_train`.
        batch_size: of the training.
    """

    data: str
    model: keras.Model
    x_train: Arrays
    y_train: Arrays
    x_test: Arrays
    y_test: Arrays
    batch_size: int = 32

    def first_test_samples(self, count: int) -> tuple[Arrays, Arrays]:
        """At most so many samples, evenly spaced, since some files are in the order of their classes."""
        rows = np.linspace(0, len(self.y_test[0]) - 1, min(count, len(self.y_test[0]))).round().astype(int)
        return [x[rows] for x in self.x_test], [y[rows] for y in self.y_test]


def train(case: Case, minutes: float) -> int:
    """Trains for whole epochs, at least one, and returns how many."""
    losses = [keras.losses.SparseCategoricalCrossentropy(from_logits=True) for _ in case.y_train]
    case.model.compile(keras.optimizers.Adam(1e-3), losses if len(losses) > 1 else losses[0])
    x, y = (arrays if len(arrays) > 1 else arrays[0] for arrays in (case.x_train, case.y_train))
    started, epochs = time.perf_counter(), 0
    while epochs == 0 or time.perf_counter() - started < 60 * minutes:
        case.model.fit(x, y, batch_size=case.batch_size, verbose=0)
        epochs += 1
    return epochs


def cnn(folder: Path, _: int) -> Case:
    """Convolutions, batch norms and dense layers."""
    data = load_npz(folder / "fashion_mnist.npz")
    x_train, x_test = data.x_train[..., np.newaxis], data.x_test[..., np.newaxis]
    model = plain_cnn(keras, x_train.shape[1:], 10)
    return Case("Fashion-MNIST", model, [x_train], [data.y_train], [x_test], [data.y_test], 128)


def application(name: str, folder: Path, side: int) -> Case:
    """A network of keras.applications, from random weights."""
    data = load_npz(folder / "sign_digits_48.npz")
    x_train, x_test = (
        np.asarray(keras.ops.image.resize(x * LARGEST_PIXELS[name], (side, side))) for x in (data.x_train, data.x_test)
    )
    network = getattr(keras.applications, name)
    model = network(input_shape=(side, side, 3), weights=None, classes=10, classifier_activation=None)
    for layer in model.layers:  # a few hundred steps are to be enough for the statistics
        if isinstance(layer, L.BatchNormalization):
            layer.momentum = 0.9
    return Case(f"sign digits, {side} × {side}", model, [x_train], [data.y_train], [x_test], [data.y_test])


def transformer(folder: Path, _: int) -> Case:
    """Two blocks of self-attention and a feed-forward part, each behind a layer normalization, with an exact GELU."""
    data = banking77(folder)
    tokens = keras.Input((LENGTH,), dtype="int32", name="tokens")
    x = L.Embedding(WORDS, 64)(tokens)
    for _ in range(2):
        y = L.LayerNormalization()(x)
        x = L.Add()([x, L.MultiHeadAttention(4, 16)(y, y)])
        y = L.LayerNormalization()(x)
        x = L.Add()([x, L.Dense(64)(L.Dense(128, activation="gelu")(y))])
    x = L.GlobalAveragePooling1D()(L.LayerNormalization()(x))
    model = keras.Model(tokens, L.Dense(77, name="intent")(x))
    return Case("BANKING77", model, [data["x_train"]], [data["y_train"]], [data["x_test"]], [data["y_test"]], 64)


def spoken_digits(features: Callable[[Any], Any], folder: Path, _: int) -> Case:
    """A classifier of 61 frames of 40 logarithmic mel bands."""
    data = load_npz(folder / "fsdd_logmel.npz")
    frames = keras.Input(data.x_train.shape[1:], name="frames")
    model = keras.Model(frames, L.Dense(10, name="digit")(features(frames)))
    return Case("spoken digits", model, [data.x_train], [data.y_train], [data.x_test], [data.y_test])


def conv1d(x: Any) -> Any:
    for filters in (32, 64, 64):
        x = L.Conv1D(filters, 5, padding="same", use_bias=False)(x)
        x = L.MaxPooling1D(2)(L.ReLU()(L.BatchNormalization(momentum=0.9)(x)))
    return L.GlobalAveragePooling1D()(x)


def adult(folder: Path, _: int) -> Case:
    """Two inputs, numbers and one-hot words, and two outputs."""
    train_rows, test_rows = (_adult_columns(folder / f"adult.{part}.gz") for part in ("data", "test"))
    inputs: tuple[Arrays, Arrays] = ([], [])
    outputs: tuple[Arrays, Arrays] = ([], [])
    numbers = [  # logarithms, as few have a large capital gain
        np.stack([np.log1p(rows[name].astype(np.float32)) for name in ADULT_NUMBERS], axis=1)
        for rows in (train_rows, test_rows)
    ]
    mean, deviation = numbers[0].mean(axis=0), numbers[0].std(axis=0)
    words = [name for name in ADULT_COLUMNS if name not in (*ADULT_NUMBERS, *ADULT_OUTPUTS)]
    known = {name: np.unique(train_rows[name]) for name in (*words, *ADULT_OUTPUTS)}
    for part, rows in enumerate((train_rows, test_rows)):
        one_hot = np.concatenate([rows[name][:, np.newaxis] == known[name] for name in words], axis=1)
        inputs[part].extend([(numbers[part] - mean) / deviation, one_hot.astype(np.float32)])
        outputs[part].extend([np.searchsorted(known[name], rows[name]) for name in ADULT_OUTPUTS])
    given = [
        keras.Input(array.shape[1:], name=name) for name, array in zip(("numbers", "words"), inputs[0], strict=True)
    ]
    x = L.Concatenate()([L.Dense(32, "relu")(given[0]), L.Dense(64, "relu")(given[1])])
    x = L.Dense(64, "relu")(x)
    model = keras.Model(given, [L.Dense(len(known[name]), name=name)(x) for name in ADULT_OUTPUTS])
    return Case("Adult", model, inputs[0], outputs[0], inputs[1], outputs[1], 256)


def _adult_columns(path: Path) -> dict[str, np.ndarray]:
    with gzip.open(path, "rt") as file:
        rows = [row for row in csv.reader(file, skipinitialspace=True) if len(row) == len(ADULT_COLUMNS)]
    # The test file ends its lines with a full stop.
    return {name: np.char.rstrip(column, ".") for name, column in zip(ADULT_COLUMNS, np.array(rows).T, strict=True)}


MODELS: dict[str, Callable[[Path, int], Case]] = {
    "CNN": cnn,
    "MobileNetV2": partial(application, "MobileNetV2"),
    "MobileNetV3Small": partial(application, "MobileNetV3Small"),
    "EfficientNetB0": partial(application, "EfficientNetB0"),
    "Transformer": transformer,
    "LSTM": partial(spoken_digits, lambda x: L.LSTM(64)(x)),
    "GRU": partial(spoken_digits, lambda x: L.GRU(64)(x)),
    "Conv1D": partial(spoken_digits, conv1d),
    "Multi-I/O": adult,
}
"""By name; each takes the folder of the data and the side of the images, which small ones do not follow."""
