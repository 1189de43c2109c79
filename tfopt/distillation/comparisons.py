"""What of a student is compared with what of which teacher: every loss with every teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from tfopt.distillation.loss_weights import COMPILED_LOSS
from tfopt.distillation.losses import DistillationLoss, LogitsLoss
from tfopt.distillation.tapped_model import Tap, TappedModel
from tfopt.distillation.teachers import Features, Teachers
from tfopt.errors import ConfigError

__all__ = ["Comparisons", "checked_losses"]


class Comparisons:
    """The distillation losses of a student and its teachers. No Keras layer, like `Teachers`.

    Args:
        student: the model that learns.
        teachers: whom it learns from, for the same losses.
        losses: what is compared.

    Attributes:
        tapped: the student, with what the losses look at beside its output.
        projectors: the layers between the student's features and the teachers'.

    Raises:
        ConfigError: if a loss cannot compare what it is told to.

    Example:
        >>> teacher = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> losses = [LogitsLoss()]
        >>> teachers = Teachers(teacher, student, losses)
        >>> comparisons = Comparisons(student, teachers, losses)
        >>> _, features = comparisons.tapped(ops.ones((2, 4)))
        >>> list(comparisons.values(features, teachers.features(ops.ones((2, 4))), None, None))
        ['logits']
    """

    def __init__(self, student: keras.Model, teachers: Teachers, losses: Sequence[DistillationLoss]) -> None:
        self.tapped = TappedModel(student, [_tap(loss) for loss in losses])
        self._items = [
            _Comparison(loss, number, teacher, share, _projector(loss, self.tapped.shapes[number], shapes[number]))
            for number, loss in enumerate(losses)
            for teacher, (share, shapes) in enumerate(zip(teachers.shares, teachers.shapes, strict=True))
        ]
        self.projectors = [item.projector for item in self._items if item.projector is not None]

    def values(self, features: Sequence[Any], answers: Features, targets: Any, sample_weight: Any) -> dict[str, Any]:
        """Each loss by its name, a scalar: the weighted mean over the samples and the teachers.

        Args:
            features: what the student gives for each loss.
            answers: what the teachers give.
            targets: the labels, for losses that need them.
            sample_weight: of shape `(batch,)`, or `(batch, steps)` for sequences, or None.
        """
        values: dict[str, Any] = {}
        for item in self._items:
            student = item.loss.summary(features[item.loss_number])
            if item.projector is not None:
                student = item.projector(student)
            teacher = answers[item.teacher_number][item.loss_number]
            if item.loss.needs_targets:
                teacher = (teacher, _single(item.loss, "labels", targets))
            weight = None if sample_weight is None else _single(item.loss, "sample weights", sample_weight)
            value = item.loss(teacher, student, _fitted(weight, student)) * item.share
            values[item.loss.name] = values.get(item.loss.name, 0.0) + value
        return values


def checked_losses(losses: DistillationLoss | Sequence[DistillationLoss] | None) -> list[DistillationLoss]:
    """The losses as a list, `LogitsLoss()` where none is given.

    Raises:
        ConfigError: if there is none in the list, one is of another kind, or two share a name.
    """
    found: list[Any] = (
        [LogitsLoss()] if losses is None else list(losses) if isinstance(losses, (list, tuple)) else [losses]
    )
    if not found:
        raise ConfigError("Distiller: losses must be a distillation loss or a list of them. Received: an empty list.")
    for loss in found:
        if not isinstance(loss, DistillationLoss):
            raise ConfigError(
                "Distiller: losses must be those of tfopt.distillation, such as LogitsLoss(). "
                f"Received: {type(loss).__name__}. A loss of keras.distillation gives one number for the batch, so "
                "that sample weights and masks would not count; for one of your own override DistillationLoss.call."
            )
    names = [COMPILED_LOSS, *(loss.name for loss in found)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(
            f"Distiller: each loss must have a name of its own, and '{COMPILED_LOSS}' is the compiled loss. "
            f"Received several times: {', '.join(repeated)}. Pass name=... to the loss."
        )
    return found


class _Comparison(NamedTuple):
    loss: DistillationLoss
    loss_number: int
    teacher_number: int
    share: float
    projector: keras.Layer | None


def _tap(loss: DistillationLoss) -> Tap:
    from_logits = loss.student_from_logits if isinstance(loss, LogitsLoss) else None
    return Tap(loss.student_layer_name, loss.on_logits, from_logits)


def _projector(
    loss: DistillationLoss, student: tuple[int | None, ...] | None, teacher: tuple[int | None, ...] | None
) -> keras.Layer | None:
    if student is None or teacher is None:  # a subclassed model tells no shapes
        return None
    loss.check_shapes(student, teacher)
    projector = loss.projector(student, teacher)
    if projector is not None:
        projector.build(student)
    return projector


def _single(loss: DistillationLoss, what: str, value: Any) -> Any:
    leaves = [leaf for leaf in keras.tree.flatten(value) if leaf is not None]
    if len(leaves) != 1:
        raise ConfigError(
            f"Distiller: the loss '{loss.name}' takes one array of {what}. Received: {len(leaves)}. "
            "Give one, or train the student's several outputs without it."
        )
    return leaves[0]


def _fitted(weight: Any, features: Any) -> Any:
    """Sample weights for values per step where the features are sequences, else for values per sample."""
    if weight is None:
        return None
    weight = ops.cast(weight, "float32")
    rank = len(weight.shape)
    if len(features.shape) == 3:
        return weight[:, None] if rank == 1 else weight
    return weight if rank == 1 else ops.mean(weight, axis=tuple(range(1, rank)))
