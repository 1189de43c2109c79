"""What `optimize` returns: the candidates it tried, the one it chose, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tfopt.artifact import Artifact
from tfopt.budget import Budget, Figures, Resource
from tfopt.plain_table import aligned
from tfopt.recipe import Recipe

if TYPE_CHECKING:
    from tfopt.benchmark.report import Report
    from tfopt.optimization.held_back import HeldBackDrop

__all__ = ["Candidate", "Result"]

SHOWN: tuple[Resource, ...] = ("size", "download", "latency", "flops")


@dataclass(frozen=True)
class Candidate:
    """One thing that was tried.

    Args:
        name: what it is.
        recipe: how it was made.
        artifact: the verified file, or None where the export was refused.
        score: on the validation data, of the metric in the report; None where there is no file.
        drop: the float model's score minus this one's.
        figures: what it costs; None where there is no file.
        remark: why it was taken, or not.
    """

    name: str
    recipe: Recipe
    artifact: Artifact | None
    score: float | None
    drop: float | None
    figures: Figures | None
    remark: str

    def is_within(self, max_drop: float) -> bool:
        """Whether there is a file that loses no more than allowed."""
        return self.drop is not None and self.drop <= max_drop

    def used(self, budget: Budget | None, baseline: Candidate) -> float:
        """How much of a budget it takes, above 1 is too much; 0 without a budget."""
        if budget is None:
            return 0.0
        if self.figures is None or baseline.figures is None:
            return math.inf
        found = budget.used(self.figures, baseline.figures)
        return math.inf if found is None else found

    def cost_rank(self, budget: Budget | None, baseline: Candidate) -> tuple[float, float]:
        """Lower is better: how far it is from a budget, all limits together, and within it how much it takes."""
        used = self.used(budget, baseline)
        if budget is None or self.figures is None or baseline.figures is None:
            return used, used
        return budget.excess(self.figures, baseline.figures) or math.inf, used


@dataclass(frozen=True)
class Result:
    """What `optimize` returns; printing it tells what was tried and why.

    Args:
        artifact: the chosen file.
        recipe: the recipe that makes it again.
        report: every candidate measured beside the float model, on the held-back data.
        candidates: everything tried, in order, the float model first.
        chosen: the chosen candidate's name.
        max_drop: the score that may be lost.
        budget: what the model may cost, if that was asked for.
        held_back: the chosen file's drop on the held-back data.
        obstacles: what prevents a better one, where none was good enough.
    """

    artifact: Artifact
    recipe: Recipe
    report: Report
    candidates: tuple[Candidate, ...]
    chosen: str
    max_drop: float
    budget: Budget | None
    held_back: HeldBackDrop
    obstacles: tuple[str, ...]

    @property
    def _chosen(self) -> Candidate:
        return next(candidate for candidate in self.candidates if candidate.name == self.chosen)

    @property
    def within_max_drop(self) -> bool:
        """Whether the chosen file loses no more than allowed, on the validation data and on the held-back data."""
        return self._chosen.is_within(self.max_drop) and self.held_back.drop <= self.max_drop

    @property
    def within_budget(self) -> bool:
        """Whether the chosen file keeps the budget; true without one."""
        return self._chosen.used(self.budget, self.candidates[0]) <= 1

    @property
    def is_reached(self) -> bool:
        """Whether the chosen file is all that was asked for."""
        return self.within_max_drop and self.within_budget

    def explanation(self) -> tuple[str, ...]:
        """What was tried and why, in sentences."""
        lines = [f"{candidate.name}: {candidate.remark}" for candidate in self.candidates[1:]]
        lines += [f"What prevents more: {obstacle}" for obstacle in self.obstacles]
        lines.append(
            f"On held-back data {self.chosen} loses {self.held_back}: {self.held_back.verdict(self.max_drop)}."
        )
        return tuple(lines)

    def __str__(self) -> str:
        titles = ("", self.report.metric or "score", "drop", "size", "download", "latency", "FLOPs")
        cells: list[tuple[str, ...]] = [titles]
        baseline = self.candidates[0].figures
        for candidate in self.candidates:
            figures = candidate.figures
            if figures is None or baseline is None or candidate.score is None:
                cells.append((candidate.name, "no file", "", "", "", "", ""))
                continue
            shares = [figures.share(resource, baseline) for resource in SHOWN]
            costs = ("not measured" if share is None else f"{share:.0%}" for share in shares)
            cells.append((candidate.name, f"{candidate.score:.4f}", f"{candidate.drop:+.4f}", *costs))
        reached = "" if self.is_reached else " It is the closest; what was asked for was not reached."
        return "\n".join(
            [
                *aligned(cells, "<>>>>>>"),
                *self.explanation(),
                f"Chosen: {self.artifact.path} ({self.artifact.size_bytes:,} bytes).{reached}",
            ]
        )
