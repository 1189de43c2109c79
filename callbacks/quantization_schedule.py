"""When a quantize-aware model starts to round, and when its ranges and batch norms stand still."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from tfopt.errors import ConfigError, ModelError
from tfopt.quantization.layers import FakeQuantize, LearnedFakeQuantize
from tfopt.schedules import check_steps

from .configurable import Configurable
from .quantization_stage import QuantizationStage, ScheduledTrainStep, layers_that_round
from .training_clock import TrainingClock

__all__ = ["QuantizationSchedule"]


class QuantizationSchedule(Configurable, keras.callbacks.Callback):
    """Starts the rounding of a quantize-aware model, and freezes its ranges and batch norms, at given steps.

    Use it where quantization-aware training is unsteady: let the float model settle first, and near the end let the
    weights settle on ranges and statistics that no longer move, those that the file will have.

    - Before `start_step` a training step is the float model's, and about as fast. Moving ranges follow meanwhile;
      learned ranges wait.
    - From `freeze_ranges_step` on, moving and learned ranges are constant.
    - From `freeze_batch_norm_step` on, batch norms normalize with their moving statistics, as they do at inference,
      and leave them; gamma and beta are trained on.

    Only training steps are scheduled. `evaluate` and `predict`, validation during `fit` included, always compute what
    the file will, so that their figures can be compared over the whole fit and a checkpoint repeats them when loaded.

    Steps are optimizer updates of this training: 0 at epoch 0 of every fit; a fit resumed with `initial_epoch` or
    `BackupAndRestore` goes on where it stood. With `steps_per_execution=n` a change waits for the n steps that it falls
    into to end. At each change Keras traces the train step anew, which takes as long as at the start of a fit.

    The schedule ends with the fit: a later fit without this callback rounds and moves everything again, and so does a
    model loaded from a file, checkpoints included. Layers that were frozen before stay frozen. A fit that ends by an
    exception leaves its last stage on until the next fit with this callback.

    With `use_ema=True` Keras averages learned ranges like weights, frozen or not.

    Args:
        start_step: the first step that rounds.
        freeze_ranges_step: the first step with constant ranges, at least `start_step`; None means never.
        freeze_batch_norm_step: the first step with constant batch norm statistics, likewise.

    Raises:
        ConfigError: if a step is not a whole number of at least 0, something is frozen before `start_step`, or a fit
            has two of these callbacks.
        ModelError: in `fit`, if the model is not quantize-aware, or ranges are to be frozen that were never observed.

    Warns:
        UserWarning: at the end of a fit that did not get as far as each of the steps.

    Example:
        >>> import numpy as np
        >>> from tfopt.quantization import quantize_aware
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> aware = quantize_aware(model)
        >>> aware.compile("sgd", "mse")
        >>> x = np.random.default_rng(0).normal(size=(32, 4))
        >>> schedule = QuantizationSchedule(start_step=2, freeze_ranges_step=6)
        >>> history = aware.fit(x, x[:, :2], batch_size=4, verbose=0, callbacks=[schedule])

    References: Krishnamoorthi 2018, arXiv:1806.08342, section 3.2; Jacob et al. 2018, arXiv:1712.05877, section 3.1.
    """

    def __init__(
        self,
        start_step: int = 0,
        freeze_ranges_step: int | None = None,
        freeze_batch_norm_step: int | None = None,
    ) -> None:
        super().__init__()
        self.start_step = check_steps("QuantizationSchedule: start_step", start_step)
        self.freeze_ranges_step = self._not_before_start("freeze_ranges_step", freeze_ranges_step)
        self.freeze_batch_norm_step = self._not_before_start("freeze_batch_norm_step", freeze_batch_norm_step)
        self._clock: TrainingClock | None = None
        self._train_step: ScheduledTrainStep | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Takes its place around the model's train step."""
        leftover = self.model.train_step
        # A fit that an exception ended did not reach on_train_end. Callbacks of one fit share one `params`.
        if isinstance(leftover, ScheduledTrainStep):
            if leftover is not self._train_step and leftover.params is self.params:
                raise ConfigError("QuantizationSchedule: a fit takes one of these callbacks. Received: two.")
            leftover.leave()
        if not layers_that_round(self.model):
            raise ModelError(
                f"QuantizationSchedule: the model '{self.model.name}' is not quantize-aware. "
                "Make it so with tfopt.quantize_aware(model)."
            )
        # Built on all variables, before a stage leaves some of them out.
        if not self.model.optimizer.built:
            with self.model.distribute_strategy.scope():
                self.model.optimizer.build(self.model.trainable_variables)
        self._clock, self._train_step = None, ScheduledTrainStep(self.model, self.params)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the clock at the first epoch of the fit."""
        if self._clock is None:
            self._clock = TrainingClock(
                self.model.optimizer, epoch=epoch, steps_per_epoch=(self.params or {}).get("steps")
            )

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Has the train step traced anew if the coming step is of another stage."""
        if self._clock is None or self._train_step is None:  # a custom loop that never began an epoch
            return
        step = self._clock.step
        stage = QuantizationStage(
            rounds=step >= self.start_step,
            ranges_frozen=self.freeze_ranges_step is not None and step >= self.freeze_ranges_step,
            batch_norm_frozen=self.freeze_batch_norm_step is not None and step >= self.freeze_batch_norm_step,
        )
        if stage.ranges_frozen and not self._train_step.stage.ranges_frozen:
            self._check_ranges(step)
        self._train_step.enter(stage)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Gives the model its own train step back; warns of steps that the fit did not reach."""
        if self._train_step is not None:
            self._train_step.leave()
            self._train_step = None
        if self._clock is None:
            return
        done = self._clock.step
        missed = [
            f"{name}={step}"
            for name, step in (
                ("start_step", self.start_step),
                ("freeze_ranges_step", self.freeze_ranges_step),
                ("freeze_batch_norm_step", self.freeze_batch_norm_step),
            )
            if step is not None and step >= done
        ]
        if missed:
            warnings.warn(
                f"QuantizationSchedule: the fit ended after {done} steps, before {' and '.join(missed)}. "
                "Train longer, or lower the steps.",
                UserWarning,
                stacklevel=2,
            )

    def _not_before_start(self, name: str, step: int | None) -> int | None:
        if step is None:
            return None
        step = check_steps(f"QuantizationSchedule: {name}", step)
        if step < self.start_step:
            raise ConfigError(
                f"QuantizationSchedule: {name} must be at least start_step ({self.start_step}). Received: {step}."
            )
        return step

    def _check_ranges(self, step: int) -> None:
        unknown = [
            layer.name
            for layer in layers_that_round(self.model)
            if isinstance(layer, (FakeQuantize, LearnedFakeQuantize)) and not layer.is_known
        ]
        if unknown:
            raise ModelError(
                f"QuantizationSchedule: the ranges are to be frozen at step {step}, but {', '.join(unknown)} were "
                "never observed. Pass calibration=... to quantize_aware, or raise freeze_ranges_step."
            )
