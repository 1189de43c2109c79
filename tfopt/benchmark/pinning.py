"""Keeping single-threaded calls on one core, so that the scheduler does not move them while they are timed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["on_core", "quiet_core"]

CORES = Path("/sys/devices/system/cpu")
TIMES = Path("/proc/stat")


def quiet_core(seconds: float = 0.2) -> int | None:
    """The core to time a single thread on: of the highest clock rate, and of those the one with least to do.

    Args:
        seconds: how long to watch what the cores do; meanwhile this thread sleeps.

    Returns:
        Its number, the highest of equal ones, since most systems handle interrupts on the first. None where the system
        pins no threads (macOS, Windows).

    Example:
        >>> core = quiet_core(seconds=0.0)
        >>> core is None or core in os.sched_getaffinity(0)
        True
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    allowed = os.sched_getaffinity(0)
    before = _idle_ticks()
    time.sleep(seconds)
    after = _idle_ticks()
    idle = {core: after.get(core, 0) - before.get(core, 0) for core in allowed}
    return max(allowed, key=lambda core: (_highest_clock_rate(core), idle[core], core))


@contextmanager
def on_core(core: int | None) -> Iterator[int | None]:
    """Keeps this thread on a core within the block; afterwards it may run where it might before.

    Threads that are started within the block stay on the core; those that run already are not touched.

    Yields:
        The number of the core, or None where none was given or the system forbids it.

    Example:
        >>> with on_core(quiet_core(seconds=0.0)) as core:
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


def _idle_ticks() -> dict[int, int]:
    """How long each core has had nothing to do; empty where the system does not tell."""
    try:
        lines = [line.split() for line in TIMES.read_text().splitlines()]
    except OSError:
        return {}
    return {int(line[0][3:]): int(line[4]) for line in lines if line and line[0][:3] == "cpu" and line[0] != "cpu"}


def _highest_clock_rate(core: int) -> int:
    """In kHz; 0 where the system does not tell."""
    try:
        return int((CORES / f"cpu{core}" / "cpufreq" / "cpuinfo_max_freq").read_text())
    except (OSError, ValueError):
        return 0
