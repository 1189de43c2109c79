"""Checks of the numbers that schedules, losses, and callbacks that count steps, are given."""

from __future__ import annotations

import math
import operator

from tfopt.errors import ConfigError

__all__ = ["check_number", "check_positive", "check_steps"]


def check_steps(name: str, value: int, *, minimum: int = 0) -> int:
    """Returns `value` if it is a whole number of at least `minimum`: how arguments in steps are checked.

    Raises:
        ConfigError: if it is not; the message starts with `name`.

    Example:
        >>> check_steps("cosine: steps", 5.5)
        Traceback (most recent call last):
        ...
        tfopt.errors.ConfigError: cosine: steps must be a whole number of at least 0. Received: 5.5.
    """
    try:
        whole = operator.index(value)
    except TypeError:
        whole = minimum - 1
    if whole < minimum:
        raise ConfigError(f"{name} must be a whole number of at least {minimum}. Received: {value!r}.")
    return whole


def check_number(name: str, value: float) -> float:
    """Returns the value as a float if it is a finite number.

    Raises:
        ConfigError: if it is not; the message starts with `name`.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{name} must be a finite number. Received: {value!r}.")
    return number


def check_positive(name: str, value: float, *, or_zero: bool = False) -> float:
    """Returns the value as a float if it is a finite number above 0 (or at least 0).

    Raises:
        ConfigError: if it is not; the message starts with `name`.
    """
    number = check_number(name, value)
    if number < 0 or (number == 0 and not or_zero):
        raise ConfigError(f"{name} must be {'at least' if or_zero else 'above'} 0. Received: {value!r}.")
    return number
