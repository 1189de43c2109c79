"""The data sets of benchmarks/scoreboard.py: which network each has, and how it is trained; for all tools alike.

The code serves Keras 3, tf_keras and the Keras of TensorFlow 2.15. The networks end in logits: the int8 grid of a
softmax would hide differences between two files.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from small_networks import NETWORKS

__all__ = ["SETS", "build"]

Settings = dict[str, Any]
Arrays = dict[str, np.ndarray]

WORDS = 2500
PRUNE = {"sparsity": 0.8, "ramp": 0.5, "frequency": 10}
SETS: dict[str, Settings] = {
    "fashion_mnist": {
        "title": "Fashion-MNIST",
        "network": "plain_cnn",
        "train_samples": 20_000,
        "train": {"epochs": 4, "batch_size": 128, "learning_rate": 2e-3},
        "fine_tune": {"epochs": 1, "batch_size": 128, "learning_rate": 2e-4},
        "prune": {"epochs": 3, "batch_size": 128, "learning_rate": 1e-3, **PRUNE},
    },
    "sign_digits": {
        "title": "sign digits",
        "network": "separable_cnn",
        "train_samples": 0,
        "train": {"epochs": 16, "batch_size": 32, "learning_rate": 5e-3},
        "fine_tune": {"epochs": 2, "batch_size": 32, "learning_rate": 1e-4},
        "prune": {"epochs": 6, "batch_size": 32, "learning_rate": 2e-3, **PRUNE},
    },
    "spoken_digits": {
        "title": "spoken digits",
        "network": "separable_cnn",
        "train_samples": 0,
        "train": {"epochs": 16, "batch_size": 32, "learning_rate": 5e-3},
        "fine_tune": {"epochs": 2, "batch_size": 32, "learning_rate": 1e-4},
        "prune": {"epochs": 4, "batch_size": 32, "learning_rate": 2e-3, **PRUNE},
    },
    "adult": {
        "title": "Adult",
        "network": "mlp",
        "train_samples": 0,
        "train": {"epochs": 10, "batch_size": 256, "learning_rate": 2e-3},
        "fine_tune": {"epochs": 3, "batch_size": 256, "learning_rate": 2e-4},
        "prune": {"epochs": 6, "batch_size": 256, "learning_rate": 1e-3, **PRUNE},
    },
    "banking77": {
        "title": "BANKING77",
        "network": "text_cnn",
        "train_samples": 0,
        "train": {"epochs": 12, "batch_size": 64, "learning_rate": 4e-3},
        "fine_tune": {"epochs": 2, "batch_size": 64, "learning_rate": 2e-4},
        "prune": {"epochs": 5, "batch_size": 64, "learning_rate": 2e-3, **PRUNE},
    },
}
"""`train_samples` are of the training data; 0 means all."""


def mlp(keras: Any, shape: tuple[int, ...], classes: int) -> Any:
    """Dense layers for a table."""
    layers = keras.layers
    x = inputs = keras.Input(shape, name="columns")
    for units in (64, 32):
        x = layers.Dense(units, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x))


def text_cnn(keras: Any, shape: tuple[int, ...], classes: int) -> Any:
    """An embedding, a convolution over the words, and the largest value of each channel."""
    layers = keras.layers
    x = inputs = keras.Input(shape, dtype="int32", name="tokens")
    x = layers.Embedding(WORDS, 16)(x)
    x = layers.Conv1D(32, 2, padding="same", activation="relu")(x)
    x = layers.Dense(64, activation="relu")(layers.GlobalMaxPooling1D()(x))
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x))


def build(keras: Any, settings: Settings, data: Arrays) -> Any:
    """The untrained network of a data set."""
    networks: dict[str, Any] = {**NETWORKS, "mlp": mlp, "text_cnn": text_cnn}
    return networks[settings["network"]](keras, data["x_train"].shape[1:], int(data["y_train"].max()) + 1)
