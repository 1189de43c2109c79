"""What the workers of both frameworks read and write: the data, and weights in an order that both share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["check_equal", "load_data", "read_weights", "write_weights"]

EQUAL = 1e-4
"""How far outputs that must be equal may be apart, as a part of the largest."""


def load_data(path: str) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        data = dict(file)
    for name in ("x_train", "x_test"):
        x = data[name].astype(np.float32) / 255
        data[name] = x if x.ndim == 4 else x[..., np.newaxis]
    return data


def write_weights(model: Any, path: Path) -> None:
    arrays = {f"{i}/{j}": w for i, layer in enumerate(model.layers) for j, w in enumerate(layer.get_weights())}
    np.savez(path, **arrays)


def read_weights(model: Any, path: Path) -> None:
    with np.load(path) as file:
        for i, layer in enumerate(model.layers):
            layer.set_weights([file[f"{i}/{j}"] for j in range(len(layer.get_weights()))])


def check_equal(received: np.ndarray, expected: np.ndarray, what: str) -> None:
    apart = float(np.abs(received - expected).max() / np.abs(expected).max())
    if not apart <= EQUAL:
        raise SystemExit(f"{what} computes something else: its outputs are {apart:.2g} apart.")
