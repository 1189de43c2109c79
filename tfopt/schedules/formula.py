"""Schedules that know how they were made: they can be shown, compared, written down, and computed in tensors."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ParamSpec

import numpy as np

from tfopt.errors import ConfigError

__all__ = ["Formula", "Schedule", "formula", "value_at"]

Schedule = Callable[[int], float]
"""A function from the training step to a value."""

Compute = Callable[[Any, Any], Any]
"""A function of a step and of the module, numpy or keras.ops, that computes with it."""

P = ParamSpec("P")

_MAKERS: dict[str, Callable[..., Formula]] = {}


@dataclass(frozen=True, repr=False)
class Formula:
    """A schedule made by one of the functions of `tfopt.schedules`.

    Args:
        name: the function that made it.
        arguments: what that function was given, defaults included.
        compute: its value at a step, by way of numpy or of keras.ops, which have the same functions.

    Example:
        >>> from tfopt.schedules import cosine
        >>> cosine(0.1, steps=100)
        cosine(initial=0.1, steps=100, final=0.0)
        >>> Formula.from_config(cosine(0.1, steps=100).get_config()) == cosine(0.1, steps=100)
        True
    """

    name: str
    arguments: Mapping[str, Any]
    compute: Compute = field(compare=False)

    def __call__(self, step: int) -> float:
        """The value at a step."""
        return float(self.compute(step, np))

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"

    def __hash__(self) -> int:
        return hash((self.name, *self.arguments.items()))

    def get_config(self) -> dict[str, Any]:
        """The function's name and its arguments, as values that JSON knows.

        Raises:
            ConfigError: if a function that is not of `tfopt.schedules` is part of it.
        """
        return {"name": self.name, "arguments": {name: _written(value) for name, value in self.arguments.items()}}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Formula:
        """The schedule whose `get_config` this is.

        Raises:
            ConfigError: if there is no function of that name.
        """
        name = config.get("name")
        if name not in _MAKERS:
            raise ConfigError(f"A schedule's name must be one of {', '.join(sorted(_MAKERS))}. Received: {name!r}.")
        return _MAKERS[name](**{key: _read(value) for key, value in config["arguments"].items()})


def formula(make: Callable[P, Compute]) -> Callable[P, Formula]:
    """Has a function that checks its arguments and returns a computation return a `Formula`."""
    signature = inspect.signature(make)

    @functools.wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> Formula:
        compute = make(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return Formula(make.__name__, {name: _fixed(value) for name, value in bound.arguments.items()}, compute)

    _MAKERS[make.__name__] = made
    return made


def value_at(schedule: Schedule, step: Any, ops: Any) -> Any:
    """The value of a part of a formula; a function of the user's own is asked for a whole step."""
    return schedule.compute(step, ops) if isinstance(schedule, Formula) else schedule(int(step))


def _fixed(value: Any) -> Any:
    return tuple(_fixed(item) for item in value) if isinstance(value, (list, tuple)) else value


def _written(value: Any) -> Any:
    if isinstance(value, Formula):
        return value.get_config()
    if callable(value):
        raise ConfigError(
            "A schedule is written down by the functions of tfopt.schedules that made it. "
            f"Received: one with {value!r}, a function of its own. Express it by sequence, warmup and the others."
        )
    if isinstance(value, tuple):
        return [_written(item) for item in value]
    return value


def _read(value: Any) -> Any:
    if isinstance(value, Mapping):
        return Formula.from_config(value)
    return [_read(item) for item in value] if isinstance(value, list) else value
