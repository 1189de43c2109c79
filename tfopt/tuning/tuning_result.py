"""What a search found: every trial, the best values, and the model trained with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import keras

from tfopt.plain_table import aligned

__all__ = ["TuningResult", "TuningRow", "cells_of"]


@dataclass(frozen=True)
class TuningRow:
    """One trial.

    Args:
        number: its place in the order in which trials began, from 1 on.
        values: of the hyperparameters, by name.
        score: of its best epoch; None where it has none.
        epochs: how many it trained; 0 where it did not.
        remark: how it ended, where that was not at its last epoch.
        logs: what else its best epoch logged, by name.
    """

    number: int
    values: Mapping[str, Any]
    score: float | None
    epochs: int
    remark: str
    logs: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class TuningResult:
    """What `tfopt.tuning.tune` found; printing it gives a table, the best trials first.

    Args:
        objective: the value that was optimized.
        rows: the trials, the best first, those without a score last.
    """

    objective: str
    rows: tuple[TuningRow, ...]
    _load: Callable[[TuningRow], keras.Model] = field(repr=False)

    @property
    def best(self) -> TuningRow:
        """The best trial."""
        return self.rows[0]

    @cached_property
    def model(self) -> keras.Model:
        """The model of the best trial, with the weights of its best epoch."""
        return self.model_of(self.best)

    def model_of(self, row: TuningRow) -> keras.Model:
        """The model of any trial that has a score, with the weights of its best epoch."""
        return self._load(row)

    def __str__(self) -> str:
        names = list(dict.fromkeys(name for row in self.rows for name in row.values))
        cells = [("trial", self.objective, "epochs", *names, "")]
        for row in self.rows:
            score = "" if row.score is None else f"{row.score:.4f}"
            cells.append((str(row.number), score, str(row.epochs), *cells_of(row.values, names), row.remark))
        return "\n".join(aligned(cells, ">" * (3 + len(names)) + "<"))


def cells_of(values: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The values of some hyperparameters as texts; empty where a trial does not have them."""
    texts = ((f"{value:.4g}" if isinstance(value, float) else str(value)) for value in map(values.get, names))
    return [text if name in values else "" for name, text in zip(names, texts, strict=True)]
