"""Fake quantization: float tensors rounded to an integer grid, with gradients that pass straight through.

References: Jacob et al. 2018, arXiv:1712.05877, section 3; Bengio et al. 2013, arXiv:1308.3432.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import tensorflow as tf
from keras import ops

from tfopt.quantization.spec import MIDWAY, MINIMUM_WIDTH, WEIGHT_STEPS, activation_steps

__all__ = [
    "activation_scale",
    "fake_quantize_activation",
    "fake_quantize_learned",
    "fake_quantize_weights",
    "round_bias",
    "round_to_float16",
    "weight_scale",
]


def fake_quantize_activation(
    x: tf.Tensor, minimum: tf.Tensor | float, maximum: tf.Tensor | float, bits: int = 8
) -> tuple[tf.Tensor, tf.Tensor]:
    """Rounds activations to the integer grid of a range; the gradient is 1 inside the range and 0 outside.

    Args:
        x: activations of any shape.
        minimum: the range's lower end, a scalar; widened to hold zero.
        maximum: the range's upper end, likewise.
        bits: 8 or 16.

    Returns:
        The rounded activations, and the step of their grid, a float32 scalar without gradient.
    """
    is_fixed = isinstance(minimum, float) and isinstance(maximum, float)
    limit = 2 ** (bits - 1)
    # Shifted here so that zero is a grid point: the kernel's own shift breaks ties the other way than the converter's.
    with tf.init_scope() if is_fixed else nullcontext():  # a fixed grid is two constants of the graph
        scale, zero_point = _grid(minimum, maximum, bits, ops.round)
        lowest, highest = scale * (-limit - zero_point), scale * (limit - 1 - zero_point)
    rounded = tf.quantization.fake_quant_with_min_max_vars(ops.cast(x, "float32"), lowest, highest, num_bits=bits)
    return ops.cast(rounded, x.dtype), ops.stop_gradient(scale)


def fake_quantize_learned(x: tf.Tensor, minimum: tf.Tensor, maximum: tf.Tensor, bits: int = 8) -> tf.Tensor:
    """Rounds activations to the integer grid of a range that has gradients itself.

    Inside the range a step too wide shows as rounding error, outside as clipping error; the gradient of the range
    balances the two. It is scaled down by the number of values that it sums up.

    Args:
        x: activations of shape `(n, ...)`.
        minimum: the range's lower end, a scalar; widened to hold zero.
        maximum: the range's upper end, likewise.
        bits: 8 or 16.

    References: Esser et al. 2020, arXiv:1902.08153, section 2.2 (LSQ); Bhalgat et al. 2020, arXiv:2004.09576 (LSQ+).
    """
    limit = 2 ** (bits - 1)
    values = ops.cast(x, "float32")
    features = ops.cast(ops.size(values), "float32") / ops.cast(ops.shape(values)[0], "float32")
    slowdown = ops.rsqrt(features * (limit - 1))
    minimum, maximum = (end * slowdown + ops.stop_gradient(end * (1 - slowdown)) for end in (minimum, maximum))
    scale, zero_point = _grid(minimum, maximum, bits, _round)
    levels = ops.clip(_round(values / scale) + zero_point, -limit, limit - 1)
    return ops.cast((levels - zero_point) * scale, x.dtype)


def activation_scale(minimum: tf.Tensor | float, maximum: tf.Tensor | float, bits: int = 8) -> tf.Tensor:
    """The step of the integer grid of a range, a float32 scalar without gradient."""
    return ops.stop_gradient(_grid(minimum, maximum, bits, ops.round)[0])


def _grid(minimum: Any, maximum: Any, bits: int, rounding: Callable[[Any], Any]) -> tuple[tf.Tensor, tf.Tensor]:
    """The scale and zero point of a range, as `spec.activation_grid` has them."""
    minimum = ops.minimum(ops.cast(minimum, "float32"), 0.0)
    maximum = ops.maximum(ops.maximum(ops.cast(maximum, "float32"), 0.0), minimum + MINIMUM_WIDTH)
    if bits == 16:
        return ops.maximum(-minimum / 2**15, maximum / (2**15 - 1)), ops.zeros_like(minimum)
    scale = (maximum - minimum) / activation_steps(8)
    midway = ops.abs(-minimum / scale % 1 - 0.5) < MIDWAY
    scale = ops.where(midway, (maximum - minimum) / (activation_steps(8) - 1), scale)
    return scale, ops.clip(rounding(-128 - minimum / scale), -128, 127)


def _round(x: tf.Tensor) -> tf.Tensor:
    return x + ops.stop_gradient(ops.round(x) - x)


def fake_quantize_weights(kernel: tf.Tensor, scale_axes: tuple[int, ...]) -> tf.Tensor:
    """Rounds weights to a symmetric narrow grid (-127 … 127 steps), one scale per output channel.

    Nothing is ever clipped (the scale comes from the largest weight), so the gradient is 1 everywhere.

    Args:
        kernel: weights of any shape.
        scale_axes: the axes that share one scale.
    """
    scale = weight_scale(kernel, scale_axes)
    step = ops.where(scale > 0, scale, 1.0)
    return kernel + ops.stop_gradient(ops.round(kernel / step) * step - kernel)


def weight_scale(kernel: tf.Tensor, scale_axes: tuple[int, ...]) -> tf.Tensor:
    """The step of the grid of each output channel of a kernel, 0 where all its weights are; without gradient.

    The axes that share a step are kept, at size 1.
    """
    return ops.stop_gradient(ops.max(ops.abs(kernel), axis=scale_axes, keepdims=True) / WEIGHT_STEPS)


def round_bias(bias: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Rounds a bias to the grid on which an integer layer adds up its products; the gradient is 1 everywhere.

    Args:
        bias: one value per output channel.
        scale: of each channel, the scale of the input times that of the weights; where it is 0 nothing is rounded.
    """
    step = ops.where(scale > 0, scale, 1.0)
    rounded = ops.where(scale > 0, ops.round(bias / step) * step, bias)
    return bias + ops.stop_gradient(rounded - bias)


def round_to_float16(kernel: tf.Tensor) -> tf.Tensor:
    """Rounds weights to what float16 holds; the gradient is 1 everywhere."""
    return kernel + ops.stop_gradient(ops.cast(ops.cast(kernel, "float16"), kernel.dtype) - kernel)
