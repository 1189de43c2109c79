"""TFLite's int8 rules: the grid of a range, and what each Keras layer does to the range of its input.

References: TensorFlow Lite 8-bit quantization specification; Jacob et al. 2018, arXiv:1712.05877.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import keras
import numpy as np

__all__ = ["ActivationGrid", "Output", "Rule", "activation_grid", "rule_for", "weight_scales"]

WEIGHT_STEPS = 127
"""Weights are symmetric and narrow: -127 … 127, so that zero is exactly 0 and a product never overflows."""
ACTIVATION_STEPS = 255
MINIMUM_WIDTH = 1e-6
"""A narrower range is widened to this: a tensor that is always zero still needs a positive scale."""


@dataclass(frozen=True)
class ActivationGrid:
    """The int8 grid of an activation: the real value is `scale * (q - zero_point)`, q in -128 … 127."""

    scale: float
    zero_point: int

    @property
    def minimum(self) -> float:
        """The smallest representable value."""
        return self.scale * (-128 - self.zero_point)

    @property
    def maximum(self) -> float:
        """The largest representable value."""
        return self.scale * (127 - self.zero_point)

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Rounds real values to the grid (ties away from zero, as TFLite does) and clips them, as int8."""
        steps = x / self.scale
        rounded = np.trunc(steps + np.copysign(0.5, steps))
        return np.clip(rounded + self.zero_point, -128, 127).astype(np.int8)

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """The real values of int8 values."""
        return self.scale * (q.astype(np.float64) - self.zero_point)


def activation_grid(minimum: float, maximum: float) -> ActivationGrid:
    """The grid of the range [minimum, maximum], widened to hold zero and shifted so that zero is a grid point.

    Example:
        >>> grid = activation_grid(-1.0, 1.55)
        >>> grid.zero_point, round(grid.scale, 6)
        (-28, 0.01)
    """
    minimum, maximum = min(minimum, 0.0), max(maximum, 0.0)
    maximum = max(maximum, minimum + MINIMUM_WIDTH)
    scale = (maximum - minimum) / ACTIVATION_STEPS
    zero_point = round(np.clip(-128 - minimum / scale, -128, 127))
    return ActivationGrid(scale, int(zero_point))


def weight_scales(kernel: np.ndarray, reduced_axes: tuple[int, ...]) -> np.ndarray:
    """The step of each output channel's symmetric grid; 1 for a channel of zeros.

    Args:
        kernel: weights, of any shape.
        reduced_axes: the axes that share one scale.

    Example:
        >>> weight_scales(np.array([[1.27, 0.0], [-0.5, 0.0]]), (0,))
        array([[0.01, 1.  ]])
    """
    largest = np.max(np.abs(kernel), axis=reduced_axes, keepdims=True)
    return np.where(largest > 0, largest / WEIGHT_STEPS, 1.0)


class Output(Enum):
    """How the range of a layer's output comes about."""

    OWN = "a range of its own"
    SAME = "the input's range: values pass unchanged"
    SAME_ROUNDED = "the input's range: values are computed and rounded to its grid"
    FIXED = "a range that TFLite fixes"


@dataclass(frozen=True)
class Rule:
    """What int8 does with a layer.

    Args:
        output: how the range of the output comes about.
        scale_axes: for a layer with weights, the kernel axes that share one scale; else None.
        fixed_range: the range, where TFLite fixes it.
        absorbs: what may follow without being rounded in between, since the converter fuses it:
            any of "batch_norm" and "relu".
        absorbed_as: as what the layer itself may be fused; else None.
    """

    output: Output
    scale_axes: tuple[int, ...] | None = None
    fixed_range: tuple[float, float] | None = None
    absorbs: frozenset[str] = frozenset()
    absorbed_as: str | None = None


UNIT_RANGE = (0.0, 255 / 256)  # scale 1/256, zero point -128
SIGNED_UNIT_RANGE = (-1.0, 127 / 128)  # scale 1/128, zero point 0

WEIGHTED = frozenset({"batch_norm", "relu"})
SAME = Rule(Output.SAME)
SAME_ROUNDED = Rule(Output.SAME_ROUNDED)
OWN = Rule(Output.OWN)
RELU = Rule(Output.OWN, absorbed_as="relu")
FIXED_UNIT = Rule(Output.FIXED, fixed_range=UNIT_RANGE)
FIXED_SIGNED_UNIT = Rule(Output.FIXED, fixed_range=SIGNED_UNIT_RANGE)


def _relu(layer: keras.layers.ReLU) -> Rule | str:
    if layer.negative_slope or layer.threshold or layer.max_value not in (None, 6, 6.0):
        return "a ReLU with a slope, a threshold or a maximum other than 6 is not one TFLite operator"
    return RELU


def _activation(layer: keras.layers.Activation) -> Rule | str:
    match layer.activation:
        case keras.activations.linear:
            return SAME
        case keras.activations.relu | keras.activations.relu6:
            return RELU
        case keras.activations.softmax | keras.activations.sigmoid:
            return FIXED_UNIT
        case keras.activations.tanh:
            return FIXED_SIGNED_UNIT
    return f"the activation '{getattr(layer.activation, '__name__', layer.activation)}' has no int8 rule"


def _convolution(layer: keras.layers.Conv2D) -> Rule | str:
    if layer.data_format != "channels_last":
        return "TFLite convolves channels_last only"
    if layer.groups != 1:
        return "a grouped convolution has no int8 rule"
    return Rule(Output.OWN, scale_axes=(0, 1, 2), absorbs=WEIGHTED)


def _depthwise_convolution(layer: keras.layers.DepthwiseConv2D) -> Rule | str:
    if layer.data_format != "channels_last":
        return "TFLite convolves channels_last only"
    # One scale per output channel, which for (h, w, in, multiplier) is one per pair of the last two axes.
    return Rule(Output.OWN, scale_axes=(0, 1), absorbs=WEIGHTED)


def _batch_norm(layer: keras.layers.BatchNormalization) -> Rule | str:
    if layer.axis != -1:
        return "TFLite has channels last only: batch norm must be over axis -1"
    return Rule(Output.OWN, absorbed_as="batch_norm", absorbs=frozenset({"relu"}))


def _softmax(layer: keras.layers.Softmax) -> Rule | str:
    return FIXED_UNIT if layer.axis == -1 else "TFLite computes softmax over the last axis only"


_RULES: dict[type, Rule | Callable[[keras.Layer], Rule | str]] = {
    keras.layers.Dense: Rule(Output.OWN, scale_axes=(0,), absorbs=WEIGHTED),
    keras.layers.Conv2D: _convolution,
    keras.layers.DepthwiseConv2D: _depthwise_convolution,
    keras.layers.BatchNormalization: _batch_norm,
    keras.layers.ReLU: _relu,
    keras.layers.Activation: _activation,
    keras.layers.Softmax: _softmax,
    keras.layers.Add: Rule(Output.OWN, absorbs=frozenset({"relu"})),
    keras.layers.Concatenate: SAME_ROUNDED,
    keras.layers.AveragePooling2D: SAME_ROUNDED,
    keras.layers.GlobalAveragePooling2D: OWN,
    keras.layers.MaxPooling2D: SAME,
    keras.layers.GlobalMaxPooling2D: SAME,
    keras.layers.Flatten: SAME,
    keras.layers.Reshape: SAME,
    keras.layers.Permute: SAME,
    keras.layers.ZeroPadding2D: SAME,
    keras.layers.Cropping2D: SAME,
    keras.layers.Dropout: SAME,
    keras.layers.SpatialDropout2D: SAME,
    keras.layers.GaussianNoise: SAME,
    keras.layers.GaussianDropout: SAME,
    keras.layers.ActivityRegularization: SAME,
}


def rule_for(operation: keras.Operation) -> Rule | str:
    """The rule of a layer, or the reason why it has none and stays in float.

    Example:
        >>> rule_for(keras.layers.Flatten()).output
        <Output.SAME: "the input's range: values pass unchanged">
        >>> rule_for(keras.layers.Activation("gelu"))
        "the activation 'gelu' has no int8 rule"
    """
    rule = _RULES.get(type(operation))
    if rule is None:
        return f"{type(operation).__name__} has no int8 rule"
    return rule if isinstance(rule, Rule) else rule(operation)
