"""Training and validation data as a search takes them: tuples of arrays, or datasets."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfopt.errors import DataError

__all__ = ["check_fit_data", "fit_arguments", "some_samples"]


def check_fit_data(verb: str, train: Any, validation: Any) -> None:
    """Refuses what is neither a tuple `(x, y)` nor a tf.data.Dataset.

    Raises:
        DataError: if one of them is not.
    """
    for name, data in (("train", train), ("validation", validation)):
        if not (isinstance(data, tuple) and len(data) == 2) and not hasattr(data, "as_numpy_iterator"):
            raise DataError(
                f"{verb}: {name} must be a tuple (x, y) or a tf.data.Dataset of batches. "
                f"Received: {type(data).__name__}."
            )


def fit_arguments(train: Any, validation: Any, batch_size: int) -> dict[str, Any]:
    """The data as arguments of Keras's `fit`."""
    if isinstance(train, tuple):
        return {"x": train[0], "y": train[1], "batch_size": batch_size, "validation_data": validation}
    return {"x": train, "validation_data": validation, "shuffle": False}  # a dataset shuffles itself


def some_samples(data: Any, limit: int) -> tuple[Any, Any]:
    """Some samples with their targets: evenly spaced ones of arrays, the first ones of a dataset.

    Args:
        data: a tuple `(x, y)`, where x may be several arrays, or a tf.data.Dataset of batches `(x, y)`.
        limit: at most so many.

    Raises:
        DataError: if there are none, or a dataset gives no pairs.

    Example:
        >>> some_samples((np.arange(10), np.arange(10)), limit=3)[1]
        array([0, 4, 9])
    """
    if isinstance(data, tuple):
        count = len(keras.tree.flatten(data[1])[0])
        chosen = np.linspace(0, count - 1, min(count, limit)).round().astype(int)
    else:
        batches, taken = [], 0
        for batch in data.as_numpy_iterator():
            if not isinstance(batch, tuple) or len(batch) < 2:
                raise DataError(f"The dataset must give batches (x, y). Received: {type(batch).__name__}.")
            batches.append(batch[:2])
            taken += len(keras.tree.flatten(batch[1])[0])
            if taken >= limit:
                break
        data = keras.tree.map_structure(lambda *parts: np.concatenate(parts), *batches) if batches else ((), ())
        chosen = np.arange(min(taken, limit))
    if len(chosen) == 0:
        raise DataError("The training data is empty: give at least one sample.")
    x, y = keras.tree.map_structure(lambda array: np.asarray(array)[chosen], data)
    return x, y
