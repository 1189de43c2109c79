"""Data as it comes in: the four arrays of a data set, and samples checked against a model's inputs."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tfopt.errors import DataError

__all__ = ["ArrayDataset", "Samples", "check_samples", "load_npz"]

Samples = Any
"""An array, a sequence or mapping of arrays (several inputs), or a tf.data.Dataset of batches."""

KEYS = ("x_train", "y_train", "x_test", "y_test")


class InputSpec(Protocol):
    """What a sample must fit: `TensorSpec` and Keras's symbolic inputs both have it."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> Sequence[int | None]: ...


@dataclass(frozen=True, eq=False)
class ArrayDataset:
    """Training and test samples of shape `(n, ...)` with their targets of length n."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            x, y = getattr(self, f"x_{split}"), getattr(self, f"y_{split}")
            if len(x) == 0 or len(x) != len(y):
                raise DataError(
                    f"x_{split} and y_{split} must have the same length, at least 1. Received: {len(x)} and {len(y)}."
                )
            if not np.issubdtype(x.dtype, np.number) or not np.all(np.isfinite(x)):
                raise DataError(f"x_{split} must hold finite numbers. Received: NaN, infinity or dtype {x.dtype}.")


def load_npz(path: str | Path) -> ArrayDataset:
    """Reads an NPZ file with the arrays x_train, y_train, x_test and y_test.

    Integer images (uint8) are scaled to [0, 1]; a missing channel axis of images is added.

    Raises:
        DataError: if the file is missing, damaged, or lacks an array.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in KEYS if key not in file]
            if missing:
                raise DataError(
                    f"{path}: expected the arrays {', '.join(KEYS)}. Missing: {', '.join(missing)}; "
                    f"found: {', '.join(file.files) or 'none'}."
                )
            arrays = {key: file[key] for key in KEYS}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"Cannot read {path} as an NPZ file. Received: {error}.") from None
    for key in ("x_train", "x_test"):
        arrays[key] = _as_float(arrays[key])
    return ArrayDataset(**arrays)


def _as_float(x: np.ndarray) -> np.ndarray:
    if x.dtype == np.uint8:
        x = x.astype(np.float32) / np.float32(255)
    if x.ndim == 3:
        x = x[..., np.newaxis]
    return x.astype(np.float32) if x.dtype == np.float64 else x


def check_samples(
    data: Samples, inputs: Sequence[InputSpec], *, what: str = "calibration", limit: int | None = None
) -> list[np.ndarray]:
    """Returns one array of shape `(n, ...)` per model input, checked.

    Args:
        data: an array; a list, tuple or mapping of arrays for several inputs; or a tf.data.Dataset of
            batches (of samples, or of `(samples, targets, ...)`).
        inputs: the inputs to fit, each with a name and a shape whose first axis is the batch.
        what: how messages call the data.
        limit: at most this many samples are taken, evenly spaced (the first ones of a tf.data.Dataset).

    Raises:
        DataError: if the data is empty, has another number of inputs or another shape, or is not finite.

    Example:
        >>> from tfopt.artifact import TensorSpec
        >>> spec = TensorSpec(name="x", shape=(None, 2), dtype="float32")
        >>> check_samples(np.zeros((5, 2)), [spec], limit=3)[0].shape
        (3, 2)
        >>> check_samples(np.zeros((5, 3)), [spec])
        Traceback (most recent call last):
        ...
        tfopt.errors.DataError: calibration data for input 'x' must have shape (n, 2). Received: (5, 3).
    """
    arrays = _split(data, inputs, what, limit)
    if len(arrays) != len(inputs):
        raise DataError(
            f"{what} data must hold one array for each of the model's {len(inputs)} inputs "
            f"({', '.join(spec.name for spec in inputs)}). Received: {len(arrays)}."
        )
    for array, spec in zip(arrays, inputs, strict=True):
        expected = tuple(spec.shape[1:])
        if len(array) == 0:
            raise DataError(f"{what} data for input '{spec.name}' is empty: give at least one sample.")
        fits = array.ndim == len(expected) + 1 and all(
            size is None or size == got for size, got in zip(expected, array.shape[1:], strict=True)
        )
        if not fits:
            sizes = "".join(f", {'any' if size is None else size}" for size in expected)
            raise DataError(f"{what} data for input '{spec.name}' must have shape (n{sizes}). Received: {array.shape}.")
        if not np.issubdtype(array.dtype, np.number) and array.dtype != bool:
            raise DataError(f"{what} data for input '{spec.name}' must be numbers. Received dtype: {array.dtype}.")
        if not np.all(np.isfinite(array)):
            raise DataError(
                f"{what} data for input '{spec.name}' must be finite. Received: "
                f"{int(np.size(array) - np.isfinite(array).sum())} NaN or infinite values."
            )
    lengths = {len(array) for array in arrays}
    if len(lengths) > 1:
        raise DataError(f"{what} data must have as many samples for every input. Received: {sorted(lengths)}.")
    if limit is not None and lengths.pop() > limit:
        chosen = np.linspace(0, len(arrays[0]) - 1, limit).round().astype(int)
        arrays = [array[chosen] for array in arrays]
    return arrays


def _split(data: Samples, inputs: Sequence[InputSpec], what: str, limit: int | None) -> list[np.ndarray]:
    if hasattr(data, "as_numpy_iterator"):  # a tf.data.Dataset, without importing TensorFlow
        batches: list[list[np.ndarray]] = []
        taken = 0
        for element in islice(data.as_numpy_iterator(), limit):
            features = element[0] if isinstance(element, tuple) else element
            batches.append(_split(features, inputs, what, None))
            taken += len(batches[-1][0])
            if limit is not None and taken >= limit:
                break
        if not batches:
            raise DataError(f"{what} data is an empty tf.data.Dataset: give at least one batch.")
        return [np.concatenate(parts) for parts in zip(*batches, strict=True)]
    if isinstance(data, Mapping):
        missing = [spec.name for spec in inputs if spec.name not in data]
        if missing:
            raise DataError(f"{what} data lacks the inputs {missing}. Received: {sorted(data)}.")
        return [np.asarray(data[spec.name]) for spec in inputs]
    if isinstance(data, (list, tuple)) and len(inputs) > 1:
        return [np.asarray(array) for array in data]
    return [np.asarray(data)]
