"""What a student may learn from inside a teacher: its features, where it looks, how samples lie to one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfopt.distillation.feature_maps import attention_difference, attention_map, squared_difference
from tfopt.distillation.losses import DistillationLoss, Shape
from tfopt.distillation.projector import Projector
from tfopt.distillation.relations import angle_difference, distance_difference
from tfopt.errors import ConfigError

__all__ = ["AngleLoss", "AttentionLoss", "DistanceLoss", "FeatureLoss"]


class FeatureLoss(DistillationLoss):
    """Has a student's layer give the features of a teacher's layer ("hint").

    The mean squared difference (`tfopt.distillation.feature_maps.squared_difference`). Where the layers have different
    numbers of channels, a linear projector from the student's to the teacher's is trained along; it belongs to the
    `Distiller` and is not part of the student. Where images have different sizes, the larger is averaged down.

    Args:
        student_layer_name: whose output is to be like the teacher's, as `DistillationLoss` says.
        teacher_layer_name: likewise for the teacher.
        name: see `DistillationLoss`.

    Shapes: `(batch, channels)`, `(batch, steps, channels)` or `(batch, height, width, channels)`, alike on both sides
    but for channels, height and width.

    Example:
        >>> float(FeatureLoss("block_2", "stage_3")(keras.ops.ones((2, 4)), keras.ops.zeros((2, 4))))
        1.0

    References: Romero et al. 2015 (FitNets), arXiv:1412.6550.
    """

    def __init__(
        self, student_layer_name: str | None, teacher_layer_name: str | Sequence[str] | None, *, name: str = "feature"
    ) -> None:
        super().__init__(student_layer_name, teacher_layer_name, name=name)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The difference of the student's features `y_pred`, projected, from the teacher's."""
        return squared_difference(y_true, y_pred)

    def check_shapes(self, student: Shape, teacher: Shape) -> None:
        """Both must be vectors, sequences of the same length, or images; the channels must be known."""
        alike = len(student) == len(teacher) in (2, 3, 4) and None not in (student[-1], teacher[-1])
        if len(student) == 3 and None not in (student[1], teacher[1]):
            alike = alike and student[1] == teacher[1]
        if not alike:
            raise ConfigError(
                f"FeatureLoss '{self.name}': both layers must give vectors, sequences of one length, or images. "
                f"Received the shapes {student} of the student's '{self.student_layer_name}' and {teacher} of the "
                f"teacher's '{self.teacher_layer_name}'. Choose other layers, or compare relations with DistanceLoss."
            )

    def projector(self, student: Shape, teacher: Shape) -> keras.Layer | None:
        """A linear map of the channels, where their numbers differ."""
        return None if student[-1] == teacher[-1] else Projector(int(teacher[-1] or 0), name=f"{self.name}_projector")


class AttentionLoss(DistillationLoss):
    """Has a student's convolution be strong where in the image the teacher's is.

    The squared distance of the two attention maps, sums of squares over the channels, each scaled to length 1
    (`tfopt.distillation.feature_maps.attention_difference`). It needs no projector, whatever the channels.

    Args:
        student_layer_name: a layer with an output of shape `(batch, height, width, channels)`.
        teacher_layer_name: likewise; the sizes may differ.
        name: see `DistillationLoss`.

    Example:
        >>> features = keras.random.normal((2, 4, 4, 8), seed=0)
        >>> loss = AttentionLoss("block_2", "stage_3")
        >>> round(float(loss(loss.summary(features), loss.summary(3.0 * features))), 6)
        0.0

    References: Zagoruyko & Komodakis 2017, arXiv:1612.03928.
    """

    def __init__(
        self, student_layer_name: str | None, teacher_layer_name: str | Sequence[str] | None, *, name: str = "attention"
    ) -> None:
        super().__init__(student_layer_name, teacher_layer_name, name=name)

    def summary(self, features: Any) -> Any:
        """The attention map."""
        return attention_map(ops.cast(features, self.dtype))

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The difference of the student's map `y_pred` from the teacher's."""
        return attention_difference(y_true, y_pred)

    def check_shapes(self, student: Shape, teacher: Shape) -> None:
        """Both must be images."""
        if len(student) != 4 or len(teacher) != 4:
            raise ConfigError(
                f"AttentionLoss '{self.name}': both layers must give images (batch, height, width, channels). Received "
                f"the shapes {student} and {teacher}. Choose convolutions, or use FeatureLoss or DistanceLoss."
            )


class _RelationalLoss(DistillationLoss):
    def summary(self, features: Any) -> Any:
        """A vector per sample: the mean over the steps that are not padding, or over an image."""
        if len(features.shape) == 3:
            return keras.layers.GlobalAveragePooling1D(dtype=self.dtype)(features)
        features = ops.cast(features, self.dtype)
        return ops.mean(features, axis=tuple(range(1, len(features.shape) - 1)))

    def check_shapes(self, student: Shape, teacher: Shape) -> None:
        """Both must be features of samples."""
        if len(student) < 2 or len(teacher) < 2:
            raise ConfigError(
                f"{type(self).__name__} '{self.name}': both layers must give features (batch, ..., channels). Received "
                f"the shapes {student} and {teacher}."
            )


class DistanceLoss(_RelationalLoss):
    """Has the samples of a batch lie as far from one another as the teacher puts them.

    Compares distances between samples, relative to their mean
    (`tfopt.distillation.relations.distance_difference`). Student and teacher may have features of any sizes. Sequences
    and images are averaged to a vector first. A sample's weight counts for what it is compared with, not as one that
    others are compared with. Under `tf.distribute` the samples of a replica are compared.

    Args:
        student_layer_name: whose output is compared; best an embedding. None means the model's output.
        teacher_layer_name: likewise for the teacher.
        name: see `DistillationLoss`.

    Example:
        >>> points = keras.random.normal((8, 3), seed=0)
        >>> round(float(DistanceLoss()(points, 2.0 * points)), 6)
        0.0

    References: Park et al. 2019, arXiv:1904.05068.
    """

    def __init__(
        self,
        student_layer_name: str | None = None,
        teacher_layer_name: str | Sequence[str] | None = None,
        *,
        name: str = "distance",
    ) -> None:
        super().__init__(student_layer_name, teacher_layer_name, name=name)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The difference of the distances of the student's `y_pred` from the teacher's."""
        return distance_difference(y_true, y_pred)


class AngleLoss(_RelationalLoss):
    """Has the samples of a batch form the triangles that the teacher puts them in.

    Compares the angles at each sample between any two others (`tfopt.distillation.relations.angle_difference`). As
    `DistanceLoss`, beside which the paper uses it with twice the weight; takes memory for the batch size cubed.

    Args:
        student_layer_name: see `DistanceLoss`.
        teacher_layer_name: likewise.
        name: see `DistillationLoss`.

    Example:
        >>> points = keras.random.normal((8, 3), seed=0)
        >>> round(float(AngleLoss()(points, 2.0 * points)), 6)
        0.0

    References: Park et al. 2019, arXiv:1904.05068.
    """

    def __init__(
        self,
        student_layer_name: str | None = None,
        teacher_layer_name: str | Sequence[str] | None = None,
        *,
        name: str = "angle",
    ) -> None:
        super().__init__(student_layer_name, teacher_layer_name, name=name)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The difference of the angles of the student's `y_pred` from the teacher's."""
        return angle_difference(y_true, y_pred)
