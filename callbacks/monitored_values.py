"""The values that early stopping watches: which they are, and whether they still improve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras

from tfopt.errors import ConfigError
from tfopt.schedules.arguments import check_number, check_steps

from .improvement import Improvement, mode_of
from .moving_average import check_smoothing

__all__ = ["Monitor", "MonitoredValues"]

Monitor = str | Sequence[str] | Mapping[str, str]
"""A name, names, or names with "min" or "max"."""

_MODES = ("auto", "min", "max")


class MonitoredValues:
    """Follows the values of one fit. The arguments are those of `EarlyStopping`.

    Attributes:
        names: of the values; the first is the one that decides which weights are the best.
        seen: whether all of them were ever in the logs.
    """

    def __init__(
        self,
        monitor: Monitor,
        mode: str,
        *,
        min_delta: float | Mapping[str, float],
        relative_delta: bool,
        smoothing: float,
        patience: int,
        stop_when: Literal["all", "any"],
        baseline: float | None,
    ) -> None:
        self._modes = _read_monitor(monitor, mode)
        self.names = list(self._modes)
        self._deltas = _read_deltas(min_delta, self.names)
        if stop_when not in ("all", "any"):
            raise ConfigError(f"EarlyStopping: stop_when must be 'all' or 'any'. Received: {stop_when!r}.")
        if baseline is not None and len(self.names) > 1:
            raise ConfigError(
                f"EarlyStopping: baseline is for one monitored value. Received: {baseline!r} with {self.names}."
            )
        self._stop_when = stop_when
        self._patience = check_steps("EarlyStopping: patience", patience)
        self._options: dict[str, Any] = {
            "patience": self._patience,
            "relative": bool(relative_delta),
            "smoothing": check_smoothing("EarlyStopping: smoothing", smoothing),
            "baseline": None if baseline is None else check_number("EarlyStopping: baseline", baseline),
        }
        self.reset()

    def reset(self) -> None:
        """Forgets an earlier fit."""
        self._values: dict[str, Improvement] = {}
        self.seen = False

    def update(self, logs: Mapping[str, Any], model: keras.Model) -> bool:
        """Takes the values of an epoch or a validation; returns whether the first of them improved.

        Logs without validation, such as those of an epoch that `validation_freq` leaves out, are passed over if it is
        watched.

        Raises:
            ConfigError: if a value is not in the logs, or nobody knows whether less or more of it is better.
        """
        if missing := [name for name in self.names if name not in logs]:
            if all(name.startswith("val_") for name in missing) and not any(name.startswith("val_") for name in logs):
                return False
            raise ConfigError(
                f"EarlyStopping: monitor must name values of the logs. Received: '{missing[0]}'. Available: "
                f"{', '.join(logs)}. A value that another callback logs needs that callback before this one."
            )
        self.seen = True
        self._prepare(model)
        improved = {name: value.update(float(logs[name])) for name, value in self._values.items()}
        return improved[self.names[0]]

    def reason_to_stop(self) -> str | None:
        """Why the last update was one too many; None if it was not."""
        exhausted = [name for name, value in self._values.items() if value.exhausted]
        if not exhausted or (self._stop_when == "all" and len(exhausted) < len(self.names)):
            return None
        times = max(self._patience, 1)
        verb = "has" if len(exhausted) == 1 else "have"
        return f"{' and '.join(exhausted)} {verb} not improved {times} time{'s' if times > 1 else ''} in a row"

    def state(self) -> dict[str, Any]:
        """What they have been, as values that JSON knows."""
        return {name: value.state() for name, value in self._values.items()}

    def restore(self, state: Mapping[str, Any], model: keras.Model) -> None:
        """Goes on from what `state` returned."""
        if state:
            self.seen = True
            self._prepare(model)
            for name, value in self._values.items():
                value.restore(state[name])

    def _prepare(self, model: keras.Model) -> None:
        if not self._values:
            for name, mode in self._modes.items():
                known = mode_of(name, model) if mode == "auto" else mode
                self._values[name] = Improvement(known, min_delta=self._deltas[name], **self._options)


def _read_monitor(monitor: Monitor, mode: str) -> dict[str, Any]:
    if isinstance(monitor, str):
        modes = {monitor: mode}
    else:
        modes = dict(monitor) if isinstance(monitor, Mapping) else dict.fromkeys(monitor, mode)
    if not modes or not all(isinstance(name, str) and name for name in modes):
        raise ConfigError(f"EarlyStopping: monitor must be a name, or several. Received: {monitor!r}.")
    for name, one in modes.items():
        if one not in _MODES:
            raise ConfigError(f"EarlyStopping: the mode of '{name}' must be one of {_MODES}. Received: {one!r}.")
    return modes


def _read_deltas(min_delta: float | Mapping[str, float], names: list[str]) -> dict[str, float]:
    deltas = dict(min_delta) if isinstance(min_delta, Mapping) else dict.fromkeys(names, min_delta)
    if unknown := [name for name in deltas if name not in names]:
        raise ConfigError(f"EarlyStopping: min_delta names a value that is not monitored. Received: {unknown[0]!r}.")
    for name, delta in deltas.items():
        # Keras takes a negative one as its magnitude too.
        deltas[name] = abs(check_number("EarlyStopping: min_delta", delta))
    return dict.fromkeys(names, 0.0) | deltas
