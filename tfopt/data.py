"""Data as it comes in: the four arrays of a data set, and samples checked against a model's inputs."""

from __future__ import annotations

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
            if x.ndim == 0 or y.ndim == 0 or len(x) == 0 or len(x) != len(y):
                raise DataError(
                    f"x_{split} and y_{split} must hold as many samples, at least 1. "
                    f"Received the shapes {x.shape} and {y.shape}."
                )
            if x.dtype.kind not in "iuf" or not np.all(np.isfinite(x)):
                raise DataError(f"x_{split} must hold finite numbers. Received: NaN, infinity or dtype {x.dtype}.")


def load_npz(path: str | Path) -> ArrayDataset:
    """Reads an NPZ file with the arrays x_train, y_train, x_test and y_test.

    Images of bytes (uint8) are scaled to [0, 1].

    Raises:
        DataError: if the file is missing, damaged, or lacks an array.
    """
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {key: file[key] for key in KEYS if key in file.files}
            found = file.files
    except Exception as error:  # NumPy raises whatever the damaged part leads to: zip, header, type
        raise DataError(f"Cannot read {path} as an NPZ file ({type(error).__name__}: {error}).") from None
    if other := [key for key, array in arrays.items() if not isinstance(array, np.ndarray)]:  # bytes, to NumPy
        raise DataError(f"{path}: expected arrays. Received for {', '.join(other)}: what NumPy did not write.")
    missing = [key for key in KEYS if key not in arrays]
    if missing:
        raise DataError(
            f"{path}: expected the arrays {', '.join(KEYS)}. Missing: {', '.join(missing)}; "
            f"found: {', '.join(found) or 'none'}."
        )
    for key in ("x_train", "x_test"):
        if arrays[key].dtype == np.uint8:
            arrays[key] = arrays[key].astype(np.float32) / np.float32(255)
        elif arrays[key].dtype == np.float64:
            arrays[key] = arrays[key].astype(np.float32)
    return ArrayDataset(**arrays)


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
    for index, spec in enumerate(inputs):
        expected = tuple(spec.shape[1:])
        if expected[-1:] == (1,) and arrays[index].ndim == len(expected):
            arrays[index] = arrays[index][..., np.newaxis]  # grey images without a channel axis, as Keras takes them
        array = arrays[index]
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
        try:
            return [np.concatenate(parts) for parts in zip(*batches, strict=True)]
        except ValueError as error:
            raise DataError(f"{what} data must have batches of samples of one shape. Received: {error}.") from None
    if isinstance(data, Mapping):
        missing = [spec.name for spec in inputs if spec.name not in data]
        if missing:
            raise DataError(f"{what} data lacks the inputs {missing}. Received: {sorted(data)}.")
        return [_array(data[spec.name], what) for spec in inputs]
    if isinstance(data, (list, tuple)) and len(inputs) > 1:
        return [_array(array, what) for array in data]
    return [_array(data, what)]


def _array(data: Any, what: str) -> np.ndarray:
    try:
        array = np.asarray(data)
    except ValueError as error:  # ragged
        raise DataError(f"{what} data must be an array of samples of one shape. Received: {error}.") from None
    if array.ndim == 0:
        raise DataError(
            f"{what} data must be an array whose first axis counts the samples. Received: {type(data).__name__} "
            f"({data!r:.60}). Collect what a generator yields with np.stack, or batch a dataset."
        )
    return array
