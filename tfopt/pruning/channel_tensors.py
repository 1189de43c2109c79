"""What layers and operations without weights do with channels: alone, with several tensors, and in other shapes.

A rule gives the channels of the output, or the reason why those of inputs and output must stay.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, takewhile
from operator import mul
from typing import Any

import keras
import numpy as np
from keras import layers

from tfopt.pruning.channel_flow import ChannelFlow
from tfopt.surgery.graph import Call, Value

__all__ = [
    "CHANNELS_FIRST",
    "NOT_KNOWN",
    "ChannelRule",
    "activation",
    "concatenate",
    "elementwise",
    "flatten",
    "merge",
    "mixing",
    "over_axes",
    "permute",
    "reshape",
    "same",
    "statistics",
]

ChannelRule = Callable[[ChannelFlow, Call], "np.ndarray | str"]

CHANNELS_FIRST = "its channels are not on the last axis"
STATISTICS = "its statistics run over the channels and would change without some of them"
CONSTANT_ARRAY = "one of its operands is a constant array"
NOT_KNOWN = "what it does with channels is not known"
ACTIVATION_LAYERS = (layers.ReLU, layers.LeakyReLU, layers.ELU)
_ACROSS_CHANNELS = (
    keras.activations.softmax,
    keras.activations.log_softmax,
    keras.activations.sparsemax,
    keras.activations.glu,
)


def same(flow: ChannelFlow, call: Call) -> np.ndarray | str:
    """Each channel by itself."""
    return flow.channels[call.inputs[0]] if len(call.inputs) == 1 else NOT_KNOWN


def elementwise(flow: ChannelFlow, call: Call) -> np.ndarray | str:
    """Each channel by itself, unless an operand is an array that is not known to be one of channels."""
    constants = (*_constants(call), *call.operation.get_config().values())
    return CONSTANT_ARRAY if any(np.size(each) > 1 for each in constants) else same(flow, call)


def activation(flow: ChannelFlow, call: Call) -> np.ndarray | str:
    """Each channel by itself, unless the activation runs over them."""
    return mixing(call.operation.activation) or same(flow, call)


def mixing(activation: Any) -> str:
    """Why an activation is not one of each channel by itself, or nothing."""
    name = getattr(activation, "__name__", None) or getattr(activation, "name", activation)
    if activation in _ACROSS_CHANNELS:
        return f"its activation '{name}' runs over the channels"
    if activation in vars(keras.activations).values() or type(activation) in ACTIVATION_LAYERS:
        return ""
    return f"its activation '{name}' is the model's own: what it computes is known to its code alone"


def statistics(flow: ChannelFlow, call: Call) -> np.ndarray | str:
    """A normalization over the channels."""
    return STATISTICS


# Several tensors


def merge(flow: ChannelFlow, call: Call) -> np.ndarray | str:
    """Position by position: the channels of all tensors are tied, and a single one meets all others."""
    if any(np.size(leaf) > 1 for leaf in _constants(call)):
        return CONSTANT_ARRAY
    taken = [flow.channels[value] for value in call.inputs]
    widest = max(taken, key=len)
    if len(widest) and not all(map(len, taken)):
        return "the last axis of one of its operands has no known size"
    for channels in taken:
        if len(channels) == len(widest):
            flow.tie(widest, channels)
        else:
            flow.keep(channels, f"'{call.name}' broadcasts a single channel to all")
    return widest


def _constants(call: Call) -> list[Any]:
    return [leaf for leaf in keras.tree.flatten((call.args, call.kwargs)) if not isinstance(leaf, Value)]


def concatenate(flow: ChannelFlow, call: Call) -> np.ndarray | str:
    """The channels side by side; along another axis, position by position."""
    if call.operation.get_config()["axis"] in (-1, len(call.output.shape) - 1):
        return np.concatenate([flow.channels[value] for value in call.inputs])
    return merge(flow, call)


# Shapes


def flatten(flow: ChannelFlow, call: Call) -> np.ndarray | str:
    """Each channel becomes as many inputs as there are positions."""
    return _reshaped(flow, call, flow.channels[call.inputs[0]])


def reshape(flow: ChannelFlow, call: Call) -> np.ndarray | str:
    """The last axis stays, takes in axes before it, or gives some up."""
    entry = "target_shape" if isinstance(call.operation, keras.Layer) else "newshape"
    given = _reshaped(flow, call, flow.channels[call.inputs[0]])

    def change(config: dict[str, Any], stays: np.ndarray) -> None:
        if config[entry][-1] != -1:
            config[entry] = (*config[entry][:-1], int(stays.sum()))

    if not isinstance(given, str):
        flow.add_resize(call, entry, given, change)
    return given


def _reshaped(flow: ChannelFlow, call: Call, channels: np.ndarray) -> np.ndarray | str:
    taken, given = call.inputs[0].shape, call.output.shape
    if taken[-1] == given[-1]:
        return channels
    if taken[-1] is None or given[-1] is None:
        return "it merges or splits an axis of unknown size"
    if given[-1] in _trailing_sizes(taken):  # (h, w, channels) to (h * w * channels,)
        return np.tile(channels, given[-1] // taken[-1])
    if taken[-1] in _trailing_sizes(given):  # and back
        by_position = channels.reshape(-1, given[-1])
        for positions in by_position:
            flow.tie(by_position[0], positions)
        return by_position[0]
    return "it splits or mixes the channels"


def _trailing_sizes(shape: tuple[int | None, ...]) -> list[int]:
    """The sizes that the last two, three, ... axes have together, up to the first unknown one."""
    known = [size for size in takewhile(lambda size: size is not None, reversed(shape[1:])) if size is not None]
    return list(accumulate(known, mul))[1:]


def permute(flow: ChannelFlow, call: Call) -> np.ndarray | str:
    """The last axis stays the last."""
    config, last = call.operation.get_config(), len(call.inputs[0].shape) - 1
    axes = config["dims"] if "dims" in config else config["axes"]
    return same(flow, call) if axes is not None and axes[-1] in (-1, last) else "it moves the axis of the channels"


def over_axes(reason: str) -> ChannelRule:
    """What runs over some axes leaves the channels alone if theirs is not among them."""

    def rule(flow: ChannelFlow, call: Call) -> np.ndarray | str:
        axes = call.operation.get_config()["axis"]
        rank = max(len(call.inputs[0].shape), len(call.output.shape))
        if axes is None or any(axis % rank == rank - 1 for axis in np.atleast_1d(axes).tolist()):
            return reason
        return same(flow, call)

    return rule
