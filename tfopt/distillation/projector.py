"""A linear map from the channels of a student's features to those of a teacher's."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

__all__ = ["Projector"]


class Projector(keras.layers.Layer):
    """Multiplies the last axis by a trainable matrix and adds a bias: a 1×1 convolution on images.

    It is not a `Dense` layer, so that a callback which prunes the Dense layers of a `Distiller` leaves it alone.

    Args:
        channels: those of the teacher.
        name: the layer's name.

    Shapes: `(..., student_channels)` to `(..., channels)`, in float32.

    Example:
        >>> tuple(Projector(5)(keras.ops.ones((2, 4, 4, 3))).shape)
        (2, 4, 4, 5)
    """

    def __init__(self, channels: int, *, name: str | None = None) -> None:
        super().__init__(name=name, dtype="float32")
        self.channels = channels
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the matrix and the bias."""
        self.matrix = self.add_weight(
            shape=(input_shape[-1], self.channels), initializer="glorot_uniform", name="matrix"
        )
        self.bias = self.add_weight(shape=(self.channels,), initializer="zeros", name="bias")

    def call(self, inputs: Any) -> Any:
        """Maps the features."""
        return ops.matmul(inputs, self.matrix) + self.bias

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The same but for the channels."""
        return (*input_shape[:-1], self.channels)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"channels": self.channels, "name": self.name}
