"""Keeping single-threaded calls on a core that is left alone, so that nothing moves or slows them meanwhile."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["QuietCore", "on_core"]

CORES = Path("/sys/devices/system/cpu")
PROBES, PROBE_LENGTH = 3, 10_000
ALIKE = 1.15
"""How many times the shortest probe one may take on a quiet core; on a shared one it takes a third longer and more."""
PAUSE_SECONDS = 0.02


class QuietCore:
    """The core to time a single thread on, asked for again before each turn.

    Two hardware threads of a core slow each other down by a third and more. On a virtual machine the other one may be a
    neighbour's, for seconds at a time, and no figure of the system tells. A short computation does: a core is quiet
    while that takes about as long as it took at best, on any core. The core stays the same as long as it is quiet; then
    another quiet one takes its place, and where there is none, the search waits. After the turn the core is looked at
    again: what it was disturbed in is to be repeated.

    Args:
        patience_seconds: how long all searches may wait, and how long what is repeated may have taken, together.
        probe: what tells how fast a core is; a fraction of a millisecond of one thread.
        clock: monotonic time in nanoseconds.

    Example:
        >>> core = QuietCore(patience_seconds=0.0).find()
        >>> core is None or core in os.sched_getaffinity(0)
        True
    """

    def __init__(
        self,
        patience_seconds: float,
        *,
        probe: Callable[[], object] = lambda: sum(range(PROBE_LENGTH)),
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._patience_seconds, self._probe, self._clock = patience_seconds, probe, clock
        self._shortest = math.inf
        durations = {core: self._duration(core) for core in _fastest_cores()}
        self._cores = sorted(durations, key=durations.__getitem__)

    def find(self) -> int | None:
        """Its number; None where the system pins no threads (macOS, Windows).

        Where no core is quiet and the patience is at its end, it is the one that was quiet last.
        """
        while self._cores:
            for core in self._cores:
                if self._duration(core) <= ALIKE * self._shortest:
                    self._cores.remove(core)
                    self._cores.insert(0, core)
                    return core
            if self._patience_seconds <= 0:
                break
            time.sleep(PAUSE_SECONDS)
            self._patience_seconds -= PAUSE_SECONDS
        return self._cores[0] if self._cores else None

    def was_quiet(self, seconds: float) -> bool:
        """Whether the core is still quiet after so long a turn, or has to do as the patience is at its end."""
        if self._patience_seconds <= 0 or self._duration(self._cores[0]) <= ALIKE * self._shortest:
            return True
        self._patience_seconds -= seconds
        return False

    def _duration(self, core: int) -> int:
        """The shortest of a few probes, in nanoseconds."""
        durations = []
        with on_core(core):
            for _ in range(PROBES):
                begin = self._clock()
                self._probe()
                durations.append(self._clock() - begin)
        self._shortest = min(self._shortest, *durations)
        return min(durations)


@contextmanager
def on_core(core: int | None) -> Iterator[int | None]:
    """Keeps this thread on a core within the block; afterwards it may run where it might before.

    Threads that are started within the block stay on the core; those that run already are not touched.

    Yields:
        The number of the core, or None where none was given or the system forbids it.

    Example:
        >>> with on_core(QuietCore(patience_seconds=0.0).find()) as core:
        ...     core is None or os.sched_getaffinity(0) == {core}
        True
    """
    if core is None:
        yield None
        return
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {core})
    except OSError:
        yield None
        return
    try:
        yield core
    finally:
        os.sched_setaffinity(0, allowed)


def _fastest_cores() -> list[int]:
    """Those of the highest clock rate that this process may use; the last ones first, as interrupts go to the first."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    rates = {core: _highest_clock_rate(core) for core in os.sched_getaffinity(0)}
    highest = max(rates.values())
    return sorted((core for core, rate in rates.items() if rate == highest), reverse=True)


def _highest_clock_rate(core: int) -> int:
    """In kHz; 0 where the system does not tell."""
    try:
        return int((CORES / f"cpu{core}" / "cpufreq" / "cpuinfo_max_freq").read_text())
    except (OSError, ValueError):
        return 0
