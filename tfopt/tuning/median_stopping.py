"""Trials that fall behind the others are given up: the median stopping rule."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any, Literal

import keras

__all__ = ["MedianStopping", "is_behind"]

Direction = Literal["min", "max"]


def is_behind(values: Sequence[float], others: Sequence[Sequence[float]], direction: Direction, fewest: int) -> bool:
    """Whether the best value of a trial so far is worse than the median of what others had on average by then.

    Args:
        values: of the trial, one for each epoch so far.
        others: of the trials before, likewise; those that did not get so far do not count.
        direction: whether small or large values are good.
        fewest: with fewer others to compare with, nothing is behind.

    Example:
        >>> is_behind([0.2, 0.3], [[0.5, 0.7], [0.4, 0.8], [0.1, 0.2]], "max", fewest=3)
        True
        >>> is_behind([0.2, 0.6], [[0.5, 0.7], [0.4, 0.8], [0.1, 0.2]], "max", fewest=3)
        False

    References: Golovin et al. 2017 (Google Vizier), section 3.2.2, doi:10.1145/3097983.3098043.
    """
    epochs = len(values)
    means = [sum(other[:epochs]) / epochs for other in others if len(other) >= epochs > 0]
    if len(means) < fewest or not means:
        return False
    return max(values) < median(means) if direction == "max" else min(values) > median(means)


class MedianStopping(keras.callbacks.Callback):
    """Ends a fit that falls behind earlier ones.

    Args:
        monitor: the name of the logged value.
        direction: whether small or large values are good.
        others: the values of earlier fits, one list for each.
        fewest: earlier fits that there must be.

    Attributes:
        values: of this fit, one for each epoch.
        gave_up: whether it ended the fit.

    Example:
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> stopping = MedianStopping("loss", "min", [[0.0] * 9] * 3, fewest=3)
        >>> ones = keras.ops.ones((4, 1))
        >>> history = model.fit(ones, 9 * ones, epochs=9, verbose=0, callbacks=[stopping])
        >>> stopping.gave_up, len(history.epoch)
        (True, 1)
    """

    def __init__(self, monitor: str, direction: Direction, others: Sequence[Sequence[float]], *, fewest: int) -> None:
        super().__init__()
        self.monitor, self.direction, self.others, self.fewest = monitor, direction, others, fewest
        self.values: list[float] = []
        self.gave_up = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compares."""
        value = (logs or {}).get(self.monitor)
        if value is None:
            return
        self.values.append(float(value))
        if is_behind(self.values, self.others, self.direction, self.fewest):
            self.gave_up = self.model.stop_training = True
