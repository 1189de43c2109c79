"""The simple schedules: each is one formula, bounded by the values it is given, and monotone."""

from __future__ import annotations

import math
from typing import Any

from tfopt.errors import ConfigError
from tfopt.schedules.arguments import check_number, check_positive, check_steps
from tfopt.schedules.formula import Compute, formula

__all__ = ["constant", "cosine", "exponential", "polynomial", "step_decay"]


@formula
def constant(value: float) -> Compute:
    """The same value at every step.

    Raises:
        ConfigError: if the value is not a finite number.

    Example:
        >>> constant(0.01)(500)
        0.01
    """
    number = check_number("constant: value", value)
    return lambda step, ops: number


@formula
def polynomial(initial: float, final: float, *, begin_step: int = 0, end_step: int, power: float = 3.0) -> Compute:
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
    first, last = check_number("polynomial: initial", initial), check_number("polynomial: final", final)
    begin, end = check_steps("polynomial: begin_step", begin_step), check_steps("polynomial: end_step", end_step)
    if end < begin:
        raise ConfigError(f"polynomial: end_step must be at least begin_step ({begin}). Received: {end}.")
    exponent = check_positive("polynomial: power", power)

    def compute(step: Any, ops: Any) -> Any:
        share = ops.power(ops.clip((end - step) / max(end - begin, 1), 0.0, 1.0), exponent)
        ramp = ops.where(step <= begin, first, _between(first, last, share, ops))
        return ops.where(step >= end, last, ramp)

    return compute


@formula
def cosine(initial: float, *, steps: int, final: float = 0.0) -> Compute:
    """Goes from `initial` at step 0 to `final` at step `steps` along half a cosine wave.

    At step t it is `final + (initial - final) * (1 + cos(pi * t / steps)) / 2`.

    Raises:
        ConfigError: if a value is not finite or `steps` is not a whole number of at least 1.

    Example:
        >>> decay = cosine(0.1, steps=100)
        >>> [round(decay(step), 3) for step in (0, 50, 100, 1000)]
        [0.1, 0.05, 0.0, 0.0]

    References: Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5; `cosine_restarts` begins anew.
    """
    first, last = check_number("cosine: initial", initial), check_number("cosine: final", final)
    length = check_steps("cosine: steps", steps, minimum=1)

    def compute(step: Any, ops: Any) -> Any:
        share = 0.5 * (1 + ops.cos(math.pi * ops.clip(step, 0, length) / length))
        wave = ops.where(step <= 0, first, _between(first, last, share, ops))
        return ops.where(step >= length, last, wave)

    return compute


@formula
def exponential(initial: float, *, steps: int, final: float) -> Compute:
    """Goes from `initial` at step 0 to `final` at step `steps`, by the same factor at every step.

    At step t it is `initial * (final / initial)**(t / steps)`. Up or down; the learning-rate range test goes up so.

    Raises:
        ConfigError: if a value is not above 0, or `steps` is not a whole number of at least 1.

    Example:
        >>> decay = exponential(1.0, steps=4, final=0.0001)
        >>> [round(decay(step), 4) for step in (0, 1, 2, 4, 1000)]
        [1.0, 0.1, 0.01, 0.0001, 0.0001]
    """
    first, last = check_positive("exponential: initial", initial), check_positive("exponential: final", final)
    length = check_steps("exponential: steps", steps, minimum=1)
    low, high, rate = min(first, last), max(first, last), math.log(last / first)

    def compute(step: Any, ops: Any) -> Any:
        value = first * ops.exp(rate * ops.clip(step, 0, length) / length)
        bounded = ops.where(step <= 0, first, ops.clip(value, low, high))
        return ops.where(step >= length, last, bounded)

    return compute


@formula
def step_decay(initial: float, *, factor: float, every_steps: int) -> Compute:
    """Multiplies the value by `factor` once every `every_steps` steps.

    Raises:
        ConfigError: if `initial` is not finite, `factor` is not in (0, 1], or `every_steps` is not a whole
            number of at least 1.

    Example:
        >>> decay = step_decay(0.8, factor=0.5, every_steps=10)
        >>> [decay(step) for step in (0, 9, 10, 20)]
        [0.8, 0.8, 0.4, 0.2]
    """
    first = check_number("step_decay: initial", initial)
    share = check_positive("step_decay: factor", factor)
    if share > 1:
        raise ConfigError(f"step_decay: factor must be in (0, 1]. Received: {share:g}. Did you mean {1 / share:.3g}?")
    length = check_steps("step_decay: every_steps", every_steps, minimum=1)
    return lambda step, ops: first * ops.power(share, ops.floor(ops.maximum(step, 0) / length))


def _between(first: float, last: float, share: Any, ops: Any) -> Any:
    # Clamped, because rounding may carry the sum one unit in the last place out of the interval.
    return ops.clip(last + (first - last) * share, min(first, last), max(first, last))
