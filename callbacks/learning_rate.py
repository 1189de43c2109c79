"""A learning rate that follows a schedule, step by step."""

from __future__ import annotations

import math
from typing import Any

import keras

from tfopt.errors import ConfigError
from tfopt.schedules import Schedule

from .configurable import Configurable
from .training_clock import TrainingClock

__all__ = ["LearningRate"]


class LearningRate(Configurable, keras.callbacks.Callback):
    """Sets the optimizer's learning rate before every batch to `schedule(step)`.

    Use it with the functions of `tfopt.schedules`, or with any function of the step. Unlike a
    `keras.optimizers.schedules.LearningRateSchedule` it starts at step 0 in every fit, goes on where it
    stood in a fit resumed with `initial_epoch` or `BackupAndRestore`, and leaves the rate a plain variable.

    A step is one optimizer update: several batches with gradient accumulation. With `steps_per_execution=n`
    Keras calls it once every n steps, and those n steps share a rate. The rate is in the logs as
    "learning_rate": of every batch, for the progress bar and the callbacks after this one
    (`TensorBoard(update_freq="batch")` writes it as "batch_learning_rate"), and of the last step of every epoch, for
    the history and "epoch_learning_rate". It stays in the optimizer after the fit.

    Another callback that sets the rate (`ReduceLROnPlateau`) has no effect beside it: the next batch sets
    it again.

    Args:
        schedule: a function from the step (0 is the first update) to a learning rate of at least 0.

    `get_config` writes down schedules made by `tfopt.schedules`, and functions registered with Keras.

    Raises:
        ConfigError: if `schedule` is not a function; in `fit`, if it returns a value that is negative or not
            finite, or the optimizer's own learning rate is a schedule.

    Example:
        >>> import numpy as np
        >>> from tfopt.schedules import cosine, warmup
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("adam", "mse")
        >>> rate = LearningRate(warmup(cosine(0.1, steps=6), steps=2))
        >>> history = model.fit(np.ones((8, 2)), np.ones(8), batch_size=1, callbacks=[rate], verbose=0)
        >>> [round(value, 4) for value in history.history["learning_rate"]]
        [0.0067]
    """

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        if not callable(schedule):
            raise ConfigError(
                "LearningRate: schedule must be a function from the step to a learning rate. "
                f"Received: {schedule!r}. Wrap a number as tfopt.schedules.constant(number)."
            )
        self.schedule = schedule
        self._clock: TrainingClock | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Refuses an optimizer whose learning rate cannot be set."""
        self._clock = None
        if not isinstance(self.model.optimizer.learning_rate, keras.Variable):
            raise ConfigError(
                "LearningRate: the optimizer's learning rate must be a number. Received: an optimizer whose "
                "learning_rate is itself a schedule. Compile with a number, such as "
                "Adam(learning_rate=0.001)."
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the clock at the first epoch of the fit."""
        if self._clock is None:
            self._clock = TrainingClock(
                self.model.optimizer, epoch=epoch, steps_per_epoch=(self.params or {}).get("steps")
            )

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the rate of the coming step."""
        if self._clock is None:  # a custom loop that never began an epoch
            return
        step = self._clock.step
        value = self.schedule(step)
        try:
            rate = float(value)
        except (TypeError, ValueError):
            rate = math.nan
        if not 0 <= rate < math.inf:
            raise ConfigError(
                f"LearningRate: schedule({step}) must be a finite number of at least 0. Received: {value!r}."
            )
        self.model.optimizer.learning_rate = rate

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the rate of the step into the logs."""
        self._log(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the rate of the last step into the logs."""
        self._log(logs)

    def _log(self, logs: dict[str, Any] | None) -> None:
        if logs is not None:
            logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
