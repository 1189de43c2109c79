"""The learning-rate range test: a short training at rising rates, after which the model is as before."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfopt.errors import ConfigError
from tfopt.schedules import check_steps, exponential
from tfopt.schedules.arguments import check_number, check_positive

from .configurable import Configurable
from .moving_average import MovingAverage, check_smoothing
from .range_test import RangeTest
from .restored_weights import restore_weights
from .training_clock import TrainingClock

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LearningRateFinder"]


class LearningRateFinder(Configurable, keras.callbacks.Callback):
    """Trains at learning rates that rise from step to step, suggests one, and puts the model back as it was.

    Use it in a fit of its own, before the training: compile the model as for the training, fit it with this callback
    alone, and read `suggestion`. The fit ends with the test, however many epochs it was given; give it enough for
    `steps`. Then weights, optimizer and random state are those of before, so that a training after it is the training
    that would have been without it.

    The suggestion is where the loss falls fastest: for a constant rate, or the peak of a decay. Higher peaks,
    below `result.lowest`, may pay with `one_cycle`. Look at the plot: with a noisy loss or few steps it is a guess.

    A step is one optimizer update. With `steps_per_execution=n` n steps share a rate and a loss. The loss in the logs
    of such a fit is that of a batch, not of the epoch so far. A fit that an exception ends leaves the model as
    trained at that point: `put_back` undoes it.

    Args:
        min_rate: the rate of the first step.
        max_rate: the rate of the last step.
        steps: how many there are, at least 2. The test ends before if the loss diverges.
        smoothing: of the moving average of losses that is judged, in [0, 1).
        divergence: the loss has diverged where its average is more than so many times the lowest so far, or not
            finite; above 1.

    Attributes:
        result: the `RangeTest` of the last fit, with `rates`, `losses` and `lowest`; None before.

    Raises:
        ConfigError: if an argument is out of range; in `fit`, if the optimizer's learning rate is itself a schedule.

    Warns:
        UserWarning: at the end of a fit that was shorter than the test, or whose loss never fell.

    Example:
        >>> keras.utils.set_random_seed(0)
        >>> x = np.random.default_rng(0).normal(size=(400, 8))
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> finder = LearningRateFinder(1e-4, 10.0, steps=50)
        >>> history = model.fit(x, x.sum(1), batch_size=8, callbacks=[finder], verbose=0)
        >>> 0.001 < finder.suggestion < 1
        True

    References: Smith 2017, arXiv:1506.01186, section 3.3.
    """

    def __init__(
        self,
        min_rate: float = 1e-6,
        max_rate: float = 1.0,
        *,
        steps: int = 100,
        smoothing: float = 0.9,
        divergence: float = 4.0,
    ) -> None:
        super().__init__()
        self.min_rate = check_positive("LearningRateFinder: min_rate", min_rate)
        self.max_rate = check_positive("LearningRateFinder: max_rate", max_rate)
        if self.max_rate <= self.min_rate:
            raise ConfigError(
                f"LearningRateFinder: max_rate must be above min_rate ({self.min_rate:g}). Received: {self.max_rate:g}."
            )
        self.steps = check_steps("LearningRateFinder: steps", steps, minimum=2)
        self.smoothing = check_smoothing("LearningRateFinder: smoothing", smoothing)
        self.divergence = check_number("LearningRateFinder: divergence", divergence)
        if self.divergence <= 1:
            raise ConfigError(f"LearningRateFinder: divergence must be above 1. Received: {self.divergence:g}.")
        self.result: RangeTest | None = None
        self._schedule = exponential(self.min_rate, steps=self.steps - 1, final=self.max_rate)
        self._before: list[tuple[keras.Variable, np.ndarray]] | None = None

    @property
    def suggestion(self) -> float | None:
        """The learning rate that the last fit suggests; None if its loss never fell.

        Raises:
            ConfigError: before the first fit.
        """
        return self._measured().suggestion

    def plot(self, path: str | Path | None = None) -> Figure:
        """Draws loss against learning rate: see `RangeTest.plot`.

        Raises:
            ConfigError: before the first fit, or if `path` cannot be written.
        """
        return self._measured().plot(path)

    def put_back(self) -> None:
        """Gives model and optimizer the state of before the test; needed only after a fit that an exception ended."""
        if self._before is not None:
            variables, values = zip(*self._before, strict=True)
            restore_weights(variables, values)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Refuses an optimizer whose rate cannot be set."""
        optimizer = self.model.optimizer
        if not isinstance(optimizer.learning_rate, keras.Variable):
            raise ConfigError(
                "LearningRateFinder: the optimizer's learning rate must be a number. Received: an optimizer whose "
                "learning_rate is itself a schedule. Compile with a number, such as Adam(learning_rate=0.001)."
            )
        if not optimizer.built:
            with self.model.distribute_strategy.scope():
                optimizer.build(self.model.trainable_variables)
        self._before = None
        self._clock: TrainingClock | None = None
        self._average, self._lowest = MovingAverage(self.smoothing), math.inf
        self._rates: list[float] = []
        self._losses: list[float] = []
        self._done = False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes how model and optimizer are, at the first epoch of the fit."""
        if self._before is None:
            # Not at the beginning of the fit, where BackupAndRestore may have its turn after this callback.
            variables = [*self.model.variables, *self.model.optimizer.variables]
            self._before = [(variable, keras.ops.convert_to_numpy(variable)) for variable in variables]
            self._clock = TrainingClock(self.model.optimizer, epoch=0, steps_per_epoch=None)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the rate of the coming step."""
        if self._clock is not None:
            self.model.optimizer.learning_rate = self._schedule(self._clock.step)
            # The loss in the logs is a mean over the epoch; that of this batch is wanted.
            self.model.reset_metrics()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the loss, and ends the fit if it diverged or the rates have all been tried."""
        if self._clock is None or self._done:
            return
        loss = float((logs or {}).get("loss", math.nan))
        average = self._average.update(loss)
        diverged = not math.isfinite(loss) or average > self._lowest + (self.divergence - 1) * abs(self._lowest)
        self._lowest = min(self._lowest, average)
        if math.isfinite(loss):
            self._rates.append(float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))
            self._losses.append(loss)
        if diverged or self._clock.step >= self.steps:
            self._done = self.model.stop_training = True
            # Here already, so that what other callbacks see at the end of the epoch is the model of before.
            self.put_back()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Puts model and optimizer back, and evaluates what was measured."""
        done = 0 if self._clock is None else self._clock.step
        self.put_back()  # once more, or for the first time in a fit that was shorter than the test
        self._before = None
        self.result = RangeTest(np.array(self._rates), np.array(self._losses), self.smoothing)
        if not self._done:
            warnings.warn(
                f"LearningRateFinder: the fit ended after {done} of {self.steps} steps, at a rate of "
                f"{self._rates[-1] if self._rates else self.min_rate:.3g}. Give it more epochs, or lower steps.",
                UserWarning,
                stacklevel=2,
            )
        elif self.result.suggestion is None:
            warnings.warn(
                f"LearningRateFinder: the loss never fell between {self.min_rate:g} and {self._rates[-1]:.3g}, so no "
                "rate is suggested. Lower min_rate, or take more steps.",
                UserWarning,
                stacklevel=2,
            )

    def _measured(self) -> RangeTest:
        if self.result is None:
            raise ConfigError(
                "LearningRateFinder: there is no range test yet. Received: a callback that was in no fit. "
                "Run model.fit(..., callbacks=[finder]) first."
            )
        return self.result
