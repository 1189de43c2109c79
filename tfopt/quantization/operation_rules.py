"""What int8 does with each operation of `keras.ops` on symbolic tensors, by the name of its class in .keras files."""

from __future__ import annotations

import keras

from tfopt.quantization.layer_rules import resize_rule
from tfopt.quantization.rule_kinds import (
    ARITHMETIC,
    CHANNELS_FIRST,
    FIXED_LOG_SOFTMAX,
    FIXED_SIGNED_UNIT,
    FIXED_UNIT,
    OWN,
    SAME,
    SAME_ROUNDED,
    OperationRule,
    Rule,
)

__all__ = ["OPERATION_RULES"]


def _softmax_operation(operation: keras.Operation, rank: int) -> Rule | str:
    axis = operation.get_config()["axis"]
    return FIXED_UNIT if axis in (-1, rank - 1) else "TFLite computes softmax over the last axis only"


def _log_softmax_operation(operation: keras.Operation, rank: int) -> Rule | str:
    axis = operation.get_config()["axis"]
    return FIXED_LOG_SOFTMAX if axis in (-1, rank - 1) else "TFLite computes log-softmax over the last axis only"


def _resize_operation(operation: keras.Operation, _: int) -> Rule | str:
    config = operation.get_config()
    if config["crop_to_aspect_ratio"] or config["pad_to_aspect_ratio"]:
        return "a resize that keeps the aspect ratio is no int8 operator"
    return resize_rule(config["interpolation"], config["data_format"], config["antialias"])


def _pad(operation: keras.Operation, _: int) -> Rule | str:
    return SAME if operation.get_config()["mode"] == "constant" else "only padding by a constant is an int8 operator"


def _pool_operation(rule: Rule) -> OperationRule:
    def pool(operation: keras.Operation, _: int) -> Rule | str:
        data_format = operation.get_config()["data_format"] or keras.config.image_data_format()
        return rule if data_format == "channels_last" else CHANNELS_FIRST

    return pool


OPERATION_RULES: dict[str, Rule | OperationRule] = {
    # activations
    "Exp": OWN,
    "Gelu": OWN,
    "HardSilu": OWN,
    "HardTanh": OWN,
    "LeakyRelu": OWN,
    "LogSoftmax": _log_softmax_operation,
    "Sigmoid": FIXED_UNIT,
    "Silu": OWN,
    "Softmax": _softmax_operation,
    "Tanh": FIXED_SIGNED_UNIT,
    # numbers
    "Absolute": OWN,
    "Clip": OWN,
    "Reciprocal": OWN,
    # two tensors and more
    "Add": ARITHMETIC,
    "Concatenate": SAME_ROUNDED,
    "Einsum": OWN,
    "Hstack": SAME_ROUNDED,
    "Matmul": OWN,
    "Maximum": SAME_ROUNDED,
    "Minimum": SAME_ROUNDED,
    "Multiply": ARITHMETIC,
    "Stack": SAME_ROUNDED,
    "Subtract": ARITHMETIC,
    "Vstack": SAME_ROUNDED,
    # reductions
    "Amax": SAME,
    "Amin": SAME,
    "AveragePool": _pool_operation(SAME_ROUNDED),
    "Max": SAME,
    "MaxPool": _pool_operation(SAME),
    "Mean": OWN,
    "Min": SAME,
    "Sum": OWN,
    # shapes
    "Copy": SAME,
    "ExpandDims": SAME,
    "GetItem": SAME,
    "Moveaxis": SAME,
    "Pad": _pad,
    "Ravel": SAME,
    "Repeat": SAME,
    "Reshape": SAME,
    "Resize": _resize_operation,
    "Roll": SAME,
    "Squeeze": SAME,
    "Swapaxes": SAME,
    "Take": SAME,
    "Tile": SAME,
    "Transpose": SAME,
}
"""The rule of each operation, or what gives it."""
