"""What was remarkable about the conditions of a measurement, in words."""

from __future__ import annotations

from collections.abc import Mapping

from tfopt.benchmark.comparison import threads_words
from tfopt.benchmark.machine import Machine
from tfopt.benchmark.protocol import Timing
from tfopt.benchmark.timing_statistics import relative_spread
from tfopt.benchmark.units import percent

__all__ = ["conditions_remarks"]

NOTABLE_SPREAD = 0.05
NOTABLE_OUTLIERS = 0.05


def conditions_remarks(machine: Machine, timings: Mapping[tuple[str, int | None], Timing]) -> tuple[str, ...]:
    """Remarks on a busy machine: its load before, times that did not settle, that changed, that had outliers.

    Example:
        >>> from tfopt.benchmark.machine import this_machine
        >>> busy = this_machine().model_copy(update={"load_average": 3.5, "logical_cores": 2})
        >>> conditions_remarks(busy, {})
        ('The machine was busy when the measurement began: a load average of 3.5 on 2 logical cores.',)
    """
    remarks = []
    if machine.load_average is not None and machine.load_average >= machine.logical_cores:
        remarks.append(
            f"The machine was busy when the measurement began: a load average of {machine.load_average:g} on "
            f"{machine.cores}."
        )
    if restless := sorted({name for (name, _), timing in timings.items() if not timing.settled}):
        remarks.append(
            f"Warm-up times did not settle for {', '.join(restless)}: the machine was busy, repeat the measurement."
        )
    spreads = {key: relative_spread(timing.round_medians_ms) for key, timing in timings.items()}
    if unsteady := _listed(spreads, NOTABLE_SPREAD):
        remarks.append(f"Medians changed from round to round, the machine was noisy: by {unsteady}.")
    outliers = {key: timing.outliers for key, timing in timings.items()}
    if disturbed := _listed(outliers, NOTABLE_OUTLIERS):
        remarks.append(f"Many inferences took far longer than the others: {disturbed}.")
    return tuple(remarks)


def _listed(shares: Mapping[tuple[str, int | None], float], notable: float) -> str:
    found = {key: share for key, share in shares.items() if share > notable}
    return ", ".join(f"{percent(share)} ({name}, {threads_words(threads)})" for (name, threads), share in found.items())
