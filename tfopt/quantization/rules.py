"""What int8 does with a layer or operation: its rule, or the reason why it has none."""

from __future__ import annotations

import keras
from keras import layers

from tfopt.quantization.layer_rules import LAYER_RULES
from tfopt.quantization.operation_rules import OPERATION_RULES
from tfopt.quantization.rule_kinds import Output, Rule

__all__ = ["Output", "Rule", "rule_for"]

_OVER_LAST_AXIS = "int8 operators make it over the last axis only, of tensors without Keras masks"
_ATTENTION = "TFLite has no int8 operator for it; a MultiHeadAttention over one axis is made of such"
_ADAPTIVE = "TFLite pools windows of one size only"
_TEXT = "it prepares data: do so before the model, which int8 takes numbers from"
_REASONS: dict[type, str] = {
    layers.AdaptiveAveragePooling1D: _ADAPTIVE,
    layers.AdaptiveAveragePooling2D: _ADAPTIVE,
    layers.AdaptiveAveragePooling3D: _ADAPTIVE,
    layers.AdaptiveMaxPooling1D: _ADAPTIVE,
    layers.AdaptiveMaxPooling2D: _ADAPTIVE,
    layers.AdaptiveMaxPooling3D: _ADAPTIVE,
    layers.AdditiveAttention: _ATTENTION,
    layers.Attention: _ATTENTION,
    layers.AveragePooling3D: "TFLite has no pooling in three dimensions",
    layers.CategoryEncoding: _TEXT,
    layers.Discretization: _TEXT,
    layers.GroupNormalization: f"{_OVER_LAST_AXIS}, and with a known shape",
    layers.GroupQueryAttention: _ATTENTION,
    layers.HashedCrossing: _TEXT,
    layers.Hashing: _TEXT,
    layers.IntegerLookup: _TEXT,
    layers.Lambda: "the code of a Lambda is unknown: write it with layers or keras.ops",
    layers.LayerNormalization: _OVER_LAST_AXIS,
    layers.Masking: "Keras masks are computed in float",
    layers.MaxPooling3D: "TFLite has no pooling in three dimensions",
    layers.MelSpectrogram: _TEXT,
    layers.MultiHeadAttention: "int8 operators make it over one axis, without masks, gates and returned scores only",
    layers.RMSNormalization: _OVER_LAST_AXIS,
    layers.RNN: "the cells of an RNN are unknown; LSTM, GRU and SimpleRNN have int8 weights",
    layers.RandomCrop: "at inference it crops or resizes as the image's size demands: use CenterCrop or Resizing",
    layers.STFTSpectrogram: _TEXT,
    layers.SpectralNormalization: "it divides its layer's weights at every call: take the layer within it",
    layers.StringLookup: _TEXT,
    layers.TextVectorization: _TEXT,
    layers.TimeDistributed: "its steps become samples only if their number and shape are known, without Keras masks",
    layers.UnitNormalization: _OVER_LAST_AXIS,
}


def rule_for(operation: keras.Operation, rank: int) -> Rule | str:
    """The rule of a layer or operation, or the reason why it has none and stays in float.

    Args:
        operation: the layer, or an operation of `keras.ops`.
        rank: how many axes its input has, the batch included.

    Example:
        >>> rule_for(keras.layers.Flatten(), 4).output
        <Output.SAME: "the input's range: values pass unchanged">
        >>> rule_for(keras.layers.Activation("squareplus"), 2)
        "the activation 'squareplus' has no int8 kernel"
    """
    kind = type(operation).__name__
    rule = LAYER_RULES.get(type(operation)) if isinstance(operation, keras.Layer) else OPERATION_RULES.get(kind)
    if rule is not None:
        return rule if isinstance(rule, Rule) else rule(operation, rank)
    if type(operation) in _REASONS:
        return _REASONS[type(operation)]
    if isinstance(operation, keras.Layer) and getattr(layers, kind, None) is not type(operation):
        return f"{kind} is the model's own: what it computes is known to its code alone"
    return f"TFLite has no int8 operator for {kind}"
