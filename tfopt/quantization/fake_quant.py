"""Fake quantization: float tensors rounded to an int8 grid, with gradients that pass straight through.

References: Jacob et al. 2018, arXiv:1712.05877, section 3; Bengio et al. 2013, arXiv:1308.3432.
"""

from __future__ import annotations

import tensorflow as tf
from keras import ops

from tfopt.quantization.spec import ACTIVATION_STEPS, MINIMUM_WIDTH, WEIGHT_STEPS

__all__ = ["fake_quantize_activation", "fake_quantize_weights"]


def fake_quantize_activation(x: tf.Tensor, minimum: tf.Tensor | float, maximum: tf.Tensor | float) -> tf.Tensor:
    """Rounds activations to the 256-step grid of a range; the gradient is 1 inside the range and 0 outside.

    Args:
        x: activations of any shape.
        minimum: the range's lower end, a scalar; widened to hold zero.
        maximum: the range's upper end, likewise.
    """
    minimum = ops.minimum(ops.cast(minimum, "float32"), 0.0)
    maximum = ops.maximum(ops.maximum(ops.cast(maximum, "float32"), 0.0), minimum + MINIMUM_WIDTH)
    # Shifted here so that zero is a grid point: the kernel's own shift breaks ties the other way than the converter's.
    scale = (maximum - minimum) / ACTIVATION_STEPS
    zero_point = ops.clip(ops.round(-128 - minimum / scale), -128, 127)
    rounded = tf.quantization.fake_quant_with_min_max_vars(
        ops.cast(x, "float32"), scale * (-128 - zero_point), scale * (127 - zero_point)
    )
    return ops.cast(rounded, x.dtype)


def fake_quantize_weights(kernel: tf.Tensor, scale_axes: tuple[int, ...]) -> tf.Tensor:
    """Rounds weights to a symmetric narrow grid (-127 … 127 steps), one scale per output channel.

    Nothing is ever clipped (the scale comes from the largest weight), so the gradient is 1 everywhere.

    Args:
        kernel: weights of any shape.
        scale_axes: the axes that share one scale.
    """
    largest = ops.max(ops.abs(kernel), axis=scale_axes, keepdims=True)
    scale = ops.where(largest > 0, largest / WEIGHT_STEPS, 1.0)
    return kernel + ops.stop_gradient(ops.round(kernel / scale) * scale - kernel)
