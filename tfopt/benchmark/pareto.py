"""Which files no other file beats in everything: the Pareto front of size, score and latency."""

from __future__ import annotations

from tfopt.benchmark.comparison import compare
from tfopt.benchmark.measurements import Entry, Measurements

__all__ = ["pareto_front"]


def pareto_front(report: Measurements) -> tuple[str, ...]:
    """The names of the entries that are worth a choice, in the report's order.

    An entry is left out if another is no larger, scores no less, is not slower, and is better in one of these. A
    difference in speed counts only where the report's intervals tell one; what an entry was measured in and another
    was not, the other cannot beat it in. Entries that failed are left out.

    Example:
        >>> from tfopt.benchmark.machine import this_machine
        >>> sizes = {"float32": (360, 0.98), "int8": (100, 0.97), "worse": (400, 0.97)}
        >>> entries = [
        ...     Entry(name=name, path=name, kind="tflite", size_bytes=size, gzip_bytes=1, score=score)
        ...     for name, (size, score) in sizes.items()
        ... ]
        >>> pareto_front(Measurements(title="Digits", machine=this_machine(), entries=entries))
        ('float32', 'int8')
    """
    sound = [entry for entry in report.entries if not entry.error]
    return tuple(entry.name for entry in sound if not any(_beats(other, entry) for other in sound))


def _beats(other: Entry, entry: Entry) -> bool:
    difference = compare(other, entry)
    speed = difference.verdict
    if (entry.latencies and speed is None) or (entry.score is not None and difference.score_change is None):
        return False
    change = difference.score_change or 0.0
    if (
        not other.size_bytes
        or other.size_bytes > entry.size_bytes
        or change < 0
        or speed in ("slower", "too noisy to tell")
    ):
        return False
    return other.size_bytes < entry.size_bytes or change > 0 or speed == "faster"
