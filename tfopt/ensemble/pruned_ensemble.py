"""What `prune` found: accuracy against latency by size, the chosen ensemble as a model, and one student of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import keras
import numpy as np

from tfopt.benchmark.units import factor, score_change_text, score_text, significant
from tfopt.distillation import Distiller, FeatureLoss, LogitsLoss
from tfopt.ensemble.members import average
from tfopt.errors import DataError
from tfopt.fine_tuning import default_loss
from tfopt.plain_table import aligned

__all__ = ["EnsembleRow", "PrunedEnsemble"]


@dataclass(frozen=True)
class EnsembleRow:
    """Some of the models, averaged.

    Args:
        weights: the share of each model by its name, of sum 1; those left out are absent.
        score: of the average, on the validation samples.
        log_loss: likewise, in nats; None where the outputs are no classes.
        latency_ms: median of one inference.
    """

    weights: Mapping[str, float]
    score: float
    log_loss: float | None
    latency_ms: float

    @property
    def size(self) -> int:
        """How many models there are."""
        return len(self.weights)


@dataclass(frozen=True, eq=False)
class PrunedEnsemble:
    """What `tfopt.ensemble.prune` found; printing it gives a table.

    Args:
        metric: what the scores are; higher is better.
        samples: on how many they were measured.
        rows: by size, from the best single model on, each better than those before; a size with which nothing is
            gained has none.
        whole: all models, alike.
        chosen: one of the rows.
        runtime: how the latency was measured.
    """

    metric: str
    samples: int
    rows: tuple[EnsembleRow, ...]
    whole: EnsembleRow
    chosen: EnsembleRow
    runtime: str
    _members: Mapping[str, keras.Model] = field(repr=False)
    _classes: bool = field(repr=False)

    @cached_property
    def model(self) -> keras.Model:
        """The chosen models averaged, as one Keras model with shared inputs; it holds copies of them.

        Of classifiers it gives probabilities, also where the models give logits. It saves, trains and exports as any.
        """
        return average(
            [self._members[name] for name in self.chosen.weights], list(self.chosen.weights.values()), name="ensemble"
        )

    def distill(
        self,
        student: keras.Model,
        data: tuple[Any, Any],
        *,
        losses: Any = None,
        loss: Any = None,
        loss_weights: Mapping[str, float] | None = None,
        optimizer: Any = "adam",
        cache: Any = None,
        **fit: Any,
    ) -> keras.Model:
        """Trains one model on the answers of the chosen ones, through `tfopt.Distiller`.

        Each chosen model is a teacher with its share, which is the same as their average: the cross-entropy to several
        is the one to their mean.

        Args:
            student: a built model that takes the same inputs; it is trained.
            data: `(x, y)` to train on: better not the samples that the ensemble was chosen on alone.
            losses: distillation losses; by default `LogitsLoss()` for several classes, else `FeatureLoss(None, None)`,
                which compares the outputs themselves.
            loss: on the targets, as Keras's `compile` takes it; by default what fits them.
            loss_weights: by name, that on the targets being "student".
            optimizer: as Keras's `compile` takes it.
            cache: a folder for the teachers' answers, see `Distiller`.
            **fit: what Keras's `fit` takes: `epochs`, `batch_size`, `callbacks`, `validation_data`, ….

        Returns:
            The student.

        Raises:
            ConfigError: if a loss does not fit the models.
            ModelError: if the student cannot be trained, or takes other inputs.
            DataError: if `data` is no tuple of two.
        """
        if not isinstance(data, tuple) or len(data) != 2:
            raise DataError(f"distill: data must be a tuple (x, y). Received: {type(data).__name__}.")
        x, y = data
        teachers = [self._members[name] for name in self.chosen.weights]
        if losses is None:
            losses = LogitsLoss() if self._classes and teachers[0].outputs[0].shape[-1] > 1 else FeatureLoss(None, None)
        distiller = Distiller(
            student,
            teachers,
            losses,
            loss_weights=loss_weights,
            teacher_weights=list(self.chosen.weights.values()),
            cache=cache,
        )
        distiller.compile(optimizer, default_loss(student, x, np.asarray(y)) if loss is None else loss)
        distiller.fit(x, y, **fit)
        return student

    def __str__(self) -> str:
        cells = [("", "models", self.metric, "change", "log loss", f"p50 ms, {self.runtime}", "as fast")]
        for row in (*self.rows, self.whole):
            names = " + ".join(f"{share:.2f} {name}" for name, share in row.weights.items())
            cells.append(
                (
                    f"all {row.size}" if row is self.whole else f"{row.size}{' chosen' if row is self.chosen else ''}",
                    "alike" if row is self.whole else names,
                    score_text(self.metric, row.score),
                    score_change_text(self.metric, row.score - self.whole.score),
                    "" if row.log_loss is None else f"{row.log_loss:.4f}",
                    significant(row.latency_ms),
                    factor(self.whole.latency_ms / row.latency_ms),
                )
            )
        total = f"{self.samples:,} validation samples, on which the models were chosen: expect a little less on others"
        return "\n".join([*aligned(cells, "<<>>>>>"), total])
