"""The rule of each Keras layer and operation: what it does with channels."""

from __future__ import annotations

import keras
from keras import layers

from tfopt.pruning.channel_tensors import (
    CHANNELS_FIRST,
    NOT_KNOWN,
    ChannelRule,
    activation,
    concatenate,
    elementwise,
    flatten,
    merge,
    over_axes,
    permute,
    reshape,
    same,
    statistics,
)
from tfopt.pruning.channel_weights import (
    batch_norm,
    convolution,
    dense,
    depthwise,
    embedding,
    layer_scale,
    normalization,
    prelu,
    recurrent,
    rescaling,
    separable,
    transposed_convolution,
)
from tfopt.surgery.graph import Call

__all__ = ["channel_rule"]


def channel_rule(call: Call) -> ChannelRule | str:
    """The rule of a call's layer or operation, or the reason why it has none."""
    operation = call.operation
    if getattr(operation, "data_format", None) == "channels_first":
        return CHANNELS_FIRST
    if isinstance(operation, keras.Layer):
        # A layer of keras.applications can be told by the name of its class only.
        rule = LAYER_RULES.get(type(operation)) or _APPLICATION_RULES.get(type(operation).__name__)
    else:
        rule = OPERATION_RULES.get(type(operation).__name__)
    return rule or NOT_KNOWN


_REDUCTION = over_axes("it reduces the axis of the channels to one number")

LAYER_RULES: dict[type, ChannelRule] = {
    layers.Dense: dense,
    layers.Conv1D: convolution,
    layers.Conv2D: convolution,
    layers.Conv3D: convolution,
    layers.Conv1DTranspose: transposed_convolution,
    layers.Conv2DTranspose: transposed_convolution,
    layers.Conv3DTranspose: transposed_convolution,
    layers.SeparableConv1D: separable,
    layers.SeparableConv2D: separable,
    layers.DepthwiseConv1D: depthwise,
    layers.DepthwiseConv2D: depthwise,
    layers.Embedding: embedding,
    layers.LSTM: recurrent,
    layers.GRU: recurrent,
    layers.SimpleRNN: recurrent,
    layers.Bidirectional: recurrent,
    layers.BatchNormalization: batch_norm,
    layers.LayerNormalization: statistics,
    layers.GroupNormalization: statistics,
    layers.RMSNormalization: statistics,
    layers.UnitNormalization: statistics,
    layers.Rescaling: rescaling,
    layers.Normalization: normalization,
    layers.PReLU: prelu,
    layers.Activation: activation,
    layers.Softmax: over_axes("softmax runs over the channels"),
    layers.Add: merge,
    layers.Subtract: merge,
    layers.Multiply: merge,
    layers.Average: merge,
    layers.Maximum: merge,
    layers.Minimum: merge,
    layers.Concatenate: concatenate,
    layers.Flatten: flatten,
    layers.Reshape: reshape,
    layers.Permute: permute,
    **dict.fromkeys(
        (
            layers.ReLU,
            layers.LeakyReLU,
            layers.ELU,
            layers.Identity,
            layers.Dropout,
            layers.SpatialDropout1D,
            layers.SpatialDropout2D,
            layers.SpatialDropout3D,
            layers.AlphaDropout,
            layers.GaussianNoise,
            layers.GaussianDropout,
            layers.ActivityRegularization,
            layers.MaxPooling1D,
            layers.MaxPooling2D,
            layers.MaxPooling3D,
            layers.AveragePooling1D,
            layers.AveragePooling2D,
            layers.AveragePooling3D,
            layers.GlobalMaxPooling1D,
            layers.GlobalMaxPooling2D,
            layers.GlobalMaxPooling3D,
            layers.GlobalAveragePooling1D,
            layers.GlobalAveragePooling2D,
            layers.GlobalAveragePooling3D,
            layers.ZeroPadding1D,
            layers.ZeroPadding2D,
            layers.ZeroPadding3D,
            layers.Cropping1D,
            layers.Cropping2D,
            layers.Cropping3D,
            layers.UpSampling1D,
            layers.UpSampling2D,
            layers.UpSampling3D,
            layers.Resizing,
            layers.RepeatVector,
        ),
        same,
    ),
}
_APPLICATION_RULES: dict[str, ChannelRule] = {"LayerScale": layer_scale, "StochasticDepth": same}
_EACH_BY_ITSELF = (
    "Absolute Cast Celu Clip Copy Elu Exp Gelu HardShrink HardSigmoid HardSilu HardTanh LeakyRelu Log LogSigmoid "
    "Negative Reciprocal Relu Relu6 Rsqrt Selu Sigmoid Sign Silu SoftShrink Softplus Softsign Sqrt Square Squareplus "
    "StopGradient Tanh TanhShrink Threshold"
)
_ARITHMETIC = "Add Divide Maximum Minimum Multiply Power Subtract TrueDivide"
OPERATION_RULES: dict[str, ChannelRule] = {
    **dict.fromkeys(_EACH_BY_ITSELF.split(), elementwise),
    **dict.fromkeys(_ARITHMETIC.split(), merge),
    **dict.fromkeys(("Amax", "Amin", "Max", "Mean", "Min", "Sum"), _REDUCTION),
    "Concatenate": concatenate,
    "ExpandDims": over_axes("it adds an axis after that of the channels"),
    "LogSoftmax": over_axes("log-softmax runs over the channels"),
    "Reshape": reshape,
    "Softmax": over_axes("softmax runs over the channels"),
    "Squeeze": over_axes("it may remove the axis of the channels"),
    "Transpose": permute,
}
"""The rules of `keras.ops` on symbolic tensors, by the name of their class in .keras files."""
