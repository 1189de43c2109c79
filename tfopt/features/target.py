"""What the columns are to tell: classes or values, with the kind of task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tfopt.errors import ConfigError, DataError

__all__ = ["FOLDS", "Target", "Task", "read_target"]

Task = Literal["classification", "regression"]

FOLDS = 3
"""Of cross-validation; so many samples there must be of each class."""
FEWEST_VALUES = 10


@dataclass(frozen=True, eq=False)
class Target:
    """Targets of shape `(n,)`.

    Args:
        values: class numbers from 0 on, or float64.
        classes: the classes in the order of their numbers; None for a regression.
    """

    values: np.ndarray
    classes: tuple[Any, ...] | None

    @property
    def task(self) -> Task:
        """Which kind of task it is."""
        return "regression" if self.classes is None else "classification"

    def at(self, rows: np.ndarray) -> Target:
        """Some of the targets."""
        return Target(self.values[rows], self.classes)


def read_target(y: Any, samples: int, task: Task | None = None) -> Target:
    """Reads targets.

    Args:
        y: n classes (whole numbers, truth values or words) or n float values, of shape `(n,)` or `(n, 1)`.
        samples: how many there should be.
        task: "classification" or "regression"; by default a regression for floats.

    Raises:
        DataError: if they are not as many, not finite, all the same, or too few of a class.
        ConfigError: if there is no such task.

    Example:
        >>> target = read_target(["yes", "no", "yes", "no", "no", "yes"], 6)
        >>> target.task, target.classes, target.values.tolist()
        ('classification', ('no', 'yes'), [1, 0, 1, 0, 0, 1])
    """
    if task not in (None, "classification", "regression"):
        raise ConfigError(f"task must be 'classification' or 'regression', or None. Received: {task!r}.")
    values = np.asarray(y)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or len(values) != samples:
        hint = " Give class numbers for one-hot rows: y.argmax(axis=1)." if values.ndim == 2 else ""
        raise DataError(f"y must have one target for each of {samples} samples. Received: shape {values.shape}.{hint}")
    if values.dtype.kind == "O":
        values = np.array(values.tolist())
    if values.dtype.kind not in "biufUS" or (values.dtype.kind in "US" and task == "regression"):
        raise DataError(f"y must hold classes or numbers that fit the task {task}. Received: dtype {values.dtype}.")
    if values.dtype.kind == "f" and not np.all(np.isfinite(values)):
        raise DataError(f"y must be finite. Received: {int(np.sum(~np.isfinite(values)))} NaN or infinite values.")
    if task == "regression" or (task is None and values.dtype.kind == "f"):
        if len(values) < FEWEST_VALUES or np.all(values == values[0]):
            raise DataError(
                f"y must have at least {FEWEST_VALUES} values that are not all the same. Received: {len(values)}."
            )
        return Target(values.astype(np.float64), None)
    classes, numbers, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(classes) < 2 or counts.min() < FOLDS:
        received = f"{counts.min()} of the class {classes[counts.argmin()]!s}" if len(classes) > 1 else "one class"
        raise DataError(
            f"y must hold at least two classes with {FOLDS} samples of each, to judge columns on samples held out. "
            f"Received: {received}. Leave out such classes, give more samples, or task='regression' for quantities."
        )
    return Target(numbers, tuple(classes.tolist()))
