"""Schedules: a value for every training step. One module serves learning rates and sparsities alike.

A schedule is any function from the step (0, 1, 2, ...) to a number. Those below are bounded by the values
they are given, monotone, and hold their last value for ever; `warmup` puts a linear start before any other.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

from tfopt.errors import ConfigError

__all__ = ["Schedule", "check_steps", "constant", "cosine", "polynomial", "step_decay", "warmup"]

Schedule = Callable[[int], float]
"""A function from the training step to a value."""


def constant(value: float) -> Schedule:
    """The same value at every step.

    Raises:
        ConfigError: if the value is not a finite number.

    Example:
        >>> constant(0.01)(500)
        0.01
    """
    value = _number("constant: value", value)
    return lambda step: value


def polynomial(initial: float, final: float, *, begin_step: int = 0, end_step: int, power: float = 3.0) -> Schedule:
    """Goes from `initial` at `begin_step` to `final` at `end_step`, fast at first where `power` is above 1.

    At step t it is `final + (initial - final) * (1 - (t - begin_step) / (end_step - begin_step))**power`.
    Power 3 is the usual sparsity ramp: it prunes most while there is still much to prune.

    Args:
        initial: the value until `begin_step`.
        final: the value from `end_step` on.
        begin_step: where the ramp starts, in steps.
        end_step: where it ends; equal to `begin_step`, the value jumps.
        power: 1 is a straight line.

    Raises:
        ConfigError: if a value is not finite, a step is not a whole number of at least 0, `end_step` is
            below `begin_step`, or `power` is not above 0.

    Example:
        >>> ramp = polynomial(0.0, 0.8, end_step=100)
        >>> [round(ramp(step), 3) for step in (0, 50, 100, 1000)]
        [0.0, 0.7, 0.8, 0.8]

    References: Zhu & Gupta 2017, arXiv:1710.01878, eq. 1.
    """
    initial, final = _number("polynomial: initial", initial), _number("polynomial: final", final)
    begin_step = check_steps("polynomial: begin_step", begin_step)
    end_step = check_steps("polynomial: end_step", end_step)
    if end_step < begin_step:
        raise ConfigError(f"polynomial: end_step must be at least begin_step ({begin_step}). Received: {end_step}.")
    power = _positive("polynomial: power", power)

    def value(step: int) -> float:
        if step >= end_step:
            return final
        if step <= begin_step:
            return initial
        return _between(initial, final, ((end_step - step) / (end_step - begin_step)) ** power)

    return value


def cosine(initial: float, *, steps: int, final: float = 0.0) -> Schedule:
    """Goes from `initial` at step 0 to `final` at step `steps` along half a cosine wave.

    At step t it is `final + (initial - final) * (1 + cos(pi * t / steps)) / 2`.

    Raises:
        ConfigError: if a value is not finite or `steps` is not a whole number of at least 1.

    Example:
        >>> decay = cosine(0.1, steps=100)
        >>> [round(decay(step), 3) for step in (0, 50, 100, 1000)]
        [0.1, 0.05, 0.0, 0.0]

    References: Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, without restarts.
    """
    initial, final = _number("cosine: initial", initial), _number("cosine: final", final)
    steps = check_steps("cosine: steps", steps, minimum=1)

    def value(step: int) -> float:
        if step >= steps:
            return final
        return _between(initial, final, 0.5 * (1 + math.cos(math.pi * max(step, 0) / steps)))

    return value


def step_decay(initial: float, *, factor: float, every_steps: int) -> Schedule:
    """Multiplies the value by `factor` once every `every_steps` steps.

    Raises:
        ConfigError: if `initial` is not finite, `factor` is not in (0, 1], or `every_steps` is not a whole
            number of at least 1.

    Example:
        >>> decay = step_decay(0.8, factor=0.5, every_steps=10)
        >>> [decay(step) for step in (0, 9, 10, 20)]
        [0.8, 0.8, 0.4, 0.2]
    """
    initial = _number("step_decay: initial", initial)
    factor = _positive("step_decay: factor", factor)
    if factor > 1:
        raise ConfigError(f"step_decay: factor must be in (0, 1]. Received: {factor:g}. Did you mean {1 / factor:.3g}?")
    every_steps = check_steps("step_decay: every_steps", every_steps, minimum=1)
    return lambda step: initial * factor ** (max(step, 0) // every_steps)


def warmup(schedule: Schedule, *, steps: int, start: float = 0.0) -> Schedule:
    """Goes linearly from `start` to where `schedule` begins, then follows `schedule`, shifted by `steps`.

    Args:
        schedule: what follows: at step t it is asked for `schedule(t - steps)`.
        steps: the length of the warm-up.
        start: the value at step 0.

    Raises:
        ConfigError: if `schedule` is not a function, `steps` is not a whole number of at least 1, or
            `start` is not finite.

    Example:
        >>> rate = warmup(cosine(0.1, steps=100), steps=10)
        >>> [round(rate(step), 3) for step in (0, 5, 10, 60, 110)]
        [0.0, 0.05, 0.1, 0.05, 0.0]
    """
    if not callable(schedule):
        raise ConfigError(
            f"warmup: schedule must be a function from the step to a value. Received: {schedule!r}. "
            "Wrap a number as constant(number)."
        )
    steps = check_steps("warmup: steps", steps, minimum=1)
    start = _number("warmup: start", start)
    first = _number("warmup: schedule(0)", schedule(0))

    def value(step: int) -> float:
        if step >= steps:
            return schedule(step - steps)
        return _between(first, start, max(step, 0) / steps)

    return value


def check_steps(name: str, value: int, *, minimum: int = 0) -> int:
    """Returns the value if it is a whole number of at least `minimum`: how arguments in steps are checked.

    Raises:
        ConfigError: if it is not; the message starts with `name`.
    """
    try:
        whole = operator.index(value)
    except TypeError:
        whole = minimum - 1
    if whole < minimum:
        raise ConfigError(f"{name} must be a whole number of at least {minimum}. Received: {value!r}.")
    return whole


def _between(initial: float, final: float, share: float) -> float:
    # Clamped, because rounding may carry the sum one unit in the last place out of the interval.
    low, high = min(initial, final), max(initial, final)
    return min(max(final + (initial - final) * share, low), high)


def _number(name: str, value: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{name} must be a finite number. Received: {value!r}.")
    return number


def _positive(name: str, value: float) -> float:
    number = _number(name, value)
    if number <= 0:
        raise ConfigError(f"{name} must be above 0. Received: {value!r}.")
    return number
