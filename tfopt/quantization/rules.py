"""What int8 does with each Keras layer: which of its weights share a scale, and the range of its output.

References: TensorFlow Lite 8-bit quantization specification, "Operator specifications".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import keras
import numpy as np
from keras import layers

__all__ = ["Output", "Rule", "rule_for"]


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
        weights: the attributes (dotted, for a part of the layer) that hold the weights which `scale_axes` is about.
        in_float: why the layer computes in float although its weights are rounded; else None.
    """

    output: Output
    scale_axes: tuple[int, ...] | None = None
    fixed_range: tuple[float, float] | None = None
    absorbs: frozenset[str] = frozenset()
    absorbed_as: str | None = None
    weights: tuple[str, ...] = ("kernel",)
    in_float: str | None = None


RELU_FOLLOWS = frozenset({"relu"})
SAME = Rule(Output.SAME)
SAME_ROUNDED = Rule(Output.SAME_ROUNDED)
OWN = Rule(Output.OWN)
ARITHMETIC = Rule(Output.OWN, absorbs=RELU_FOLLOWS)
RELU = Rule(Output.OWN, absorbed_as="relu")
FIXED_UNIT = Rule(Output.FIXED, fixed_range=(0.0, 255 / 256))  # scale 1/256, zero point -128
FIXED_SIGNED_UNIT = Rule(Output.FIXED, fixed_range=(-1.0, 127 / 128))  # scale 1/128, zero point 0

CHANNELS_FIRST = "TFLite has channels last only"


LayerRule = Callable[[keras.Layer, int], Rule | str]
"""From a layer and the number of axes of its input to its rule, or to the reason why it has none."""


def _weighted(*scale_axes: int) -> LayerRule:
    def rule(layer: keras.Layer, _: int) -> Rule | str:
        if getattr(layer, "data_format", "channels_last") != "channels_last":
            return CHANNELS_FIRST
        if getattr(layer, "groups", 1) != 1:
            return "a grouped convolution has no int8 kernel"
        return Rule(Output.OWN, scale_axes=scale_axes, absorbs=frozenset({"batch_norm", "relu"}))

    return rule


def _channels_last(rule: Rule) -> LayerRule:
    return lambda layer, _: rule if layer.data_format == "channels_last" else CHANNELS_FIRST


def _relu(layer: layers.ReLU, _: int) -> Rule | str:
    if layer.threshold or layer.max_value not in (None, 6, 6.0):
        return "a ReLU with a threshold or a maximum other than 6 is not one TFLite operator"
    if layer.negative_slope:
        return OWN if layer.max_value is None else "a ReLU with a slope and a maximum is not one TFLite operator"
    return RELU


def _activation(layer: layers.Activation, _: int) -> Rule | str:
    match layer.activation:
        case keras.activations.linear:
            return SAME
        case keras.activations.relu | keras.activations.relu6:
            return RELU
        case keras.activations.softmax | keras.activations.sigmoid:
            return FIXED_UNIT
        case keras.activations.tanh:
            return FIXED_SIGNED_UNIT
        case (
            keras.activations.leaky_relu | keras.activations.gelu | keras.activations.silu | keras.activations.hard_silu
        ):
            return OWN
    return f"the activation '{getattr(layer.activation, '__name__', layer.activation)}' has no int8 kernel"


def _batch_norm(layer: layers.BatchNormalization, rank: int) -> Rule | str:
    if layer.axis not in (-1, rank - 1):
        return f"{CHANNELS_FIRST}: batch norm must be over the last axis"
    return Rule(Output.OWN, absorbed_as="batch_norm", absorbs=RELU_FOLLOWS)


def _normalization(layer: layers.Normalization, rank: int) -> Rule | str:
    axes = () if layer.axis is None else tuple(np.atleast_1d(layer.axis))
    if axes not in ((), (-1,), (rank - 1,)) or layer.invert:
        return "only a Normalization over the last axis, not inverted, is one multiplication and addition per channel"
    return ARITHMETIC


def _softmax(layer: layers.Softmax, rank: int) -> Rule | str:
    return FIXED_UNIT if layer.axis in (-1, rank - 1) else "TFLite computes softmax over the last axis only"


_RULES: dict[type, Rule | LayerRule] = {
    # weights
    layers.Dense: _weighted(0),
    layers.Conv1D: _weighted(0, 1),
    layers.Conv2D: _weighted(0, 1, 2),
    layers.Conv1DTranspose: _weighted(0, 2),
    layers.Conv2DTranspose: _weighted(0, 1, 3),
    # one scale per output channel, which for (h, w, in, multiplier) is one per pair of the last two axes
    layers.DepthwiseConv1D: _weighted(0),
    layers.DepthwiseConv2D: _weighted(0, 1),
    # multiplication and addition per channel
    layers.BatchNormalization: _batch_norm,
    layers.Rescaling: ARITHMETIC,
    layers.Normalization: _normalization,
    # activations
    layers.ReLU: _relu,
    layers.LeakyReLU: OWN,
    layers.PReLU: OWN,
    layers.Activation: _activation,
    layers.Softmax: _softmax,
    # two tensors and more
    layers.Add: ARITHMETIC,
    layers.Subtract: ARITHMETIC,
    layers.Multiply: ARITHMETIC,
    layers.Maximum: SAME_ROUNDED,
    layers.Minimum: SAME_ROUNDED,
    layers.Concatenate: SAME_ROUNDED,
    # pooling
    layers.MaxPooling1D: _channels_last(SAME),
    layers.MaxPooling2D: _channels_last(SAME),
    layers.GlobalMaxPooling1D: _channels_last(SAME),
    layers.GlobalMaxPooling2D: _channels_last(SAME),
    layers.AveragePooling1D: _channels_last(SAME_ROUNDED),
    layers.AveragePooling2D: _channels_last(SAME_ROUNDED),
    layers.GlobalAveragePooling1D: _channels_last(OWN),
    layers.GlobalAveragePooling2D: _channels_last(OWN),
    # shapes
    layers.Flatten: SAME,
    layers.Reshape: SAME,
    layers.Permute: SAME,
    layers.RepeatVector: SAME,
    layers.ZeroPadding1D: SAME,
    layers.ZeroPadding2D: SAME,
    layers.Cropping1D: SAME,
    layers.Cropping2D: SAME,
    layers.UpSampling1D: SAME,
    layers.UpSampling2D: SAME_ROUNDED,
    layers.Identity: SAME,
    # nothing at inference
    layers.Dropout: SAME,
    layers.SpatialDropout1D: SAME,
    layers.SpatialDropout2D: SAME,
    layers.GaussianNoise: SAME,
    layers.GaussianDropout: SAME,
    layers.ActivityRegularization: SAME,
}


def rule_for(operation: keras.Operation, rank: int) -> Rule | str:
    """The rule of a layer, or the reason why it has none and stays in float.

    Args:
        operation: the layer.
        rank: how many axes its input has, the batch included.

    Example:
        >>> rule_for(keras.layers.Flatten(), 4).output
        <Output.SAME: "the input's range: values pass unchanged">
        >>> rule_for(keras.layers.Activation("selu"), 2)
        "the activation 'selu' has no int8 kernel"
    """
    rule = _RULES.get(type(operation))
    if rule is None:
        return f"{type(operation).__name__} has no int8 rule"
    return rule if isinstance(rule, Rule) else rule(operation, rank)
