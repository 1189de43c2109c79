"""What a search for a compression found: every trial, which is the best within the budget, and its model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import keras

from tfopt.plain_table import aligned
from tfopt.tuning.tuning_result import cells_of

__all__ = ["CompressionResult", "CompressionRow"]


@dataclass(frozen=True)
class CompressionRow:
    """One trial.

    Args:
        number: its place in the order in which trials began, from 1 on.
        values: of the hyperparameters, by name.
        score: the validation score of its best epoch; None where it has none.
        budget_used: how much of the budget it takes, estimated: above 1 is too much; None where it has no score.
        epochs: how many it trained; 0 where it did not.
        remark: how it ended, where that was not at its last epoch.
    """

    number: int
    values: Mapping[str, Any]
    score: float | None
    budget_used: float | None
    epochs: int
    remark: str

    @property
    def is_within_budget(self) -> bool:
        """Whether it keeps the budget."""
        return self.budget_used is not None and self.budget_used <= 1


@dataclass(frozen=True, eq=False)
class CompressionResult:
    """What `tfopt.tuning.compress` found; printing it gives a table, the best trials first.

    Args:
        score_name: the logged value that is the score.
        original_score: that of the given model.
        budget: as it was given.
        rows: the trials: those within the budget, the best first; those that exceed it, in the order of their penalized
            scores; those without a score.
    """

    score_name: str
    original_score: float
    budget: str
    rows: tuple[CompressionRow, ...]
    _load: Callable[[CompressionRow], keras.Model] = field(repr=False)

    @property
    def best(self) -> CompressionRow:
        """The best trial within the budget; where there is none, the one with the best penalized score."""
        return self.rows[0]

    @property
    def is_within_budget(self) -> bool:
        """Whether a trial keeps the budget."""
        return self.best.is_within_budget

    @cached_property
    def model(self) -> keras.Model:
        """The model of the best trial, with the weights of its best epoch; quantize-aware where it is quantized."""
        return self.model_of(self.best)

    def model_of(self, row: CompressionRow) -> keras.Model:
        """The model of any trial that has a score, with the weights of its best epoch."""
        return self._load(row)

    def __str__(self) -> str:
        names = list(dict.fromkeys(name for row in self.rows for name in row.values))
        cells = [("trial", self.score_name, "of budget", "epochs", *names, "")]
        for row in self.rows:
            score = "" if row.score is None else f"{row.score:.4f}"
            used = "" if row.budget_used is None else f"{100 * row.budget_used:.0f}%"
            cells.append((str(row.number), score, used, str(row.epochs), *cells_of(row.values, names), row.remark))
        last = f"The given model has {self.score_name} {self.original_score:.4f}. Budget: {self.budget}."
        if not self.is_within_budget:
            last += " No trial keeps it: allow more, or search on with more trials."
        return "\n".join([*aligned(cells, ">" * (4 + len(names)) + "<"), last])
