"""At which training steps masks are selected anew, and the schedule objects of tensorflow-model-optimization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tfopt.errors import ConfigError
from tfopt.schedules import Schedule, check_steps

__all__ = ["DEFAULT_FREQUENCY", "UpdateSteps", "read_schedule"]

DEFAULT_FREQUENCY = 100


@dataclass(frozen=True)
class UpdateSteps:
    """The steps at which masks are selected anew: `begin`, and every `frequency` steps from there on, up to `end`.

    Args:
        begin: the first one.
        end: none is later; None: they never end.
        frequency: steps from one to the next.
        at_end: whether `end` is one of them, even where the frequency does not lead there.

    Example:
        >>> steps = UpdateSteps(begin=2, end=10, frequency=3)
        >>> [steps.latest(step) for step in (1, 2, 4, 5, 9, 10, 50)]
        [None, 2, 2, 5, 8, 10, 10]
    """

    begin: int
    end: int | None
    frequency: int
    at_end: bool = True

    def latest(self, step: int) -> int | None:
        """The last of them that is not after `step`; None if there is none yet."""
        if self.end is not None and step >= self.end:
            if self.at_end:
                return self.end
            step = self.end
        latest = step - (step - self.begin) % self.frequency
        # A schedule that begins before step 0 has its first update within the frequency.
        return latest if step >= self.begin and latest >= 0 else None

    @property
    def last(self) -> int | None:
        """The last of all; None if they never end, or there is none."""
        return None if self.end is None else self.latest(self.end)


def read_schedule(
    name: str, schedule: Schedule | None, begin_step: int, end_step: int | None, frequency: int
) -> tuple[Schedule | None, UpdateSteps]:
    """Reads what a user says of the schedule, which may be an object of `tfmot.sparsity.keras`.

    Such an object has steps of its own, and returns (whether to prune, sparsity). It counts from 1, and masks are
    selected before the forward pass of a step: its step t comes after t - 1 updates of the weights, which is step t - 1
    here. A negative `end_step` means that masks are selected as long as training goes on. The sparsity stays a float32,
    so that counts are rounded as tfmot rounds them.

    Args:
        name: whose arguments they are, for the error.
        schedule: a function from the step to a sparsity, such an object, or None.
        begin_step: the first step at which masks are selected.
        end_step: the last one; None, where there is a schedule: they never end.
        frequency: steps from one to the next.

    Returns:
        The schedule as a function from the step to a sparsity, None if there is none, and the steps.

    Raises:
        ConfigError: if an argument is out of range, or stated beside an object that states it as well.
    """
    if schedule is not None and not callable(schedule):
        raise ConfigError(
            f"{name}: schedule must be a function from the step to a sparsity. "
            f"Received: {schedule!r}. Wrap a number as tfopt.schedules.constant(number)."
        )
    if all(hasattr(schedule, attribute) for attribute in ("begin_step", "end_step", "frequency")):
        if (begin_step, end_step, frequency) != (0, None, DEFAULT_FREQUENCY):
            raise ConfigError(
                f"{name}: the schedule {type(schedule).__name__} has steps of its own. Received besides: "
                f"begin_step={begin_step!r}, end_step={end_step!r}, frequency={frequency!r}. Leave them out."
            )
        return _from_tfmot(schedule)
    begin_step = check_steps(f"{name}: begin_step", begin_step)
    if end_step is not None or schedule is None:
        end_step = check_steps(f"{name}: end_step", end_step)  # type: ignore[arg-type]
        if end_step < begin_step:
            raise ConfigError(f"{name}: end_step must be at least begin_step ({begin_step}). Received: {end_step}.")
    return schedule, UpdateSteps(begin_step, end_step, check_steps(f"{name}: frequency", frequency, minimum=1))


def _from_tfmot(schedule: Any) -> tuple[Schedule, UpdateSteps]:
    steps = UpdateSteps(
        begin=int(schedule.begin_step) - 1,
        end=None if int(schedule.end_step) < 0 else int(schedule.end_step) - 1,
        frequency=int(schedule.frequency),
        at_end=False,
    )

    def sparsity(step: int) -> Any:
        return np.float32(schedule(step + 1)[1])

    return sparsity, steps
