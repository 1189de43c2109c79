"""Which layers of a model a search treats alike, and what can be done with each group."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import keras

from tfopt.errors import ConfigError, ModelError
from tfopt.pruning.channel_coverage import channel_coverage
from tfopt.surgery.elementary import origin_of
from tfopt.surgery.graph import read_graph
from tfopt.surgery.select import iterate_layers, select_kernels

__all__ = ["WHOLE_MODEL", "LayerGroup", "LayerGroups"]

WHOLE_MODEL = ""
"""The name of the only group, where none are given."""


@dataclass(frozen=True)
class LayerGroup:
    """Layers that a search treats alike.

    Args:
        name: of the group.
        pattern: the regular expression that the whole names of its layers match, and none before it.
        loses_channels: whether one of them may lose channels.
        has_kernels: whether one of them has a kernel that is pruned (`LayerGroups.kernels_of`).
    """

    name: str
    pattern: str
    loses_channels: bool
    has_kernels: bool

    def label(self, value: str) -> str:
        """The name of a hyperparameter of the group.

        Example:
            >>> LayerGroup("head", "dense.*", True, True).label("sparsity")
            'sparsity/head'
        """
        return value if self.name == WHOLE_MODEL else f"{value}/{self.name}"


class LayerGroups:
    """The layers of a model by group. Where several patterns match a layer, the first counts.

    Args:
        model: built, Functional or Sequential; the layers of nested models count as its own.
        patterns: from the name of a group to a regular expression that the whole name of a layer matches; None puts all
            layers into one group.

    Raises:
        ConfigError: if a pattern is no expression, or matches no layer.
        ModelError: if the model cannot be read.

    Example:
        >>> layers = [keras.Input((4,)), keras.layers.Dense(8, name="hidden"), keras.layers.Dense(2, name="scores")]
        >>> groups = LayerGroups(keras.Sequential(layers), {"first": "hidden", "rest": ".*"})
        >>> [(group.name, group.loses_channels) for group in groups]
        [('first', True), ('rest', False)]
        >>> groups.group_of("scores_activation")
        'rest'
    """

    def __init__(self, model: keras.Model, patterns: Mapping[str, str] | None) -> None:
        self._are_named = patterns is not None
        patterns = {WHOLE_MODEL: ".*"} if patterns is None else patterns
        self._names = list(dict.fromkeys(call.name for call in read_graph(model).calls))
        self._group_of = {name: _first_match(name, patterns) for name in self._names}
        if not patterns:
            raise ConfigError("groups must hold at least one group, or be None for the whole model. Received: {}.")
        for name, pattern in patterns.items():
            if name not in self._group_of.values():
                raise ConfigError(
                    f"groups[{name!r}]={pattern!r} matches no layer of '{model.name}' that no group before it has. "
                    f"Its layers: {', '.join(self._names)}."
                )
        narrowed = {self._group_of[name] for group in channel_coverage(model).removable for name in group.layers}
        pruned = self.kernels_of(model)
        self._groups = tuple(
            LayerGroup(name, pattern, name in narrowed, name in pruned) for name, pattern in patterns.items()
        )

    def __iter__(self) -> Iterator[LayerGroup]:
        return iter(self._groups)

    def group_of(self, layer: str) -> str | None:
        """The name of the group that a layer is in, or the layer that it was made of; None where it is in none."""
        return self._group_of.get(origin_of(layer, self._names))

    def kernels_of(self, model: keras.Model) -> dict[str | None, list[keras.layers.Layer]]:
        """The layers that are pruned, by group: those with the kernels that `MagnitudePruning` prunes by default.

        Embeddings are among them where groups were given.

        Args:
            model: the one of these groups, or one that was made of it.
        """
        found: dict[str | None, list[keras.layers.Layer]] = {}
        for layer in _layers_with_kernels(model, embeddings=self._are_named):
            found.setdefault(self.group_of(layer.name), []).append(layer)
        return found


def _layers_with_kernels(model: keras.Model, *, embeddings: bool) -> list[keras.layers.Layer]:
    found = [layer for layer in iterate_layers(model) if embeddings and isinstance(layer, keras.layers.Embedding)]
    try:
        return [*found, *(layer for layer, _ in select_kernels(model))]
    except ModelError:  # there is none
        return found


def _first_match(name: str, patterns: Mapping[str, str]) -> str | None:
    for group, pattern in patterns.items():
        try:
            if re.fullmatch(pattern, name):
                return group
        except (re.error, TypeError) as error:
            raise ConfigError(
                f"groups must map names to regular expressions. Received: {pattern!r} ({error}). "
                "Escape special characters with re.escape."
            ) from None
    return None
