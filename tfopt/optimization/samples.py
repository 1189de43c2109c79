"""Samples and targets as `optimize` hands them around, and the half that is held back."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfopt.data import check_samples
from tfopt.errors import DataError

__all__ = ["LabelledSamples", "checked_samples", "halves"]


@dataclass(frozen=True, eq=False)
class LabelledSamples:
    """Samples and their targets.

    Args:
        x: of shape `(n, ...)` as the model takes them: an array, or a list of one for each input.
        y: an array of n targets, or a structure of arrays.
    """

    x: Any
    y: Any

    def __len__(self) -> int:
        return len(keras.tree.flatten(self.x)[0])

    def at(self, rows: np.ndarray | slice) -> LabelledSamples:
        """Some of them."""

        def chosen(array: Any) -> np.ndarray:
            return np.asarray(array)[rows]

        return LabelledSamples(keras.tree.map_structure(chosen, self.x), keras.tree.map_structure(chosen, self.y))

    def sha256(self) -> bytes:
        """A digest of all numbers."""
        found = hashlib.sha256()
        for array in map(np.ascontiguousarray, keras.tree.flatten([self.x, self.y])):
            found.update(f"{array.shape} {array.dtype}".encode())
            found.update(array.tobytes())
        return found.digest()


def checked_samples(model: keras.Model, pair: Any, what: str) -> LabelledSamples:
    """What a user gave, held against the model.

    Args:
        model: which takes the samples.
        pair: a tuple `(x, y)`.
        what: how messages call the data.

    Raises:
        DataError: if it is no such tuple, does not fit the model, or has not as many targets as samples.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> len(checked_samples(model, (np.zeros((5, 2)), np.zeros(5)), "validation"))
        5
    """
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise DataError(f"optimize: the {what} data must be a tuple (x, y). Received: {type(pair).__name__}.")
    arrays = check_samples(pair[0], model.inputs, what=what)
    counts = {len(np.asarray(targets)) if np.ndim(targets) else 0 for targets in keras.tree.flatten(pair[1])}
    if counts != {len(arrays[0])}:
        raise DataError(
            f"optimize: the {what} data must have one target for each of its {len(arrays[0])} samples. "
            f"Received: {', '.join(map(str, sorted(counts)))}."
        )
    return LabelledSamples(arrays[0] if len(arrays) == 1 else arrays, pair[1])


def halves(samples: LabelledSamples) -> tuple[LabelledSamples, LabelledSamples]:
    """Every second sample, and those between them.

    Raises:
        DataError: if there is but one.

    Example:
        >>> first, second = halves(LabelledSamples(np.arange(5), np.arange(5)))
        >>> first.y.tolist(), second.y.tolist()
        ([0, 2, 4], [1, 3])
    """
    if len(samples) < 2:
        raise DataError(
            "optimize: expected at least 2 validation samples, as half are held back, or test=(x, y). Received: 1."
        )
    return samples.at(slice(0, None, 2)), samples.at(slice(1, None, 2))
