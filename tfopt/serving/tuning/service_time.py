"""How long a model takes for batches of several sizes, alone and side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median

import numpy as np

__all__ = ["ServiceTime", "measure_service_time"]

WARM_UP_CALLS = 2


@dataclass(frozen=True)
class ServiceTime:
    """The time of a batch by its size, interpolated between the sizes that were measured.

    Args:
        milliseconds: by batch size.
        slowdown: by the number of batches that run at once: how much longer each takes than alone. Numbers that are
            not there are as slow as if the machine were shared out equally from the largest one on.

    Example:
        >>> times = ServiceTime({1: 2.0, 3: 4.0}, slowdown={1: 1.0, 2: 1.5})
        >>> times.of(2), times.of(5), times.of(1, side_by_side=2), times.of(1, side_by_side=4)
        (3.0, 6.0, 3.0, 6.0)
    """

    milliseconds: Mapping[int, float]
    slowdown: Mapping[int, float] = field(default_factory=lambda: {1: 1.0})

    def of(self, size: int, *, side_by_side: int = 1) -> float:
        """Milliseconds of one batch of `size` samples while `side_by_side` batches run."""
        sizes = sorted(self.milliseconds)
        times = [self.milliseconds[one] for one in sizes]
        if size > sizes[-1] and len(sizes) > 1:  # beyond the last size: as much more for each sample as before it
            slope = (times[-1] - times[-2]) / (sizes[-1] - sizes[-2])
            alone = times[-1] + slope * (size - sizes[-1])
        else:
            alone = float(np.interp(size, sizes, times))
        known = max(one for one in self.slowdown if one <= side_by_side)
        return alone * self.slowdown[known] * side_by_side / known


def measure_service_time(
    run: Callable[[int], object],
    sizes: Sequence[int],
    *,
    threads: Sequence[int] = (1, 2),
    seconds_each: float = 0.3,
    least_calls: int = 5,
) -> ServiceTime:
    """Times a model at several batch sizes, in turns, and at one size with several calls at once.

    Use it on a machine that does what the server's will do, with nothing else running: medians of calls in turns are
    taken, so that a short disturbance does not bend the curve.

    Args:
        run: runs a batch of the given size and waits for its result.
        sizes: batch sizes.
        threads: how many calls at once are timed, at the middle one of the sizes.
        seconds_each: spent on each size.
        least_calls: at each size.

    Example:
        >>> times = measure_service_time(lambda size: sum(range(1000 * size)), [1, 4], seconds_each=0.01)
        >>> times.of(4) > times.of(1)
        True
    """
    for size in sizes:
        for _ in range(WARM_UP_CALLS):
            run(size)
    found: dict[int, list[float]] = {size: [] for size in sizes}
    while unfinished := [
        size for size in sizes if len(found[size]) < least_calls or sum(found[size]) < 1000 * seconds_each
    ]:
        for size in unfinished:
            found[size].append(_timed_ms(run, size))
    middle = sorted(sizes)[len(sizes) // 2]
    alone = median(found[middle])
    slowdown = {1: 1.0}
    for count in sorted(set(threads) - {1}):
        slowdown[count] = max(1.0, _side_by_side_ms(run, middle, count, seconds_each, least_calls) / alone)
    return ServiceTime({size: median(times) for size, times in found.items()}, slowdown)


def _timed_ms(run: Callable[[int], object], size: int) -> float:
    started = time.perf_counter()
    run(size)
    return 1000 * (time.perf_counter() - started)


def _side_by_side_ms(run: Callable[[int], object], size: int, count: int, seconds: float, least_calls: int) -> float:
    """By what gets done altogether: a lock that one thread seldom gets makes only that thread's calls long."""
    end = time.perf_counter() + seconds

    def keep_busy(_: int) -> int:
        calls = 0
        while calls < least_calls or time.perf_counter() < end:
            run(size)
            calls += 1
        return calls

    started = time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        calls = sum(pool.map(keep_busy, range(count)))
    return 1000 * (time.perf_counter() - started) * count / calls
