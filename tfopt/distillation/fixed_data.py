"""Training data whose samples can be told by their place: arrays, and datasets that yield the same at every pass."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfopt.errors import ConfigError, DataError

__all__ = ["FixedData", "WithTeacher", "has_answers", "update_digest"]

BATCH_SIZE = 256


class WithTeacher(NamedTuple):
    """Samples, and for each teacher its answers to them, one tensor for each loss."""

    inputs: Any
    answers: tuple[tuple[Any, ...], ...]


class FixedData:
    """The samples of a training, in their order.

    Args:
        data: what `fit` takes as x: an array, a structure of arrays, or a finite tf.data.Dataset of batches of samples
            or of `(samples, targets, ...)`.

    Raises:
        ConfigError: if it is something else, or has no end.

    Example:
        >>> data = FixedData(np.zeros((300, 2)))
        >>> [len(batch) for batch in data.batches()], data.sizes
        ([256, 44], [256, 44])
    """

    def __init__(self, data: Any) -> None:
        self._data = data
        if isinstance(data, tf.data.Dataset):
            if data.cardinality() == tf.data.INFINITE_CARDINALITY:
                raise ConfigError(
                    "Distiller: cache=... stores one answer for each sample. Received: a dataset without an end. "
                    "Leave repeat() out, and let fit() run epochs."
                )
            return
        leaves = keras.tree.flatten(data)
        is_fixed = leaves and all(hasattr(leaf, "__array__") and getattr(leaf, "shape", ()) for leaf in leaves)
        if not is_fixed or len({len(leaf) for leaf in leaves}) != 1:
            raise ConfigError(
                "Distiller: cache=... stores one answer for each sample, so fit() must get arrays of as many samples "
                f"each, or a tf.data.Dataset. Received: {type(data).__name__}. Load the data into arrays (np.load with "
                "mmap_mode='r' leaves them on disk), or leave the cache out."
            )

    def batches(self) -> Iterator[Any]:
        """The samples, in batches of the same structure."""
        if isinstance(self._data, tf.data.Dataset):
            for element in self._data.as_numpy_iterator():
                yield element[0] if isinstance(element, tuple) else element
            return
        samples = keras.tree.map_structure(np.asarray, self._data)
        for start in range(0, len(keras.tree.flatten(samples)[0]), BATCH_SIZE):
            yield keras.tree.map_structure(lambda array: array[start : start + BATCH_SIZE], samples)  # noqa: B023

    @cached_property
    def _scanned(self) -> tuple[str, list[int]]:
        digest, sizes = hashlib.sha256(), []
        for batch in self.batches():
            update_digest(digest, batch)
            sizes.append(len(keras.tree.flatten(batch)[0]))
        if not sizes:
            raise DataError("Distiller: the data to cache answers for is empty: give at least one sample.")
        return digest.hexdigest(), sizes

    @property
    def sha256(self) -> str:
        """The digest of all samples in their order."""
        return self._scanned[0]

    @property
    def sizes(self) -> list[int]:
        """How many samples each batch has."""
        return self._scanned[1]

    def join(self, answers: tuple[tuple[np.ndarray, ...], ...]) -> Any:
        """Puts answers of shape `(samples, ...)` beside the samples, as `fit` takes them."""
        if not isinstance(self._data, tf.data.Dataset):
            return WithTeacher(self._data, answers)
        ends = np.cumsum(self.sizes)

        def by_batch() -> Iterator[Any]:
            for end, size in zip(ends, self.sizes, strict=True):
                yield keras.tree.map_structure(lambda array: np.array(array[end - size : end]), answers)  # noqa: B023

        def joined(element: Any, batch_answers: Any) -> Any:
            # A tuple also without targets: fit() takes a pair for samples and targets.
            if not isinstance(element, tuple):
                return (WithTeacher(element, batch_answers),)
            return (WithTeacher(element[0], batch_answers), *element[1:])

        signature = keras.tree.map_structure(
            lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), answers
        )
        answered = tf.data.Dataset.from_generator(by_batch, output_signature=signature)
        dataset = tf.data.Dataset.zip(self._data, answered).map(joined)
        return dataset.apply(tf.data.experimental.assert_cardinality(len(self.sizes))).prefetch(tf.data.AUTOTUNE)


def has_answers(data: Any) -> bool:
    """Whether answers are beside the samples already."""
    if not isinstance(data, tf.data.Dataset):
        return isinstance(data, WithTeacher)
    specs = data.element_spec
    return isinstance(specs, tuple) and isinstance(specs[0], WithTeacher)


def update_digest(digest: Any, arrays: Any) -> None:
    """Adds arrays, their shapes and dtypes to a digest of hashlib.

    Raises:
        ConfigError: if an array holds Python objects.
    """
    for leaf in keras.tree.flatten(arrays):
        array = np.ascontiguousarray(leaf)
        if array.dtype == object and not all(isinstance(item, bytes) for item in array.flat):
            raise ConfigError(
                "Distiller: cache=... needs arrays of numbers or text. Received: dtype object. Convert it with astype."
            )
        digest.update(f"{array.shape} {array.dtype.str}".encode())
        digest.update(b"\0".join(array.flat) if array.dtype == object else array.tobytes())
