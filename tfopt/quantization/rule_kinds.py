"""What a rule is: the weights of a layer that are rounded, which of them share a scale, and the range of its output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import keras

__all__ = ["OperationRule", "Output", "Rule"]


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
        scale_axes: for a layer with weights, the axes of each of them that share one scale; else None.
        weights: for such a layer, the attributes that hold the weights to round; dotted where they lie in a part of it.
        fixed_range: the range, where TFLite fixes it.
        absorbs: what may follow without being rounded in between, since the converter fuses it:
            any of "batch_norm" and "relu".
        absorbed_as: as what the layer itself may be fused; else None.
        in_float: for a layer that computes in float although its weights are int8, the reason; else None.
    """

    output: Output
    scale_axes: tuple[int, ...] | None = None
    weights: tuple[str, ...] = ("kernel",)
    fixed_range: tuple[float, float] | None = None
    absorbs: frozenset[str] = frozenset()
    absorbed_as: str | None = None
    in_float: str | None = None


RELU_FOLLOWS = frozenset({"relu"})
SAME = Rule(Output.SAME)
SAME_ROUNDED = Rule(Output.SAME_ROUNDED)
OWN = Rule(Output.OWN)
ARITHMETIC = Rule(Output.OWN, absorbs=RELU_FOLLOWS)
RELU = Rule(Output.OWN, absorbed_as="relu")
FIXED_UNIT = Rule(Output.FIXED, fixed_range=(0.0, 255 / 256))  # scale 1/256, zero point -128
FIXED_SIGNED_UNIT = Rule(Output.FIXED, fixed_range=(-1.0, 127 / 128))  # scale 1/128, zero point 0
FIXED_LOG_SOFTMAX = Rule(Output.FIXED, fixed_range=(-255 / 16, 0.0))  # scale 1/16, zero point 127

CHANNELS_FIRST = "TFLite has channels last only"

OperationRule = Callable[[keras.Operation, int], Rule | str]
"""From a layer and the number of axes of its input to its rule, or to the reason why it has none."""
