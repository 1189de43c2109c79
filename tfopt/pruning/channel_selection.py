"""Which channels go first, and how many may: array maths over groups of channels, without TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["Candidates", "RemovalOrder", "smallest_count"]


@dataclass(frozen=True, eq=False)
class Candidates:
    """Channels of one group that may go.

    Args:
        channels: of the group.
        minimum: how many of them stay at least.
        step: those that stay are a multiple of it, or all.
    """

    channels: np.ndarray
    minimum: int
    step: int = 1

    def stay(self, wanted: int) -> int:
        """The smallest permitted number of channels that is not below what is wanted or the minimum."""
        wanted = max(wanted, self.minimum)
        return min(len(self.channels), math.ceil(wanted / self.step) * self.step)


class RemovalOrder:
    """The channels of all groups in the order of their scores, the least important first.

    Args:
        groups: what may go.
        scores: importance of each channel of the graph, of shape `(count,)`; equal ones go in their order.

    Attributes:
        limit: how many channels may go in all.

    Example:
        >>> order = RemovalOrder([Candidates(np.array([0, 1, 2, 3]), minimum=1, step=2)], np.array([4.0, 1, 3, 2]))
        >>> order.limit  # the minimum is rounded up to 2
        2
        >>> order.stays(2)
        array([ True, False,  True, False])
    """

    def __init__(self, groups: list[Candidates], scores: np.ndarray) -> None:
        self._scores = scores
        self._groups = []
        for group in groups:
            ascending = group.channels[np.argsort(scores[group.channels], kind="stable")]
            removable = ascending[: len(ascending) - group.stay(0)]
            self._groups.append((group, removable))
        all_removable = np.concatenate([np.empty(0, np.intp), *(removable for _, removable in self._groups)])
        ranked = all_removable[np.lexsort((all_removable, scores[all_removable]))]
        self._rank = np.full(len(scores), len(scores))
        self._rank[ranked] = np.arange(len(ranked))
        self.limit = len(ranked)

    def stays(self, count: int) -> np.ndarray:
        """Marks the channels that stay when the `count` least important ones are to go.

        Where a group's channels stay in multiples, fewer go.

        Returns:
            A bool array of shape `(channels of the graph,)`.
        """
        stays = np.ones(len(self._scores), dtype=bool)
        for group, removable in self._groups:
            wanted = len(group.channels) - int(np.count_nonzero(self._rank[removable] < count))
            stays[removable[: len(group.channels) - group.stay(wanted)]] = False
        return stays


def smallest_count(enough: Callable[[int], bool], limit: int, resolution: int = 1) -> int:
    """Bisects for the smallest count that is enough, given that `limit` is.

    Args:
        enough: what a count is asked; true from some count on.
        limit: a count that is enough.
        resolution: how much larger the found count may be; fewer counts are tried then.

    Example:
        >>> smallest_count(lambda count: count * count >= 50, 100)
        8
    """
    low, high = -1, limit
    while high - low > resolution:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle
    return high
