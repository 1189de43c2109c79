"""Which output channels of which layers stay or go together, where each is read, and which must stay."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import keras
import numpy as np

from tfopt.pruning.channel_flow import ChannelAxis, ChannelFlow, Resize
from tfopt.pruning.channel_rules import channel_rule
from tfopt.pruning.channel_tensors import NOT_KNOWN
from tfopt.surgery.graph import Call, Graph, Value

__all__ = ["ChannelGroup", "ChannelGroups", "find_channel_groups"]


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels that the same layers make.

    Args:
        layers: their names, in the order of the model.
        channels: the group's channels, each an index into the `count` channels of the graph.
        widths: for each layer how many of its filters or units one channel is.
        reason: why the channels must stay; empty where they may go.
    """

    layers: tuple[str, ...]
    channels: np.ndarray
    widths: tuple[int, ...]
    reason: str


@dataclass(frozen=True, eq=False)
class ChannelGroups:
    """The channels of a graph.

    A channel is everything that must be removed together: from an output channel of one layer to all that a residual
    connection ties.

    Args:
        graph: where they are.
        count: how many there are.
        groups: those that a layer makes, by the layers that make them.
        channels: for each tensor the channel of each position of its last axis, of shape `(size,)`; empty where its
            size is not known.
        axes: the axes of weights that run over channels.
        resizes: the entries of configs that depend on them.
    """

    graph: Graph
    count: int
    groups: tuple[ChannelGroup, ...]
    channels: dict[Value, np.ndarray]
    axes: tuple[ChannelAxis, ...]
    resizes: tuple[Resize, ...]

    def size(self, weight: keras.Variable, stays: np.ndarray) -> int:
        """How many numbers a variable holds if only some channels stay.

        Args:
            weight: a variable of the model.
            stays: bool of shape `(count,)`.
        """
        sizes = list(weight.shape)
        for axis in self.axes_of(weight):
            sizes[axis.axis] = int(np.count_nonzero(stays[axis.channels]))
        return prod(sizes)

    def axes_of(self, weight: keras.Variable) -> list[ChannelAxis]:
        """The axes of a variable that run over channels."""
        return self._axes_by_weight.get(id(weight), [])

    @cached_property
    def _axes_by_weight(self) -> dict[int, list[ChannelAxis]]:
        found: dict[int, list[ChannelAxis]] = {}
        for axis in self.axes:
            found.setdefault(id(axis.weight), []).append(axis)
        return found


def find_channel_groups(graph: Graph) -> ChannelGroups:
    """Follows the channels of a graph from the layers that make them to all that read them.

    The channels are on the last axis. What a layer of an unknown kind takes and gives must stay, as do the inputs and
    outputs of the model; each such group has a reason.

    Example:
        >>> from tfopt.surgery.graph import read_graph
        >>> x = keras.Input((8, 8, 3))
        >>> y = keras.layers.Conv2D(4, 3, padding="same", name="first")(x)
        >>> y = keras.layers.Add()([y, keras.layers.Conv2D(4, 1, name="shortcut")(x)])
        >>> y = keras.layers.Dense(2, name="scores")(keras.layers.Flatten()(y))
        >>> for group in find_channel_groups(read_graph(keras.Model(x, y))).groups:
        ...     print(group.layers, len(group.channels), group.reason or "may go")
        ('first', 'shortcut') 4 may go
        ('scores',) 2 the model returns them
    """
    flow = ChannelFlow()
    for value in keras.tree.flatten(graph.inputs):
        _bind(flow, value, "the model takes them")
    for call in graph.calls:
        _follow(flow, call)
    for value in keras.tree.flatten(graph.outputs):
        flow.keep(flow.channels[value], "the model returns them")
    roots, numbers = np.unique(flow.roots(), return_inverse=True)
    reasons = [""] * len(roots)
    for channels, reason in flow.reasons:
        for channel in numbers[channels].tolist():
            reasons[channel] = reasons[channel] or reason
    axes = tuple(replace(axis, channels=numbers[axis.channels]) for axis in flow.axes.values())
    return ChannelGroups(
        graph=graph,
        count=len(roots),
        groups=_groups(axes, reasons),
        channels={value: numbers[channels] for value, channels in flow.channels.items()},
        axes=axes,
        resizes=tuple(replace(resize, channels=numbers[resize.channels]) for resize in flow.resizes.values()),
    )


def _follow(flow: ChannelFlow, call: Call) -> None:
    rule = channel_rule(call)
    given = rule if isinstance(rule, str) else rule(flow, call)
    if not isinstance(given, str) and len(given) != (_last_size(call.output) or 0):
        given = NOT_KNOWN  # such as a concatenation with a constant
    first, *others = keras.tree.flatten(call.outputs)
    kind = type(call.operation).__name__
    if isinstance(given, str):
        others = [first, *others]
        for value in call.inputs:
            flow.keep(flow.channels[value], f"'{call.name}' ({kind}) reads them: {given}")
    else:
        flow.channels[first] = given
    for value in others:
        _bind(flow, value, f"'{call.name}' ({kind}) makes them")


def _bind(flow: ChannelFlow, value: Value, reason: str) -> None:
    flow.channels[value] = flow.new(_last_size(value) or 0)
    flow.keep(flow.channels[value], reason)


def _last_size(value: Value) -> int | None:
    return value.shape[-1] if len(value.shape) > 1 else None


def _groups(axes: tuple[ChannelAxis, ...], reasons: list[str]) -> tuple[ChannelGroup, ...]:
    makers: dict[int, dict[str, int]] = {}
    for axis in axes:
        if axis.role == "makes":
            for channel in axis.channels.tolist():
                widths = makers.setdefault(channel, {})
                widths[axis.layer] = widths.get(axis.layer, 0) + 1
    members: dict[tuple[tuple[tuple[str, int], ...], str], list[int]] = {}
    for channel, widths in makers.items():
        members.setdefault((tuple(widths.items()), reasons[channel]), []).append(channel)
    return tuple(
        ChannelGroup(
            layers=tuple(name for name, _ in widths),
            channels=np.array(sorted(channels), dtype=np.intp),
            widths=tuple(width for _, width in widths),
            reason=reason,
        )
        for (widths, reason), channels in members.items()
    )
