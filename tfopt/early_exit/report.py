"""What early exits save, and what they cost, on given samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfopt.early_exit.evaluation import exit_outputs, right_answers
from tfopt.early_exit.policy import ExitPolicy
from tfopt.early_exit.stages import split_stages
from tfopt.plain_table import aligned

__all__ = ["ExitReport", "ExitRow", "exit_report"]


@dataclass(frozen=True)
class ExitRow:
    """One exit.

    Args:
        name: of the exit.
        threshold: the confidence from which on samples leave there; None for the last exit, where the rest leaves.
        share: of the samples that leave there, in [0, 1].
        accuracy: of the exit, had all samples left there.
        accuracy_of_leaving: of the samples that leave there; None if there are none.
        flops: floating-point operations of a sample that leaves there.
    """

    name: str
    threshold: float | None
    share: float
    accuracy: float
    accuracy_of_leaving: float | None
    flops: int


@dataclass(frozen=True)
class ExitReport:
    """Exits on given samples; printing it gives a table.

    Args:
        rows: one for each exit, the last answer included.
        samples: how many there were.
        accuracy: with the thresholds.
        full_accuracy: of the last exit on all samples.
        mean_flops: of a sample with the thresholds.
        full_flops: of a sample in the model without early exits.
    """

    rows: tuple[ExitRow, ...]
    samples: int
    accuracy: float
    full_accuracy: float
    mean_flops: float
    full_flops: int

    @property
    def flops_fraction(self) -> float:
        """The share of the FLOPs that remains; above 1 if hardly any sample leaves early."""
        return self.mean_flops / self.full_flops

    @property
    def drop(self) -> float:
        """The accuracy given up, as a fraction; negative where early answers are the better ones."""
        return self.full_accuracy - self.accuracy

    def __str__(self) -> str:
        cells = [("exit", "threshold", "leaves here", "accuracy", "of those leaving", "FLOPs")]
        for row in self.rows:
            threshold = "" if row.threshold is None else "never" if np.isinf(row.threshold) else f"{row.threshold:.4f}"
            leaving = "" if row.accuracy_of_leaving is None else f"{row.accuracy_of_leaving:.2%}"
            cells.append((row.name, threshold, f"{row.share:.1%}", f"{row.accuracy:.2%}", leaving, f"{row.flops:,}"))
        cells.append(("mean", "", "", f"{self.accuracy:.2%}", "", f"{self.mean_flops:,.0f}"))
        cells.append(("without early exits", "", "", f"{self.full_accuracy:.2%}", "", f"{self.full_flops:,}"))
        total = (
            f"{self.samples:,} samples: {self.flops_fraction:.1%} of the FLOPs, "
            f"{100 * self.drop:+.2f} points of accuracy given up"
        )
        return "\n".join([*aligned(cells, "<>>>>>"), total])


def exit_report(network: keras.Model, x: Any, y: Any, policy: ExitPolicy) -> ExitReport:
    """Tells where samples leave, how often each exit is right, and the mean FLOPs.

    Give samples other than those that the thresholds were chosen on. FLOPs are those of `tfopt.surgery.flops`, two for
    a multiply-accumulate; layers whose operations it cannot count are left out on both sides. Each exit's include its
    own head and those of the exits before.

    Args:
        network: the model that the policy was made for.
        x: samples of shape `(n, ...)`.
        y: their n classes, as numbers or one-hot.
        policy: the thresholds.

    Raises:
        ConfigError: if the policy is of another network.
        ModelError: if the model is not one of several exits.
        DataError: if the data does not fit.

    Example:
        >>> from tfopt.early_exit import ExitPolicy, early_exit
        >>> keras.utils.set_random_seed(0)
        >>> hidden = [keras.layers.Dense(16, name=f"hidden_{number}") for number in (1, 2)]
        >>> network = early_exit(keras.Sequential([keras.Input((4,)), *hidden, keras.layers.Dense(2)]), ["hidden_1"])
        >>> policy = ExitPolicy(tuple(network.output_names), (0.0,), from_logits=True)  # all leave at once
        >>> report = exit_report(network, np.ones((8, 4)), np.zeros(8), policy)
        >>> [row.share for row in report.rows], report.mean_flops, report.full_flops
        ([1.0, 0.0], 192.0, 704)
    """
    stages = split_stages(network)
    policy.check_fits(stages.exits, from_logits=stages.from_logits)
    outputs = exit_outputs(network, x, what="report")
    correct = right_answers(outputs, y, from_logits=stages.from_logits)
    _, exits = policy.decide(outputs)
    flops = np.asarray(stages.cumulative_flops)
    rows = []
    for index, name in enumerate(stages.exits):
        leaving = exits == index
        rows.append(
            ExitRow(
                name=name,
                threshold=policy.thresholds[index] if index < len(policy.thresholds) else None,
                share=float(leaving.mean()),
                accuracy=float(correct[:, index].mean()),
                accuracy_of_leaving=float(correct[leaving, index].mean()) if leaving.any() else None,
                flops=int(flops[index]),
            )
        )
    return ExitReport(
        rows=tuple(rows),
        samples=len(exits),
        accuracy=float(correct[np.arange(len(exits)), exits].mean()),
        full_accuracy=rows[-1].accuracy,
        mean_flops=float(flops[exits].mean()),
        full_flops=stages.full_flops,
    )
