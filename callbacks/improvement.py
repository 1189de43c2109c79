"""Whether a monitored value still improves, and for how long it has not."""

from __future__ import annotations

import math
from typing import Any, Literal

import keras

from tfopt.errors import ConfigError

from .moving_average import MovingAverage

__all__ = ["Improvement", "Mode", "mode_of"]

Mode = Literal["min", "max"]


class Improvement:
    """Follows one monitored value.

    Args:
        mode: whether less or more is better.
        patience: values without improvement before it is exhausted.
        min_delta: the smallest change that counts.
        relative: whether `min_delta` is a fraction of the best value instead.
        smoothing: of the moving average that is compared, in [0, 1).
        baseline: an improvement that does not beat this one as well uses up patience.

    Attributes:
        best: the best value so far, smoothed; None before the first.
        waited: values since the last improvement.
        exhausted: whether the last value was no improvement and patience has run out.

    Example:
        >>> loss = Improvement("min", patience=2, min_delta=0.1)
        >>> [loss.update(value) for value in (1.0, 0.95, 0.8, 0.8, 0.8)], loss.exhausted
        ([True, False, True, False, False], True)
    """

    def __init__(
        self,
        mode: Mode,
        *,
        patience: int = 0,
        min_delta: float = 0.0,
        relative: bool = False,
        smoothing: float = 0.0,
        baseline: float | None = None,
    ) -> None:
        self.mode, self.patience, self.min_delta, self.relative = mode, patience, min_delta, relative
        self.baseline = baseline
        self.average = MovingAverage(smoothing)
        self.best: float | None = None
        self.waited = 0
        self.exhausted = False

    def update(self, value: float) -> bool:
        """Takes a value; returns whether it is an improvement. NaN and infinity never are, nor do they count in."""
        smoothed = self.average.update(value) if math.isfinite(value) else math.nan
        improved = self._beats(smoothed, self.best)
        if improved:
            self.best = smoothed
        self.waited = 0 if improved and self._beats(smoothed, self.baseline) else self.waited + 1
        self.exhausted = not improved and self.waited >= self.patience
        return improved

    def state(self) -> dict[str, Any]:
        """What it has seen, as values that JSON knows."""
        return {"best": self.best, "waited": self.waited, "sum": self.average.sum, "weight": self.average.weight}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` returned."""
        self.best, self.waited = state["best"], state["waited"]
        self.average.sum, self.average.weight = state["sum"], state["weight"]

    def _beats(self, value: float, reference: float | None) -> bool:
        if math.isnan(value):
            return False
        if reference is None:
            return True
        delta = self.min_delta * abs(reference) if self.relative else self.min_delta
        return value < reference - delta if self.mode == "min" else value > reference + delta


def mode_of(name: str, model: keras.Model) -> Mode:
    """Whether less or more of a monitored value is better, as Keras knows it of its own losses and metrics.

    Raises:
        ConfigError: if Keras does not know.
    """
    probe = keras.callbacks.EarlyStopping(monitor=name)
    probe.set_model(model)
    probe.on_train_begin()
    try:
        probe.on_epoch_end(0, {name: 0.0})
    except ValueError:
        raise ConfigError(
            f"EarlyStopping: nobody says whether less or more of '{name}' is better. Received: mode='auto'. "
            f"Write monitor={{'{name}': 'min'}} or 'max'."
        ) from None
    return "min" if bool(probe.monitor_op(0.0, 1.0)) else "max"
