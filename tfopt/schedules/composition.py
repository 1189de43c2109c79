"""Schedules made of others, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfopt.errors import ConfigError
from tfopt.schedules.arguments import check_number, check_positive, check_steps
from tfopt.schedules.curves import constant, cosine, polynomial
from tfopt.schedules.formula import Compute, Formula, Schedule, formula, value_at

__all__ = ["cosine_restarts", "one_cycle", "sequence", "warmup", "warmup_stable_decay"]


@formula
def sequence(parts: Sequence[tuple[Schedule, int]], *, then: Schedule) -> Compute:
    """Follows one schedule after the other; each begins at its own step 0.

    Args:
        parts: schedules with their lengths in steps.
        then: what follows the last of them, for ever.

    Raises:
        ConfigError: if a part is not a pair of a function and a whole number of at least 1, or `then` is not a
            function.

    Example:
        >>> rate = sequence([(constant(0.1), 50), (constant(0.2), 10)], then=cosine(0.1, steps=100))
        >>> [round(rate(step), 3) for step in (0, 49, 50, 60, 110, 160)]
        [0.1, 0.1, 0.2, 0.1, 0.05, 0.0]
    """
    try:
        pairs = [(schedule, steps) for schedule, steps in parts]
    except (TypeError, ValueError):
        raise ConfigError(
            f"sequence: parts must be pairs of a schedule and its length in steps. Received: {parts!r}."
        ) from None
    timed: list[tuple[int, int, Schedule]] = []  # where a part begins, its last step, and the part
    end = 0
    for schedule, steps in pairs:
        length = check_steps("sequence: the length of a part", steps, minimum=1)
        timed.append((end, length - 1, _check_schedule("sequence: a part", schedule)))
        end += length
    following = _check_schedule("sequence: then", then)

    def compute(step: Any, ops: Any) -> Any:
        value = value_at(following, ops.maximum(step - end, 0), ops)
        for begin, last, schedule in reversed(timed):
            # Each part is asked within its own steps only, whichever of them is chosen.
            part = value_at(schedule, ops.clip(step - begin, 0, last), ops)
            value = ops.where(step <= begin + last, part, value)
        return value

    return compute


def warmup(schedule: Schedule, steps: int, *, start: float = 0.0) -> Formula:
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

    References: Goyal et al. 2017, arXiv:1706.02677, section 2.2.
    """
    _check_schedule("warmup: schedule", schedule)
    steps = check_steps("warmup: steps", steps, minimum=1)
    start = check_number("warmup: start", start)
    first = check_number("warmup: schedule(0)", schedule(0))
    return sequence([(polynomial(start, first, end_step=steps, power=1.0), steps)], then=schedule)


def cosine_restarts(
    initial: float,
    *,
    steps: int,
    restarts: int,
    final: float = 0.0,
    length_factor: float = 2.0,
    peak_factor: float = 1.0,
) -> Formula:
    """Half a cosine wave from `initial` to `final`, then `restarts` more, each longer by `length_factor`.

    Args:
        initial: where the first wave begins.
        steps: the length of the first wave; those of the others are rounded to whole steps.
        restarts: how many waves follow. After the last one the value stays at `final`.
        final: where each wave ends.
        length_factor: at least 1; 2 doubles the length with every restart, as the paper does.
        peak_factor: in (0, 1]: what the height of a wave above `final` is multiplied by, with every restart.

    Raises:
        ConfigError: if a value is out of range.

    Example:
        >>> rate = cosine_restarts(0.1, steps=100, restarts=1)
        >>> [round(rate(step), 3) for step in (0, 50, 99, 100, 200, 300)]
        [0.1, 0.05, 0.0, 0.1, 0.05, 0.0]

    References: Loshchilov & Hutter 2017, arXiv:1608.03983, section 3 (SGDR).
    """
    initial, final = check_number("cosine_restarts: initial", initial), check_number("cosine_restarts: final", final)
    steps = check_steps("cosine_restarts: steps", steps, minimum=1)
    restarts = check_steps("cosine_restarts: restarts", restarts)
    length_factor = check_positive("cosine_restarts: length_factor", length_factor)
    if length_factor < 1:
        raise ConfigError(f"cosine_restarts: length_factor must be at least 1. Received: {length_factor:g}.")
    peak_factor = check_positive("cosine_restarts: peak_factor", peak_factor)
    if peak_factor > 1:
        raise ConfigError(f"cosine_restarts: peak_factor must be in (0, 1]. Received: {peak_factor:g}.")
    waves = []
    for number in range(restarts + 1):
        length = round(steps * length_factor**number)
        peak = initial if number == 0 else final + (initial - final) * peak_factor**number
        waves.append((cosine(peak, steps=length, final=final), length))
    return sequence(waves[:-1], then=waves[-1][0])


def one_cycle(
    peak: float,
    *,
    steps: int,
    warmup_fraction: float = 0.3,
    initial: float | None = None,
    final: float | None = None,
) -> Formula:
    """Rises from `initial` to `peak` and falls to `final`, along half a cosine wave each, in `steps` steps.

    Use it with a high peak (`LearningRateFinder` finds one) for a training whose length is known.

    Args:
        peak: the highest value.
        steps: the length of the whole cycle, at least 2.
        warmup_fraction: how much of it rises, in (0, 1).
        initial: where it begins; default: a 25th of the peak.
        final: where it ends and stays; default: a 10,000th of `initial`.

    Raises:
        ConfigError: if a value is not finite, or `steps` or `warmup_fraction` is out of range.

    Example:
        >>> rate = one_cycle(0.1, steps=100)
        >>> [round(rate(step), 3) for step in (0, 15, 30, 65, 100)]
        [0.004, 0.052, 0.1, 0.05, 0.0]

    References: Smith & Topin 2017, arXiv:1708.07120; cosine instead of straight lines as in fastai.
    """
    peak = check_number("one_cycle: peak", peak)
    steps = check_steps("one_cycle: steps", steps, minimum=2)
    warmup_fraction = check_number("one_cycle: warmup_fraction", warmup_fraction)
    if not 0 < warmup_fraction < 1:
        raise ConfigError(f"one_cycle: warmup_fraction must be in (0, 1). Received: {warmup_fraction:g}.")
    initial = peak / 25 if initial is None else check_number("one_cycle: initial", initial)
    final = initial / 10_000 if final is None else check_number("one_cycle: final", final)
    rise = min(max(round(warmup_fraction * steps), 1), steps - 1)
    return sequence(
        [(cosine(initial, steps=rise, final=peak), rise)], then=cosine(peak, steps=steps - rise, final=final)
    )


def warmup_stable_decay(
    peak: float, *, warmup_steps: int, stable_steps: int, decay_steps: int, final: float = 0.0
) -> Formula:
    """Rises linearly from 0 to `peak`, stays there, and falls linearly to `final`.

    Use it where the length of the training is not settled at its start: any checkpoint of the stable part can be
    finished with a decay, or trained on. A tenth to a fifth of the steps is enough for the decay.

    Args:
        peak: the value in between.
        warmup_steps: how long it rises.
        stable_steps: how long it stays.
        decay_steps: how long it falls.
        final: where it ends and stays.

    Raises:
        ConfigError: if a value is not finite, or a length not a whole number of at least 1.

    Example:
        >>> rate = warmup_stable_decay(0.1, warmup_steps=10, stable_steps=80, decay_steps=10)
        >>> [round(rate(step), 3) for step in (0, 5, 10, 90, 95, 100)]
        [0.0, 0.05, 0.1, 0.1, 0.05, 0.0]

    References: Hu et al. 2024, arXiv:2404.06395, section 4; Hägele et al. 2024, arXiv:2405.18392.
    """
    peak, final = check_number("warmup_stable_decay: peak", peak), check_number("warmup_stable_decay: final", final)
    rise = check_steps("warmup_stable_decay: warmup_steps", warmup_steps, minimum=1)
    stay = check_steps("warmup_stable_decay: stable_steps", stable_steps, minimum=1)
    fall = check_steps("warmup_stable_decay: decay_steps", decay_steps, minimum=1)
    decay = polynomial(peak, final, end_step=fall, power=1.0)
    return sequence([(polynomial(0.0, peak, end_step=rise, power=1.0), rise), (constant(peak), stay)], then=decay)


def _check_schedule(name: str, schedule: Schedule) -> Schedule:
    if not callable(schedule):
        raise ConfigError(
            f"{name} must be a function from the step to a value. Received: {schedule!r}. "
            "Wrap a number as constant(number)."
        )
    return schedule
