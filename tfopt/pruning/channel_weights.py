"""What layers with weights do with channels: which they make, which they read, and which they scale one by one.

A rule gives the channels of the output, or the reason why those of inputs and output must stay.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from tfopt.pruning.channel_flow import ChannelFlow
from tfopt.pruning.channel_tensors import CHANNELS_FIRST, NOT_KNOWN, mixing
from tfopt.surgery.graph import Call

__all__ = [
    "batch_norm",
    "convolution",
    "dense",
    "depthwise",
    "embedding",
    "layer_scale",
    "normalization",
    "prelu",
    "recurrent",
    "rescaling",
    "separable",
    "transposed_convolution",
]

# Layers that make channels


def _make(flow: ChannelFlow, call: Call, kernel: keras.Variable, axis: int, entry: str) -> np.ndarray:
    layer = call.operation
    made = flow.made_by(layer, kernel.shape[axis])
    flow.add_axis(call, kernel, axis, made, "makes")
    if getattr(layer, "use_bias", False):
        flow.add_axis(call, layer.bias, 0, made, "passes")
    flow.add_resize(call, entry, made, lambda config, stays: config.update({entry: int(stays.sum())}))
    if reason := mixing(getattr(layer, "activation", keras.activations.linear)):
        flow.keep(made, f"{reason} ('{call.name}')")
    return made


def dense(flow: ChannelFlow, call: Call) -> np.ndarray | str:
    """Reads the last axis and makes `units`."""
    layer = call.operation
    if layer.lora_enabled:
        return "LoRA is enabled on it"
    flow.add_axis(call, layer.kernel, 0, flow.channels[call.inputs[0]], "reads")
    return _make(flow, call, layer.kernel, 1, "units")


def convolution(flow: ChannelFlow, call: Call) -> np.ndarray | str:
    """Reads channels and makes `filters`, all from all or group from group."""
    layer = call.operation
    if layer.lora_enabled:
        return "LoRA is enabled on it"
    taken = flow.channels[call.inputs[0]]
    if layer.groups == 1:
        flow.add_axis(call, layer.kernel, -2, taken, "reads")
        return _make(flow, call, layer.kernel, -1, "filters")
    # A group of a grouped convolution stays or goes as a whole, with what it reads and what it makes.
    made = _make(flow, call, layer.kernel, -1, "filters")
    size = len(taken) // layer.groups
    for channels in (taken.reshape(layer.groups, -1), made.reshape(layer.groups, -1)):
        for column in channels.T:
            flow.tie(taken[::size], column)
    flow.add_resize(call, "groups", taken, lambda config, stays: config.update(groups=int(stays.sum()) // size))
    return made


def transposed_convolution(flow: ChannelFlow, call: Call) -> np.ndarray | str:
    """Reads channels and makes `filters`; its kernel is `(..., out, in)`."""
    layer = call.operation
    if getattr(layer, "groups", 1) != 1:
        return "it is a transposed convolution of groups"
    flow.add_axis(call, layer.kernel, -1, flow.channels[call.inputs[0]], "reads")
    return _make(flow, call, layer.kernel, -2, "filters")


def separable(flow: ChannelFlow, call: Call) -> np.ndarray | str:
    """Scales each channel by a depthwise kernel, reads the results and makes `filters`."""
    layer, taken = call.operation, flow.channels[call.inputs[0]]
    flow.add_axis(call, layer.depthwise_kernel, -2, taken, "passes")
    flow.add_axis(call, layer.pointwise_kernel, -2, np.repeat(taken, layer.depth_multiplier), "reads")
    return _make(flow, call, layer.pointwise_kernel, -1, "filters")


def embedding(flow: ChannelFlow, call: Call) -> np.ndarray | str:
    """Makes `output_dim` channels of tokens."""
    layer = call.operation
    if layer.lora_enabled:
        return "LoRA is enabled on it"
    flow.keep(flow.channels[call.inputs[0]], f"'{call.name}' takes tokens")
    return _make(flow, call, layer.embeddings, 1, "output_dim")


# Layers that read channels and give others, which stay


def recurrent(flow: ChannelFlow, call: Call) -> np.ndarray | str:
    """Reads channels; its own units stay."""
    layer = call.operation
    parts = [layer.forward_layer, layer.backward_layer] if isinstance(layer, layers.Bidirectional) else [layer]
    if len(call.inputs) > 1 or any(type(part) not in (layers.LSTM, layers.GRU, layers.SimpleRNN) for part in parts):
        return NOT_KNOWN
    for part in parts:
        flow.add_axis(call, part.cell.kernel, 0, flow.channels[call.inputs[0]], "reads")
    made = flow.new(call.output.shape[-1] or 0)
    flow.keep(made, f"'{call.name}' makes them: units of a recurrent layer are read by itself")
    return made


# Weights per channel


def depthwise(flow: ChannelFlow, call: Call) -> np.ndarray | str:
    """Each channel by itself, to one or several that go with it."""
    layer, taken = call.operation, flow.channels[call.inputs[0]]
    given = np.repeat(taken, layer.depth_multiplier)
    flow.add_axis(call, layer.kernel, -2, taken, "passes")
    if layer.use_bias:
        flow.add_axis(call, layer.bias, 0, given, "passes")
    if reason := mixing(layer.activation):
        flow.keep(given, f"{reason} ('{call.name}')")
    return given


def batch_norm(flow: ChannelFlow, call: Call) -> np.ndarray | str:
    """Normalizes each channel by its own statistics."""
    layer, value = call.operation, call.inputs[0]
    if layer.axis not in (-1, len(value.shape) - 1):
        return CHANNELS_FIRST
    if len(call.inputs) > 1:
        return "it takes a mask"
    channels = flow.channels[value]
    for weight in layer.weights:
        flow.add_axis(call, weight, 0, channels, "scales" if layer.scale and weight is layer.gamma else "passes")
    return channels


def prelu(flow: ChannelFlow, call: Call) -> np.ndarray | str:
    """A slope for each channel, each position of it, or all."""
    layer, channels = call.operation, flow.channels[call.inputs[0]]
    if layer.alpha.shape[-1] == len(channels):
        flow.add_axis(call, layer.alpha, -1, channels, "passes")
    return channels


def layer_scale(flow: ChannelFlow, call: Call) -> np.ndarray | str:
    """ConvNeXt's product with one number for each channel."""
    channels = flow.channels[call.inputs[0]]
    flow.add_axis(call, call.operation.gamma, 0, channels, "passes")
    flow.add_resize(
        call, "projection_dim", channels, lambda config, stays: config.update(projection_dim=int(stays.sum()))
    )
    return channels


def rescaling(flow: ChannelFlow, call: Call) -> np.ndarray | str:
    """One number for all, or one for each channel."""
    return _values_per_channel(flow, call, "scale", "offset")


def normalization(flow: ChannelFlow, call: Call) -> np.ndarray | str:
    """Statistics that are constants: one of all, or one for each channel."""
    layer, rank = call.operation, len(call.inputs[0].shape)
    axes = () if layer.axis is None else tuple(np.atleast_1d(layer.axis))
    if axes not in ((), (-1,), (rank - 1,)):
        return "it has other values at other positions"
    channels = flow.channels[call.inputs[0]]
    for weight in layer.weights if axes else ():
        if tuple(weight.shape) == channels.shape:
            flow.add_axis(call, weight, 0, channels, "passes")
    return _values_per_channel(flow, call, "mean", "variance")


def _values_per_channel(flow: ChannelFlow, call: Call, *entries: str) -> np.ndarray | str:
    """Slices constants in a layer's config of shape `(channels,)` or `(1, ..., channels)`."""
    channels, config = flow.channels[call.inputs[0]], call.operation.get_config()
    for entry in entries:
        constant = np.asarray(0.0 if config[entry] is None else config[entry])
        if constant.size == 1:
            continue
        if constant.shape[-1] != constant.size or constant.size != len(channels):
            return "it has other values at other positions"

        def select(config: dict[str, Any], stays: np.ndarray, entry: str = entry) -> None:
            config[entry] = np.asarray(config[entry])[..., stays].tolist()

        flow.add_resize(call, entry, channels, select)
    return channels
