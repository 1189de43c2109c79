"""The timing protocol: callables in, statistics out."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np

__all__ = ["Timing", "measure"]

# A candidate's turn is a block of calls, not one call: alternating single calls would time each of them
# with the others' data in the caches and their worker threads still spinning on the cores.
ROUNDS = 10
UNRECORDED_CALLS_PER_TURN = 2
WARMUP_WINDOW = 5
WARMUP_TOLERANCE = 0.05

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Timing:
    """How long the calls of one candidate took; all figures are of the same calls.

    Args:
        p50_ms: median, in milliseconds.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile.
        throughput_per_second: calls one after the other in a second of the measurement.
        repeats: calls recorded.
        warmup_calls: calls made before.
        settled: whether warm-up ended because the times had become stable, not because its time was up.
    """

    p50_ms: float
    p90_ms: float
    p99_ms: float
    throughput_per_second: float
    repeats: int
    warmup_calls: int
    settled: bool


def measure(
    candidates: Mapping[Key, Callable[[], object]],
    *,
    repeats: int = 100,
    seconds: float = 1.0,
    warmup_seconds: float = 1.0,
    on_progress: Callable[[float], None] = lambda fraction: None,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[Key, Timing]:
    """Times callables in turns.

    Each is warmed up until two successive windows of calls have medians within 5 %. Then come up to ten
    rounds; in each every candidate has a turn, and another one begins each round. The garbage collector is
    off while calls are recorded.

    Args:
        candidates: what to call, by key; the result has the same keys.
        repeats: recorded calls of each candidate, at least.
        seconds: recorded time of each candidate, at least.
        warmup_seconds: warm-up ends after this time even if the times have not settled.
        on_progress: called between turns with the fraction that is done, in [0, 1].
        clock: monotonic time in nanoseconds.

    Example:
        >>> timings = measure({"sum": lambda: sum(range(100))}, repeats=10, seconds=0.0)
        >>> timings["sum"].p50_ms <= timings["sum"].p99_ms
        True
    """
    with _garbage_collector_off():
        warmups = {key: _warm_up(call, warmup_seconds, clock) for key, call in candidates.items()}
        durations: dict[Key, list[int]] = {key: [] for key in candidates}
        keys, rounds = list(candidates), min(ROUNDS, repeats)
        turns = rounds * len(keys)
        for turn in range(turns):
            round_, position = divmod(turn, len(keys))
            key = keys[(round_ + position) % len(keys)]
            share = (round_ + 1) / rounds
            _take_turn(candidates[key], durations[key], math.ceil(repeats * share), seconds * share * 1e9, clock)
            on_progress((turn + 1) / turns)
    return {key: _statistics(durations[key], *warmups[key]) for key in candidates}


@contextmanager
def _garbage_collector_off() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _warm_up(call: Callable[[], object], limit_seconds: float, clock: Callable[[], int]) -> tuple[int, bool]:
    """Calls until the times are stable; returns how many calls that took and whether they became stable."""
    begin, medians = clock(), list[float]()
    while True:
        edges = [clock()]
        for _ in range(WARMUP_WINDOW):
            call()
            edges.append(clock())
        medians.append(float(np.median([after - before for before, after in pairwise(edges)])))
        settled = len(medians) > 1 and abs(medians[-1] - medians[-2]) <= WARMUP_TOLERANCE * medians[-2]
        if settled or (len(medians) > 1 and clock() - begin > limit_seconds * 1e9):
            return len(medians) * WARMUP_WINDOW, settled


def _take_turn(
    call: Callable[[], object],
    durations: list[int],
    until_calls: int,
    until_nanoseconds: float,
    clock: Callable[[], int],
) -> None:
    for _ in range(UNRECORDED_CALLS_PER_TURN):
        call()
    recorded = sum(durations)
    while len(durations) < until_calls or recorded < until_nanoseconds:
        begin = clock()
        call()
        # A clock may not advance within a very short call; a call still takes some time.
        durations.append(max(clock() - begin, 1))
        recorded += durations[-1]


def _statistics(durations: list[int], warmup_calls: int, settled: bool) -> Timing:
    p50, p90, p99 = (float(value) / 1e6 for value in np.percentile(durations, (50, 90, 99)))
    return Timing(
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        throughput_per_second=len(durations) / (sum(durations) / 1e9),
        repeats=len(durations),
        warmup_calls=warmup_calls,
        settled=settled,
    )
