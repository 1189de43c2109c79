"""Activations that Keras 3 computes otherwise than Keras 2 did, as Keras 2 did."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["ACTIVATIONS", "hard_sigmoid"]


@keras.saving.register_keras_serializable(package="tfopt", name="keras_2_hard_sigmoid")
def hard_sigmoid(x: Any) -> Any:
    """The hard sigmoid of Keras 2, max(0, min(1, 0.2 x + 0.5)); in Keras 3 its slope is 1/6.

    Example:
        >>> hard_sigmoid(keras.ops.array([-3.0, 0.0, 1.0])).numpy()
        array([0. , 0.5, 0.7], dtype=float32)
    """
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


ACTIVATIONS = {"hard_sigmoid": hard_sigmoid}
"""By the names that Keras 2 gave them."""
