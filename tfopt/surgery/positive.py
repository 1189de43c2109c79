"""Functions of positive numbers, trainable where int8 rounds such a number to zero."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

__all__ = ["PositiveFunction"]

GRID_STEPS = 255  # of the int8 grid


@keras.saving.register_keras_serializable(package="tfopt")
class PositiveFunction(keras.layers.Layer):
    """Computes the reciprocal square root, the square root or the logarithm of positive numbers.

    The int8 grid of a positive tensor holds zero too, and what is smaller than half its step becomes zero. There these
    functions or their gradients are infinite, and one such value would spoil the training. So while
    training, zero counts as one step: 1/255 of the batch's largest value. At inference nothing is changed: the
    rounding that follows clips the infinite value to its range, as TFLite does.

    Args:
        function: "rsqrt", "sqrt" or "log".

    Call arguments:
        x: of any shape, none negative.
        training: whether zero counts as one step.

    Example:
        >>> PositiveFunction("rsqrt")(ops.array([0.0, 0.25, 2.55]), training=True).numpy().round(2)
        array([10.  ,  2.  ,  0.63], dtype=float32)
    """

    def __init__(self, function: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function
        self.supports_masking = True
        self.built = True

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Applies the function."""
        if training:
            step = ops.maximum(ops.stop_gradient(ops.max(x)) / GRID_STEPS, keras.config.epsilon())
            x = ops.where(x > 0, x, step)
        return {"rsqrt": ops.rsqrt, "sqrt": ops.sqrt, "log": ops.log}[self.function](x)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's own."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What the layer is rebuilt from."""
        return {**super().get_config(), "function": self.function}
