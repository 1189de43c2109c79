"""The teachers of a distillation: what each of them gives for a batch, at inference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras
from keras import ops

from tfopt.distillation.losses import DistillationLoss, LogitsLoss, Shape
from tfopt.distillation.tapped_model import Tap, TappedModel
from tfopt.errors import ConfigError, ModelError
from tfopt.schedules.arguments import check_positive
from tfopt.surgery.model import check_model

__all__ = ["Teachers"]

Features = tuple[tuple[Any, ...], ...]
"""What is compared with the student: for each teacher, one tensor for each loss."""


class Teachers:
    """One or several models whose answers a student is trained on.

    They run with `training=False`, each once a batch, and are not changed. This is no Keras layer: a model that holds
    it neither trains nor saves nor prunes the teachers with it.

    Args:
        teacher: a built model, or a list of them.
        student: the model that learns from them.
        losses: what is compared.
        weights: the share of each teacher in every loss, scaled to a sum of 1; None means alike.

    Raises:
        ConfigError: if there is no teacher, weights do not fit, or a loss names layers that are not there.
        ModelError: if a teacher cannot be used, takes other inputs than the student, or shares weights with it.

    Example:
        >>> teacher = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> teachers = Teachers(teacher, student, [LogitsLoss()])
        >>> ((logits,),) = teachers.features(ops.ones((2, 4)))
        >>> tuple(logits.shape)
        (2, 3)
    """

    def __init__(
        self,
        teacher: keras.Model | Sequence[keras.Model],
        student: keras.Model,
        losses: Sequence[DistillationLoss],
        weights: Sequence[float] | None = None,
    ) -> None:
        self.models: list[keras.Model] = list(teacher) if isinstance(teacher, (list, tuple)) else [teacher]
        if not self.models:
            raise ConfigError("Distiller: teacher must be a model or a list of models. Received: an empty list.")
        for model in self.models:
            _check_teacher(check_model(model), student)
        self.shares = _shares(weights, len(self.models))
        self._losses = list(losses)
        self._tapped = [
            TappedModel(model, [_tap(loss, index, len(self.models)) for loss in losses], with_output=False)
            for index, model in enumerate(self.models)
        ]

    @property
    def shapes(self) -> list[list[Shape | None]]:
        """For each teacher, the shape of what each loss reads; None where it is not known."""
        return [tapped.shapes for tapped in self._tapped]

    @property
    def description(self) -> list[tuple[Any, ...]]:
        """What decides the features beside the models: which of their layers is read how, for each loss."""
        return [
            (type(loss).__name__, loss.teacher_layer_name, loss.on_logits, _from_logits(loss)) for loss in self._losses
        ]

    def features(self, inputs: Any) -> Features:
        """What the teachers give for a batch; no gradient reaches them."""
        return tuple(
            tuple(
                ops.stop_gradient(loss.summary(features))
                for loss, features in zip(self._losses, tapped(inputs, training=False)[1], strict=True)
            )
            for tapped in self._tapped
        )


def _tap(loss: DistillationLoss, index: int, count: int) -> Tap:
    names: Any = loss.teacher_layer_name
    if isinstance(names, (list, tuple)):
        if len(names) != count:
            raise ConfigError(
                f"The loss '{loss.name}': teacher_layer_name must be one name, or one for each of the {count} "
                f"teachers. Received: {names!r}."
            )
        names = names[index]
    return Tap(names, loss.on_logits, _from_logits(loss))


def _from_logits(loss: DistillationLoss) -> bool | None:
    return loss.teacher_from_logits if isinstance(loss, LogitsLoss) else None


def _check_teacher(teacher: keras.Model, student: keras.Model) -> None:
    if {id(weight) for weight in teacher.weights} & {id(weight) for weight in student.weights}:
        raise ModelError(
            f"Distiller: the teacher '{teacher.name}' shares weights with the student '{student.name}', so training "
            "would change it. Give a copy: copy = keras.models.clone_model(model); "
            "copy.set_weights(model.get_weights())."
        )
    shapes = [_input_shapes(model) for model in (student, teacher)]
    if None in shapes:  # a subclassed model tells no shapes
        return
    fits = len(shapes[0]) == len(shapes[1]) and all(_fits(*pair) for pair in zip(*shapes, strict=True))
    if not fits:
        raise ModelError(
            "Distiller: student and teacher get the same samples, so they must take inputs of the same shapes. "
            f"Received: {shapes[0]} of '{student.name}' and {shapes[1]} of '{teacher.name}'. Put a Resizing layer "
            "before one of them."
        )


def _input_shapes(model: keras.Model) -> Any:
    inputs = model.inputs if isinstance(model, (keras.Sequential, keras.Function)) else None
    return None if inputs is None else [tuple(tensor.shape) for tensor in inputs]


def _fits(first: Iterable[int | None], second: Iterable[int | None]) -> bool:
    first, second = tuple(first), tuple(second)
    return len(first) == len(second) and all(
        None in sizes or sizes[0] == sizes[1] for sizes in zip(first, second, strict=True)
    )


def _shares(weights: Sequence[float] | None, count: int) -> list[float]:
    if weights is None:
        return [1 / count] * count
    numbers = [check_positive("Distiller: teacher_weights", weight, or_zero=True) for weight in weights]
    if len(numbers) != count or not sum(numbers):
        raise ConfigError(
            f"Distiller: teacher_weights must have one number for each of the {count} teachers, not all 0. "
            f"Received: {weights!r}."
        )
    return [number / sum(numbers) for number in numbers]
