"""What int8 does with each Keras layer.

References: TensorFlow Lite 8-bit quantization specification, "Operator specifications".
"""

from __future__ import annotations

import re

import keras
import numpy as np
from keras import layers

from tfopt.quantization.rule_kinds import (
    ARITHMETIC,
    CHANNELS_FIRST,
    FIXED_LOG_SOFTMAX,
    FIXED_SIGNED_UNIT,
    FIXED_UNIT,
    OWN,
    RELU,
    RELU_FOLLOWS,
    SAME,
    SAME_ROUNDED,
    OperationRule,
    Output,
    Rule,
)
from tfopt.surgery.positive import PositiveFunction

__all__ = ["LAYER_RULES", "resize_rule"]

NO_3D = "TFLite convolves in three dimensions in float only"
IN_A_LOOP = "TFLite runs a loop over time in float only"
_CELL_WEIGHTS = ("cell.kernel", "cell.recurrent_kernel")
_RECURRENT = (layers.LSTM, layers.GRU, layers.SimpleRNN)


def _weighted(*scale_axes: int) -> OperationRule:
    def rule(layer: keras.Layer, _: int) -> Rule | str:
        if getattr(layer, "data_format", "channels_last") != "channels_last":
            return CHANNELS_FIRST
        return Rule(Output.OWN, scale_axes=scale_axes, absorbs=frozenset({"batch_norm", "relu"}))

    return rule


def _weights_only(reason: str, weights: tuple[str, ...], *scale_axes: int) -> Rule:
    return Rule(Output.OWN, scale_axes=scale_axes, weights=weights, in_float=reason)


def _channels_last(rule: Rule) -> OperationRule:
    return lambda layer, _: rule if layer.data_format == "channels_last" else CHANNELS_FIRST


def _einsum_dense(layer: layers.EinsumDense, _: int) -> Rule | str:
    inputs, kernel, output = re.split(",|->", layer.equation.replace(" ", "").replace("...", ""))
    if set(kernel) & set(inputs) & set(output):
        return "an EinsumDense with an axis in input, kernel and output alike is no dense layer of TFLite"
    contracted = tuple(axis for axis, label in enumerate(kernel) if label not in output)
    return Rule(Output.OWN, scale_axes=contracted)


def _bidirectional(layer: layers.Bidirectional, _: int) -> Rule | str:
    if not isinstance(layer.forward_layer, _RECURRENT) or not isinstance(layer.backward_layer, _RECURRENT):
        return "only LSTM, GRU and SimpleRNN have weights that are known to be rounded"
    weights = tuple(f"{part}.{weight}" for part in ("forward_layer", "backward_layer") for weight in _CELL_WEIGHTS)
    return _weights_only(IN_A_LOOP, weights, 0)


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
        case keras.activations.log_softmax:
            return FIXED_LOG_SOFTMAX
        case (
            keras.activations.leaky_relu
            | keras.activations.gelu
            | keras.activations.silu
            | keras.activations.hard_silu
            | keras.activations.hard_tanh
            | keras.activations.exponential
        ):
            return OWN
    name = getattr(layer.activation, "__name__", layer.activation)
    if layer.activation in vars(keras.activations).values():
        return f"the activation '{name}' has no int8 kernel"
    return f"the activation '{name}' is the model's own: what it computes is known to its code alone"


def _batch_norm(layer: layers.BatchNormalization, rank: int) -> Rule | str:
    if layer.axis not in (-1, rank - 1):
        return f"{CHANNELS_FIRST}: batch norm must be over the last axis"
    return Rule(Output.OWN, absorbed_as="batch_norm", absorbs=RELU_FOLLOWS)


def _normalization(layer: layers.Normalization, rank: int) -> Rule | str:
    axes = () if layer.axis is None else tuple(np.atleast_1d(layer.axis))
    if axes not in ((), (-1,), (rank - 1,)) or layer.invert:
        return "only a Normalization over the last axis, not inverted, is one multiplication and addition per channel"
    return ARITHMETIC


def _rescaling(layer: layers.Rescaling, _: int) -> Rule | str:
    if any(np.size(values) != np.shape(values)[-1] for values in (layer.scale, layer.offset) if np.ndim(values)):
        return "only a Rescaling by one number, or one for each channel, is an int8 operator"
    return ARITHMETIC


def _softmax(layer: layers.Softmax, rank: int) -> Rule | str:
    return FIXED_UNIT if layer.axis in (-1, rank - 1) else "TFLite computes softmax over one axis only"


def _up_sampling(layer: layers.UpSampling2D, _: int) -> Rule | str:
    if layer.interpolation not in ("nearest", "bilinear"):
        return "TFLite resizes by nearest and bilinear interpolation only"
    return SAME_ROUNDED


def _resizing(layer: layers.Resizing, _: int) -> Rule | str:
    if layer.crop_to_aspect_ratio or layer.pad_to_aspect_ratio:
        return "a Resizing that keeps the aspect ratio is no int8 operator"
    return resize_rule(layer.interpolation, layer.data_format, layer.antialias)


def _embedding(layer: layers.Embedding, _: int) -> Rule | str:
    return "the mask of an Embedding with mask_zero is computed in float" if layer.mask_zero else OWN


def resize_rule(interpolation: str, data_format: str | None, antialias: bool) -> Rule | str:
    """The rule of resizing an image."""
    if (data_format or keras.config.image_data_format()) != "channels_last":
        return CHANNELS_FIRST
    if interpolation not in ("nearest", "bilinear") or antialias:
        return "TFLite resizes by nearest and bilinear interpolation only, without antialias"
    return SAME_ROUNDED


LAYER_RULES: dict[type, Rule | OperationRule] = {
    # weights
    layers.Dense: _weighted(0),
    layers.Conv1D: _weighted(0, 1),
    layers.Conv2D: _weighted(0, 1, 2),
    layers.Conv1DTranspose: _weighted(0, 2),
    layers.Conv2DTranspose: _weighted(0, 1, 3),
    # one scale per output channel, which for (h, w, in, multiplier) is one per pair of the last two axes
    layers.DepthwiseConv1D: _weighted(0),
    layers.DepthwiseConv2D: _weighted(0, 1),
    layers.EinsumDense: _einsum_dense,
    layers.Embedding: _embedding,
    # weights alone: TFLite computes them in float
    layers.Conv3D: _weights_only(NO_3D, ("kernel",), 0, 1, 2, 3),
    layers.Conv3DTranspose: _weights_only(NO_3D, ("kernel",), 0, 1, 2, 4),
    layers.LSTM: _weights_only(IN_A_LOOP, _CELL_WEIGHTS, 0),
    layers.GRU: _weights_only(IN_A_LOOP, _CELL_WEIGHTS, 0),
    layers.SimpleRNN: _weights_only(IN_A_LOOP, _CELL_WEIGHTS, 0),
    layers.Bidirectional: _bidirectional,
    # multiplication and addition per channel
    layers.BatchNormalization: _batch_norm,
    layers.Rescaling: _rescaling,
    layers.Normalization: _normalization,
    # activations
    layers.ReLU: _relu,
    layers.LeakyReLU: OWN,
    layers.PReLU: OWN,
    layers.Activation: _activation,
    layers.Softmax: _softmax,
    PositiveFunction: OWN,
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
    layers.GlobalMaxPooling3D: _channels_last(SAME),
    layers.GlobalAveragePooling1D: _channels_last(OWN),
    layers.GlobalAveragePooling2D: _channels_last(OWN),
    layers.GlobalAveragePooling3D: _channels_last(OWN),
    # shapes
    layers.Flatten: SAME,
    layers.Reshape: SAME,
    layers.Permute: SAME,
    layers.RepeatVector: SAME,
    layers.ZeroPadding1D: SAME,
    layers.ZeroPadding2D: SAME,
    layers.ZeroPadding3D: SAME,
    layers.Cropping1D: SAME,
    layers.Cropping2D: SAME,
    layers.Cropping3D: SAME,
    layers.CenterCrop: _channels_last(SAME),
    layers.UpSampling1D: SAME,
    layers.UpSampling2D: _up_sampling,
    layers.UpSampling3D: SAME,
    layers.Resizing: _resizing,
    layers.Identity: SAME,
    # nothing at inference
    layers.Dropout: SAME,
    layers.SpatialDropout1D: SAME,
    layers.SpatialDropout2D: SAME,
    layers.SpatialDropout3D: SAME,
    layers.AlphaDropout: SAME,
    layers.GaussianNoise: SAME,
    layers.GaussianDropout: SAME,
    layers.ActivityRegularization: SAME,
    layers.AugMix: SAME,
    layers.CutMix: SAME,
    layers.MixUp: SAME,
    layers.RandAugment: SAME,
    layers.RandomBrightness: SAME,
    layers.RandomColorDegeneration: SAME,
    layers.RandomColorJitter: SAME,
    layers.RandomContrast: SAME,
    layers.RandomElasticTransform: SAME,
    layers.RandomErasing: SAME,
    layers.RandomFlip: SAME,
    layers.RandomGaussianBlur: SAME,
    layers.RandomGrayscale: SAME,
    layers.RandomHue: SAME,
    layers.RandomInvert: SAME,
    layers.RandomPerspective: SAME,
    layers.RandomPosterization: SAME,
    layers.RandomRotation: SAME,
    layers.RandomSaturation: SAME,
    layers.RandomSharpness: SAME,
    layers.RandomShear: SAME,
    layers.RandomTranslation: SAME,
    layers.RandomZoom: SAME,
}
"""The rule of each Keras layer, or what gives it."""
