"""Weights of distillation losses that follow schedules, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from tfopt.distillation.distiller import Distiller
from tfopt.errors import ConfigError, ModelError
from tfopt.schedules import Schedule

from .configurable import Configurable
from .training_clock import TrainingClock

__all__ = ["DistillationSchedule"]


class DistillationSchedule(Configurable, keras.callbacks.Callback):
    """Sets the weights of a `Distiller`'s losses before every batch to `schedule(step)`.

    Use it where a loss is to matter at one end of the training only: a warm-up of `DecoupledLoss`, as its paper has it;
    hints on features at first and labels alone at last. A loss of weight 0 is computed all the same.

    A step is one optimizer update of this training: 0 at epoch 0 of every fit; a fit resumed with `initial_epoch` or
    `BackupAndRestore` goes on where it stood. With `steps_per_execution=n` the weights change once in n steps. At the
    end of an epoch the weights of its last step are in the logs, and so in the history, as "NAME_weight". When the fit
    ends the weights are again what they were before; a fit that ends by an exception leaves them where they stood.

    Args:
        weights: a schedule for each loss to be scheduled, by the name of the loss ("logits"), or "student" for the
            compiled loss: functions from the step to a weight of at least 0.

    Raises:
        ConfigError: if something is not a function; in `fit`, if the Distiller has no such loss, or a schedule gives a
            value that is negative or not finite.
        ModelError: in `fit`, if the model is not a `Distiller`.

    Example:
        >>> import numpy as np
        >>> from tfopt.schedules import constant, warmup
        >>> student, teacher = (keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]) for _ in range(2))
        >>> distiller = Distiller(student, teacher)
        >>> distiller.compile("adam")
        >>> schedule = DistillationSchedule({"logits": warmup(constant(1.0), steps=8)})
        >>> history = distiller.fit(np.ones((8, 2)), batch_size=2, epochs=2, callbacks=[schedule], verbose=0)
        >>> history.history["logits_weight"]
        [0.375, 0.875]
    """

    def __init__(self, weights: Mapping[str, Schedule]) -> None:
        super().__init__()
        if not isinstance(weights, Mapping) or not weights:
            raise ConfigError(
                f"DistillationSchedule: weights must map names of losses to schedules. Received: {weights!r}. "
                "Write {'logits': schedule}."
            )
        for name, schedule in weights.items():
            if not callable(schedule):
                raise ConfigError(
                    f"DistillationSchedule: the schedule of '{name}' must be a function from the step to a weight. "
                    f"Received: {schedule!r}. Wrap a number as tfopt.schedules.constant(number)."
                )
        self.weights = dict(weights)
        self._clock: TrainingClock | None = None
        self._before: dict[str, float] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Refuses a model without these losses."""
        self._clock = None
        if not isinstance(self.model, Distiller):
            raise ModelError(
                f"DistillationSchedule: the model must be a tfopt.Distiller. Received: {type(self.model).__name__}."
            )
        self._before = self.model.loss_weights
        unknown = sorted(set(self.weights) - set(self._before))
        if unknown:
            raise ConfigError(
                f"DistillationSchedule: the Distiller has losses of the names {', '.join(self._before)}. "
                f"Received: {', '.join(unknown)}."
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the clock at the first epoch of the fit."""
        if self._clock is None:
            self._clock = TrainingClock(
                self.model.optimizer, epoch=epoch, steps_per_epoch=(self.params or {}).get("steps")
            )

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the weights of the coming step."""
        if self._clock is None:  # a custom loop that never began an epoch
            return
        step = self._clock.step
        for name, schedule in self.weights.items():
            try:
                self.model.set_loss_weight(name, schedule(step))
            except ConfigError as error:
                raise ConfigError(f"DistillationSchedule: at step {step}: {error}") from None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the weights of the last step into the logs."""
        if logs is not None:
            now = self.model.loss_weights
            logs.update({f"{name}_weight": now[name] for name in self.weights})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the weights back."""
        for name in self.weights:
            self.model.set_loss_weight(name, self._before[name])
