"""A schedule as Keras's optimizers take them: computed in tensors, and saved with the model."""

from __future__ import annotations

from typing import Any

import keras

from tfopt.errors import ConfigError
from tfopt.schedules.formula import Formula

__all__ = ["as_keras"]


def as_keras(schedule: Formula) -> keras.optimizers.schedules.LearningRateSchedule:
    """Makes a schedule of `tfopt.schedules` one that an optimizer takes as its `learning_rate`.

    Use it for a custom training loop, or with tools that expect Keras's own; in `model.fit` the callback
    `LearningRate` is the better choice. The rate is computed in float32 within the compiled step, so it changes at
    every step with `steps_per_execution` and `jit_compile` too. Its step is `optimizer.iterations`, which goes on
    counting when a model is fitted a second time.

    Args:
        schedule: what a function of `tfopt.schedules` returned. Import this function before a model that was
            compiled with the result is loaded: that makes it known to Keras.

    Raises:
        ConfigError: if it is, or has as a part, a function of one's own: that has no form that Keras could save.

    Example:
        >>> from tfopt.schedules import constant, warmup
        >>> optimizer = keras.optimizers.SGD(as_keras(warmup(constant(0.1), steps=10)))
        >>> _ = optimizer.iterations.assign(5)
        >>> round(float(optimizer.learning_rate), 3)
        0.05
    """
    if not isinstance(schedule, Formula):
        raise ConfigError(
            f"as_keras: schedule must be made by the functions of tfopt.schedules. Received: {schedule!r}. "
            "The callback LearningRate takes any function of the step."
        )
    schedule.get_config()  # a part that cannot be written down is refused here, not when the model is saved
    return _KerasSchedule(schedule)


@keras.saving.register_keras_serializable(package="tfopt", name="Schedule")
class _KerasSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A formula that is asked for the optimizer's iterations."""

    def __init__(self, schedule: Formula) -> None:
        self.schedule = schedule

    def __call__(self, step: Any) -> Any:
        """The learning rate at a step, a scalar of float32."""
        value = self.schedule.compute(keras.ops.cast(step, "float32"), keras.ops)
        return keras.ops.cast(value, "float32")

    def get_config(self) -> dict[str, Any]:
        return self.schedule.get_config()

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> _KerasSchedule:
        return cls(Formula.from_config(config))
