"""Normalizations of each sample as means, products and a reciprocal root, with a trainable 1×1 depthwise convolution.

TFLite has no operator for them, and where the converter makes them of others by itself, some stay in float.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from tfopt.surgery.graph import Call, Copier
from tfopt.surgery.positive import PositiveFunction
from tfopt.surgery.rewriting import Rewriting

__all__ = [
    "split_group_normalization",
    "split_layer_normalization",
    "split_layer_scale",
    "split_rms_normalization",
    "split_unit_normalization",
]


def split_layer_normalization(
    call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any], rewriting: Rewriting
) -> Any:
    """Makes a LayerNormalization over the last axis of elementary layers."""
    layer, x = call.operation, args[0]
    if not _over_last_axis(layer.axis, x):
        return None
    name = rewriting.name(call)
    normalized = _normalize(x, name, rewriting, layer, axes=-1, keep_mean=layer.rms_scaling)
    return _multiply_add(normalized, layer, layer.gamma, layer.beta, name, rewriting)


def split_rms_normalization(
    call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any], rewriting: Rewriting
) -> Any:
    """Makes an RMSNormalization over the last axis of elementary layers."""
    layer, x = call.operation, args[0]
    if not _over_last_axis(layer.axis, x):
        return None
    name = rewriting.name(call)
    normalized = _normalize(x, name, rewriting, layer, axes=-1, centered=False)
    return _multiply_add(normalized, layer, layer.scale, None, name, rewriting)


def split_group_normalization(
    call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any], rewriting: Rewriting
) -> Any:
    """Makes a GroupNormalization over channels that are last of elementary layers."""
    layer, x = call.operation, args[0]
    if not _over_last_axis(layer.axis, x) or None in x.shape[1:]:
        return None
    name, channels = rewriting.name(call), x.shape[-1]
    groups = layers.Reshape((-1, layer.groups, channels // layer.groups), name=rewriting.unique(f"{name}_groups"))(x)
    normalized = _normalize(groups, name, rewriting, layer, axes=(1, 3))
    merged = layers.Reshape(x.shape[1:], name=rewriting.unique(f"{name}_channels"))(normalized)
    return _multiply_add(merged, layer, layer.gamma, layer.beta, name, rewriting)


def split_unit_normalization(
    call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any], rewriting: Rewriting
) -> Any:
    """Makes a UnitNormalization over the last axis of elementary layers."""
    layer, x = call.operation, args[0]
    if not _over_last_axis(layer.axis, x):
        return None
    name, dtype = rewriting.name(call), layer.variable_dtype

    def part(suffix: str) -> str:
        return rewriting.unique(f"{name}_{suffix}")

    square = layers.Multiply(name=part("square"), dtype=dtype)([x, x])
    total = rewriting.apply(lambda x: ops.sum(x, axis=-1, keepdims=True), square, name=part("sum"))
    total = layers.Rescaling(1.0, 1e-24, name=part("epsilon"), dtype=dtype)(total)  # Keras: a norm of 1e-12 at least
    inverse = PositiveFunction("rsqrt", name=part("inverse_norm"), dtype=dtype)(total)
    return layers.Multiply(name=name, dtype=layer.dtype_policy)([x, inverse])


def split_layer_scale(
    call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any], rewriting: Rewriting
) -> Any:
    """Makes a depthwise convolution of ConvNeXt's LayerScale, which multiplies each channel by `gamma`."""
    layer = call.operation
    return _multiply_add(args[0], layer, layer.gamma, None, rewriting.name(call), rewriting)


def _over_last_axis(axis: Any, x: Any) -> bool:
    return tuple(np.atleast_1d(axis)) in ((-1,), (len(x.shape) - 1,))


def _normalize(
    x: Any,
    name: str,
    rewriting: Rewriting,
    layer: keras.Layer,
    *,
    axes: int | tuple[int, ...],
    centered: bool = True,
    keep_mean: bool = False,
) -> Any:
    """Divides by sqrt(variance + epsilon) in full precision, as Keras does.

    `centered`: the variance is about the mean, else about zero; `keep_mean`: what is divided is `x` all the same.
    """
    dtype = layer.variable_dtype

    def part(suffix: str) -> str:
        return rewriting.unique(f"{name}_{suffix}")

    def mean(x: Any) -> Any:
        return ops.mean(x, axis=axes, keepdims=True)

    difference = x
    if centered:
        average = rewriting.apply(mean, x, name=part("mean"))
        difference = layers.Subtract(name=part("centered"), dtype=dtype)([x, average])
    square = layers.Multiply(name=part("square"), dtype=dtype)([difference, difference])
    variance = rewriting.apply(mean, square, name=part("variance"))
    variance = layers.Rescaling(1.0, layer.epsilon, name=part("epsilon"), dtype=dtype)(variance)
    inverse = PositiveFunction("rsqrt", name=part("inverse_deviation"), dtype=dtype)(variance)
    return layers.Multiply(name=part("normalized"), dtype=dtype)([x if keep_mean else difference, inverse])


def _multiply_add(x: Any, layer: keras.Layer, gamma: Any, beta: Any, name: str, rewriting: Rewriting) -> Any:
    """Multiplies and adds per channel with weights that stay trainable; a depthwise convolution is one operator."""
    channels, rank = x.shape[-1], len(x.shape)
    if gamma is None and beta is None:
        return layers.Activation("linear", name=name, dtype=layer.dtype_policy)(x)

    def make() -> keras.Layer:
        kind = layers.DepthwiseConv2D if rank == 4 else layers.DepthwiseConv1D
        # A kernel of this norm is one that training leaves alone.
        ones = keras.constraints.MinMaxNorm(1.0, 1.0, axis=[0, 1, 3] if rank == 4 else [0, 2])
        return kind(
            1,
            use_bias=beta is not None,
            depthwise_regularizer=getattr(layer, "gamma_regularizer", None),
            depthwise_constraint=ones if gamma is None else getattr(layer, "gamma_constraint", None),
            bias_regularizer=getattr(layer, "beta_regularizer", None),
            bias_constraint=getattr(layer, "beta_constraint", None),
            dtype=layer.dtype_policy,
            trainable=layer.trainable,
            name=name,
        )

    depthwise = rewriting.once(layer, make)
    if rank in (3, 4):
        outputs = depthwise(x)
    else:
        flat = layers.Reshape((-1, channels), name=rewriting.unique(f"{name}_flat"))(x)
        outputs = layers.Reshape(x.shape[1:], name=rewriting.unique(f"{name}_shape"))(depthwise(flat))
    shape = depthwise.kernel.shape
    depthwise.kernel.assign(ops.ones(shape) if gamma is None else ops.reshape(gamma, shape))
    if beta is not None:
        depthwise.bias.assign(beta)
    return outputs
