"""What the exits of a network say of labelled samples."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfopt.data import check_samples
from tfopt.early_exit.confidence import predicted_classes
from tfopt.errors import DataError

__all__ = ["classes_of", "exit_outputs", "right_answers"]


def exit_outputs(network: keras.Model, x: Any, *, what: str) -> list[np.ndarray]:
    """The outputs of all exits, of shape `(n, classes)` each.

    Args:
        network: the model.
        x: samples, as `tfopt.data.check_samples` takes them.
        what: how messages call them.
    """
    arrays = check_samples(x, network.inputs, what=what)
    inputs = keras.tree.pack_sequence_as(network.input, arrays)
    outputs = keras.tree.flatten(network.predict(inputs, batch_size=256, verbose=0))
    return [np.asarray(output, np.float32) for output in outputs]


def right_answers(outputs: list[np.ndarray], y: Any, *, from_logits: bool) -> np.ndarray:
    """Whether each exit is right about each sample, of shape `(n, exits)`."""
    classes = classes_of(y, samples=len(outputs[0]))
    return np.stack([predicted_classes(output, from_logits=from_logits) == classes for output in outputs], axis=1)


def classes_of(y: Any, *, samples: int) -> np.ndarray:
    """Targets as class numbers of shape `(n,)`, from numbers of shape `(n,)` or `(n, 1)` or one-hot `(n, classes)`.

    Raises:
        DataError: if there are not as many as samples, or they are something else.

    Example:
        >>> classes_of([[0, 1], [1, 0]], samples=2).tolist()
        [1, 0]
    """
    targets = np.asarray(y)
    numbers = np.issubdtype(targets.dtype, np.number) or targets.dtype == bool
    if targets.ndim not in (1, 2) or len(targets) != samples or not numbers:
        raise DataError(
            f"Expected a target for each of {samples} samples: class numbers, or one-hot of shape "
            f"({samples}, classes). Received: shape {targets.shape}, dtype {targets.dtype}."
        )
    if targets.ndim == 2:
        targets = targets[:, 0] if targets.shape[1] == 1 else targets.argmax(axis=1)
    return targets.astype(np.int64)
