"""Channels followed through a graph: which positions of which tensors and weights are one channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np

from tfopt.surgery.graph import Call, Value

__all__ = ["ChannelAxis", "ChannelFlow", "Resize", "Role"]

Role = Literal["makes", "reads", "scales", "passes"]
"""What a weight does along an axis of channels: a kernel makes or reads them, a batch norm's gamma scales them."""

ConfigChange = Callable[[dict[str, Any], np.ndarray], None]
"""Takes a layer's config and a bool mask of the channels that stay, and changes the config in place."""


@dataclass(frozen=True, eq=False)
class ChannelAxis:
    """An axis of a weight that runs over channels.

    Args:
        layer: name of the layer.
        weight: one of its variables.
        axis: of the variable, counted from 0.
        channels: which channel each position belongs to, of shape `(weight.shape[axis],)`.
        role: what the weight does with them.
    """

    layer: str
    weight: keras.Variable
    axis: int
    channels: np.ndarray
    role: Role


@dataclass(frozen=True, eq=False)
class Resize:
    """An entry of a layer's config that depends on how many channels there are.

    Args:
        operation: whose config it is.
        channels: the channels that it counts or lists.
        change: writes it for those that stay.
    """

    operation: keras.Operation
    channels: np.ndarray
    change: ConfigChange


class ChannelFlow:
    """The channels of a graph while it is read: each position of a tensor's last axis has a number, and some are tied.

    Attributes:
        channels: for each tensor the numbers of its last axis, of shape `(size,)`; empty where the size is unknown.
        axes: the axes of weights that run over channels.
        resizes: the entries of configs that depend on them.
        reasons: numbers that must stay, and why; the first reason of a channel counts.
    """

    def __init__(self) -> None:
        self.channels: dict[Value, np.ndarray] = {}
        self.axes: dict[tuple[int, int], ChannelAxis] = {}
        self.resizes: dict[tuple[int, str], Resize] = {}
        self.reasons: list[tuple[np.ndarray, str]] = []
        self._parents: list[int] = []
        self._made: dict[int, np.ndarray] = {}

    def new(self, count: int) -> np.ndarray:
        """Numbers for channels that nothing is tied to yet."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def made_by(self, layer: keras.Layer, count: int) -> np.ndarray:
        """The channels that a layer makes: the same ones at every use of it."""
        if id(layer) not in self._made:
            self._made[id(layer)] = self.new(count)
        return self._made[id(layer)]

    def tie(self, first: np.ndarray, second: np.ndarray) -> None:
        """Makes channels one, position by position: they stay or go together."""
        for one, other in zip(first.tolist(), second.tolist(), strict=True):
            root, child = self._root(one), self._root(other)
            self._parents[max(root, child)] = min(root, child)

    def keep(self, channels: np.ndarray, reason: str) -> None:
        """Says that channels must stay."""
        self.reasons.append((channels, reason))

    def add_axis(self, call: Call, weight: keras.Variable, axis: int, channels: np.ndarray, role: Role) -> None:
        """Says that an axis of a weight runs over channels; those of a second use are tied to those of the first."""
        axis %= len(weight.shape)
        known = self.axes.setdefault((id(weight), axis), ChannelAxis(call.name, weight, axis, channels, role))
        self.tie(known.channels, channels)

    def add_resize(self, call: Call, key: str, channels: np.ndarray, change: ConfigChange) -> None:
        """Says that the entry `key` of the layer's config depends on channels."""
        known = self.resizes.setdefault((id(call.operation), key), Resize(call.operation, channels, change))
        if len(known.channels) == len(channels):
            self.tie(known.channels, channels)
        else:
            for each in (known.channels, channels):
                self.keep(each, f"'{call.name}' is shared by tensors of different sizes")

    def roots(self) -> np.ndarray:
        """For each number the smallest one it is tied to."""
        return np.array([self._root(number) for number in range(len(self._parents))], dtype=np.intp)

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number
