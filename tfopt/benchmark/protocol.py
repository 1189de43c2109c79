"""The timing protocol: callables in, statistics out."""

from __future__ import annotations

import gc
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TypeVar

import numpy as np

from tfopt.benchmark.pinning import QuietCore, on_core
from tfopt.benchmark.timing_statistics import median_interval, outlier_share

__all__ = ["Timing", "measure"]

# A candidate's turn is a block of calls, not one call: alternating single calls would time each of them
# with the others' data in the caches and their worker threads still spinning on the cores.
ROUNDS = 20
UNRECORDED_CALLS_PER_TURN = 2
PATIENCE = 3.0
"""How much longer a measurement may take for the sake of a quiet core, as a multiple of what is recorded."""
WARMUP_WINDOW = 5
WARMUP_TOLERANCE = 0.05

Key = TypeVar("Key", bound=Hashable)
Clock = Callable[[], int]


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
        p50_interval_ms: 95 % confidence interval of the median; None of fewer than five rounds.
        round_medians_ms: the median of each round; those of two candidates of one run are taken in pairs.
        percentiles_ms: the percentiles 0, 1, …, 100.
        outliers: the fraction of calls that took far longer than the others.
        core: the core that most calls were kept on, None where they were not.
    """

    p50_ms: float
    p90_ms: float
    p99_ms: float
    throughput_per_second: float
    repeats: int
    warmup_calls: int
    settled: bool
    p50_interval_ms: tuple[float, float] | None
    round_medians_ms: tuple[float, ...]
    percentiles_ms: tuple[float, ...]
    outliers: float
    core: int | None


def measure(
    candidates: Mapping[Key, Callable[[], object]],
    *,
    repeats: int = 100,
    seconds: float = 1.0,
    warmup_seconds: float = 1.0,
    single_threaded: Collection[Key] = (),
    on_progress: Callable[[float], None] = lambda fraction: None,
    on_failure: Callable[[Key, Exception], None] | None = None,
    clock: Clock = time.perf_counter_ns,
) -> dict[Key, Timing]:
    """Times callables in turns.

    Each is warmed up until two successive windows of calls have medians within 5 %. Then come up to twenty
    rounds; in each every candidate has a turn. The order changes so that each comes first, and after each of the
    others, about equally often. The garbage collector is off while calls are recorded.

    Args:
        candidates: what to call, by key; the result has the same keys.
        repeats: recorded calls of each candidate, at least.
        seconds: recorded time of each candidate, at least.
        warmup_seconds: warm-up ends after this time even if the times have not settled.
        single_threaded: keys whose calls use one thread: each turn is kept on one core that is quiet, where the system
            can. It waits for one, and a turn that was disturbed is repeated, until all takes four times as long.
        on_progress: called between turns with the fraction that is done, in [0, 1].
        on_failure: called with the key and the error of a candidate that fails, which is then left out of the rest
            and of the result. Without it the error ends the measurement.
        clock: monotonic time in nanoseconds.

    Example:
        >>> timings = measure({"sum": lambda: sum(range(100))}, repeats=10, seconds=0.0)
        >>> timings["sum"].p50_ms <= timings["sum"].p99_ms
        True
    """
    with _garbage_collector_off():
        core = QuietCore(PATIENCE * seconds * len(single_threaded)) if single_threaded else None
        turns = {key: _Turns(call, core if key in single_threaded else None, clock) for key, call in candidates.items()}
        alive = dict(turns)

        def attempt(key: Key, step: Callable[[], None]) -> None:
            try:
                step()
            except Exception as error:  # a runtime's own classes, whatever they are
                if on_failure is None:
                    raise
                del alive[key]
                on_failure(key, error)

        for key, one in turns.items():
            attempt(key, partial(one.warm_up, warmup_seconds))
        rounds = min(ROUNDS, repeats)
        for number in range(rounds):
            calls = math.ceil(repeats * (number + 1) / rounds) - math.ceil(repeats * number / rounds)
            order = [key for key in _order(list(turns), number) if key in alive]
            for position, key in enumerate(order):
                attempt(key, partial(turns[key].take, calls, seconds * 1e9 / rounds))
                on_progress((number + (position + 1) / len(order)) / rounds)
    return {key: one.timing() for key, one in alive.items()}


def _order(keys: list[Key], number: int) -> list[Key]:
    """Who follows whom in a round: each order and its reverse, then those beginning with the next one."""
    begin = number // 2 % len(keys) if keys else 0
    order = keys[begin:] + keys[:begin]
    return order[::-1] if number % 2 else order


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


class _Turns:
    """The turns of one candidate, and what they have recorded."""

    def __init__(self, call: Callable[[], object], core: QuietCore | None, clock: Clock) -> None:
        self.call, self.core, self.clock = call, core, clock
        self.cores = Counter[int | None]()
        self.rounds: list[list[int]] = []
        self.warmup_calls, self.settled = 0, False

    def warm_up(self, limit_seconds: float) -> None:
        """Calls until the times are stable, or the time is up."""
        call, clock, medians = self.call, self.clock, list[float]()
        begin = clock()
        with self.on_quiet_core():
            while not self.settled and (len(medians) < 2 or clock() - begin <= limit_seconds * 1e9):
                edges = [clock()]
                for _ in range(WARMUP_WINDOW):
                    call()
                    edges.append(clock())
                medians.append(float(np.median([after - before for before, after in pairwise(edges)])))
                self.settled = len(medians) > 1 and abs(medians[-1] - medians[-2]) <= WARMUP_TOLERANCE * medians[-2]
        self.warmup_calls = len(medians) * WARMUP_WINDOW

    def take(self, calls: int, nanoseconds: float) -> None:
        """One turn: at least so many calls, for at least so long."""
        call, clock, was_quiet = self.call, self.clock, False
        while not was_quiet:
            durations, spent = list[int](), 0
            with self.on_quiet_core() as core:
                for _ in range(UNRECORDED_CALLS_PER_TURN):
                    call()
                while len(durations) < calls or spent < nanoseconds:
                    begin = clock()
                    call()
                    # A clock may not advance within a very short call; a call still takes some time.
                    durations.append(max(clock() - begin, 1))
                    spent += durations[-1]
            was_quiet = core is None or self.core is None or self.core.was_quiet(spent / 1e9)
        self.rounds.append(durations)
        self.cores[core] += 1

    def on_quiet_core(self) -> AbstractContextManager[int | None]:
        return on_core(self.core.find() if self.core else None)

    def timing(self) -> Timing:
        """What all turns tell."""
        rounds = [np.array(durations) / 1e6 for durations in self.rounds]
        pooled = np.concatenate(rounds)
        percentiles = np.percentile(pooled, np.arange(101)).tolist()
        return Timing(
            p50_ms=percentiles[50],
            p90_ms=percentiles[90],
            p99_ms=percentiles[99],
            throughput_per_second=len(pooled) / (float(pooled.sum()) / 1000),
            repeats=len(pooled),
            warmup_calls=self.warmup_calls,
            settled=self.settled,
            p50_interval_ms=median_interval(rounds),
            round_medians_ms=tuple(float(np.median(durations)) for durations in rounds),
            percentiles_ms=tuple(percentiles),
            outliers=outlier_share(pooled),
            core=self.cores.most_common(1)[0][0],
        )
