"""What a student may learn from a teacher's output: the base of all distillation losses, and those on class logits.

They are Keras losses: called with what the teacher says and what the student says, and with sample weights; padded
steps are left out, and a replica's mean is scaled as `tf.distribute` needs it. The losses of `keras.distillation`
return one number for the batch, so none of this can be done with them; `LogitsLoss` computes what
`keras.distillation.LogitsDistillation` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfopt.distillation.soft_targets import decoupled_divergence, tempered_divergence
from tfopt.errors import ConfigError
from tfopt.schedules.arguments import check_positive

__all__ = ["DecoupledLoss", "DistillationLoss", "LogitsLoss"]

Shape = tuple[int | None, ...]


class DistillationLoss(keras.losses.Loss):
    """The base of all distillation losses; to write one, override `call(teacher, student)`.

    Args:
        student_layer_name: whose output of the student is compared, with the names of nested models before it
            ("backbone/block_3"); None means the model's output.
        teacher_layer_name: likewise for the teacher; a list has one name for each of several teachers.
        name: what the loss is called in logs, in `loss_weights` and in `DistillationSchedule`.

    Example:
        >>> class Difference(DistillationLoss):
        ...     def call(self, teacher, student):
        ...         return keras.ops.mean(keras.ops.absolute(teacher - student), axis=-1)
        >>> float(Difference(name="difference")(keras.ops.ones((2, 3)), keras.ops.zeros((2, 3))))
        1.0
    """

    on_logits = False
    """Whether it compares class logits: an output after a softmax is taken back to them first."""
    needs_targets = False
    """Whether `call` takes `(teacher, targets)` in the place of the teacher's features."""

    def __init__(
        self,
        student_layer_name: str | None = None,
        teacher_layer_name: str | Sequence[str] | None = None,
        *,
        name: str,
    ) -> None:
        super().__init__(name=name)
        self.student_layer_name = student_layer_name
        self.teacher_layer_name = teacher_layer_name

    def summary(self, features: Any) -> Any:
        """What of a model's features is compared, and kept in a cache: by default all."""
        return features

    def check_shapes(self, student: Shape, teacher: Shape) -> None:
        """Raises ConfigError where features of these shapes cannot be compared; by default nothing is checked."""

    def projector(self, student: Shape, teacher: Shape) -> keras.Layer | None:
        """A layer between the student's features and the comparison, trained along; by default there is none."""
        return None

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            "student_layer_name": self.student_layer_name,
            "teacher_layer_name": self.teacher_layer_name,
            "name": self.name,
        }


class LogitsLoss(DistillationLoss):
    """Has the student's softened class probabilities follow the teacher's; the default of `Distiller`.

    The Kullback-Leibler divergence of the class distributions at a temperature, times the squared temperature
    (`tfopt.distillation.soft_targets.tempered_divergence`). Where a model ends in a softmax, the logits before it are
    compared, so that nothing is normalised twice.

    Args:
        temperature: above 1 it also tells the student how the teacher ranks the unlikely classes.
        student_layer_name: see `DistillationLoss`; needed where the model has several outputs.
        teacher_layer_name: likewise.
        student_from_logits: whether the student gives logits; None means to read it from the model.
        teacher_from_logits: likewise.
        name: see `DistillationLoss`.

    Shapes: `(batch, classes)`, or `(batch, steps, classes)` for sequences.

    Raises:
        ConfigError: if the temperature is not a finite number above 0.

    Example:
        >>> round(float(LogitsLoss(temperature=1.0)(keras.ops.array([[2.0, 0.0]]), keras.ops.array([[0.0, 0.0]]))), 4)
        0.3278

    References: Hinton et al. 2015, arXiv:1503.02531.
    """

    on_logits = True

    def __init__(
        self,
        temperature: float = 4.0,
        *,
        student_layer_name: str | None = None,
        teacher_layer_name: str | Sequence[str] | None = None,
        student_from_logits: bool | None = None,
        teacher_from_logits: bool | None = None,
        name: str = "logits",
    ) -> None:
        super().__init__(student_layer_name, teacher_layer_name, name=name)
        self.temperature = check_positive(f"{type(self).__name__}: temperature", temperature)
        self.student_from_logits = student_from_logits
        self.teacher_from_logits = teacher_from_logits

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The divergence of the student's logits `y_pred` from the teacher's."""
        return tempered_divergence(y_true, y_pred, self.temperature)

    def check_shapes(self, student: Shape, teacher: Shape) -> None:
        """Both must have as many classes, and at least two."""
        if len(student) != len(teacher) or student[-1] != teacher[-1] or student[-1] is None or student[-1] < 2:
            raise ConfigError(
                f"{type(self).__name__}: student and teacher must end in as many classes, at least 2. Received the "
                f"shapes {student} and {teacher}. Name the layers that give the classes, or use FeatureLoss."
            )

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "student_from_logits": self.student_from_logits,
            "teacher_from_logits": self.teacher_from_logits,
        }


class DecoupledLoss(LogitsLoss):
    """`LogitsLoss` with one weight for the target class and another for what the teacher knows of the other classes.

    Use it where the teacher is confident: there the plain divergence hardly tells the student about the other classes.
    The labels must be classes, as numbers or one-hot (`tfopt.distillation.soft_targets.decoupled_divergence`). The
    paper trains with a weight of the loss that grows over the first epochs: see `tfopt.callbacks.DistillationSchedule`.

    Args:
        temperature: see `LogitsLoss`.
        target_weight: the weight of the target class against all others (alpha in the paper).
        other_weight: the weight of the distribution among the others (beta), which the paper chooses between 0.5 and 8,
            the larger the more confident the teacher.
        student_layer_name: see `LogitsLoss`.
        teacher_layer_name: likewise.
        student_from_logits: likewise.
        teacher_from_logits: likewise.
        name: see `DistillationLoss`.

    Raises:
        ConfigError: if a number is not finite, the temperature is not above 0, or a weight is below 0.

    Example:
        >>> teacher, student = keras.ops.array([[4.0, 1.0, 0.0]]), keras.ops.array([[4.0, 0.0, 1.0]])
        >>> labels = keras.ops.array([0])
        >>> round(float(DecoupledLoss(temperature=1.0)((teacher, labels), student)), 3)
        3.697

    References: Zhao et al. 2022, arXiv:2203.08679.
    """

    needs_targets = True

    def __init__(
        self,
        temperature: float = 4.0,
        *,
        target_weight: float = 1.0,
        other_weight: float = 8.0,
        student_layer_name: str | None = None,
        teacher_layer_name: str | Sequence[str] | None = None,
        student_from_logits: bool | None = None,
        teacher_from_logits: bool | None = None,
        name: str = "decoupled",
    ) -> None:
        super().__init__(
            temperature,
            student_layer_name=student_layer_name,
            teacher_layer_name=teacher_layer_name,
            student_from_logits=student_from_logits,
            teacher_from_logits=teacher_from_logits,
            name=name,
        )
        self.target_weight = check_positive("DecoupledLoss: target_weight", target_weight, or_zero=True)
        self.other_weight = check_positive("DecoupledLoss: other_weight", other_weight, or_zero=True)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The divergence of the student's logits `y_pred` from `y_true`, the teacher's logits and the labels."""
        teacher, labels = y_true
        return decoupled_divergence(
            teacher,
            y_pred,
            _one_hot(labels, y_pred),
            temperature=self.temperature,
            target_weight=self.target_weight,
            other_weight=self.other_weight,
        )

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "target_weight": self.target_weight, "other_weight": self.other_weight}


def _one_hot(labels: Any, logits: Any) -> Any:
    classes = logits.shape[-1]
    if len(labels.shape) == len(logits.shape) and labels.shape[-1] == classes:
        labels = ops.argmax(labels, axis=-1)  # one-hot, or smoothed
    elif len(labels.shape) == len(logits.shape):
        labels = ops.squeeze(labels, axis=-1)
    return ops.one_hot(ops.cast(labels, "int32"), classes)
