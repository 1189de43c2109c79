"""The coverage table of channel pruning: which layers may lose channels, and why the others keep them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import keras

from tfopt.pruning.channel_groups import ChannelGroup, ChannelGroups, find_channel_groups
from tfopt.surgery.graph import read_graph
from tfopt.surgery.model import check_model
from tfopt.surgery.select import LayerFilter, select_kernels

__all__ = ["ChannelCoverage", "channel_coverage", "chosen_groups"]


@dataclass(frozen=True)
class ChannelCoverage:
    """What channel pruning may do with the layers of a model; printing it gives the table.

    Args:
        groups: layers whose channels are tied, in the order of the model. A layer is in several groups if its channels
            differ in what they are tied to.
    """

    groups: tuple[ChannelGroup, ...]

    @property
    def removable(self) -> tuple[ChannelGroup, ...]:
        """The groups that may lose channels."""
        return tuple(group for group in self.groups if not group.reason)

    def __str__(self) -> str:
        rows = [("layers", "channels", "why they must stay")]
        rows += [(" + ".join(group.layers), str(len(group.channels)), group.reason) for group in self.groups]
        layers, channels = (max(len(row[column]) for row in rows) for column in range(2))
        return "\n".join(f"{row[0]:<{layers}}  {row[1]:>{channels}}  {row[2]}".rstrip() for row in rows)


def channel_coverage(model: keras.Model, *, layers: LayerFilter | None = None) -> ChannelCoverage:
    """Tells which layers of a model `prune_channels` may take channels from, and which not and why.

    Layers in one row are tied: a residual connection adds them, so that a channel goes from all or from none.

    Args:
        model: a Functional or Sequential model; nested ones are laid flat.
        layers: as of `prune_channels`.

    Raises:
        ModelError: if the model cannot be read.
        ConfigError: if `layers` matches no layer with a kernel.

    Example:
        >>> x = keras.Input((8, 8, 3))
        >>> y = keras.layers.Conv2D(4, 3, padding="same", name="first")(x)
        >>> y = keras.layers.Add()([y, keras.layers.Conv2D(4, 1, name="shortcut")(x)])
        >>> y = keras.layers.Dense(2, "softmax", name="scores")(keras.layers.Flatten()(y))
        >>> print(channel_coverage(keras.Model(x, y)))
        layers            channels  why they must stay
        first + shortcut         4
        scores                   2  its activation 'softmax' runs over the channels ('scores')
    """
    check_model(model)
    return ChannelCoverage(chosen_groups(model, find_channel_groups(read_graph(model)), layers))


def chosen_groups(model: keras.Model, groups: ChannelGroups, layers: LayerFilter | None) -> tuple[ChannelGroup, ...]:
    """The groups of a model, those that `layers` leaves out with that for a reason."""
    if layers is None:
        return groups.groups
    chosen = {id(layer) for layer, _ in select_kernels(model, layers)}
    left_out = {call.name for call in groups.graph.calls if id(call.operation) not in chosen}

    def choose(group: ChannelGroup) -> ChannelGroup:
        if group.reason or left_out.isdisjoint(group.layers):
            return group
        tied = next(name for name in group.layers if name in left_out)
        return replace(group, reason=f"layers= leaves '{tied}' out")

    return tuple(choose(group) for group in groups.groups)
