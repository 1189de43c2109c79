"""An entry beside the baseline: ratios, and the same in words."""

from __future__ import annotations

from dataclasses import dataclass

from tfopt.benchmark.measurements import Entry, Measurements
from tfopt.benchmark.units import TIMES, human_bytes, score_change_text, score_text, significant

__all__ = ["Comparison", "compare", "headline"]

ALIKE = 0.05  # a smaller difference is within what two runs of the same file show


@dataclass(frozen=True)
class Comparison:
    """How an entry differs from the baseline.

    Args:
        size_ratio: bytes of the baseline divided by the entry's: above 1 is smaller.
        speedup: p50 of the baseline divided by the entry's: above 1 is faster; None where they were not timed
            at the same thread count.
        threads: the thread count of `speedup`; None stands for the runtime's default.
        score_change: the entry's score less the baseline's, None where one of them is missing.
    """

    size_ratio: float
    speedup: float | None
    threads: int | None
    score_change: float | None


def compare(entry: Entry, baseline: Entry) -> Comparison:
    """Compares sizes, scores, and latencies at the lowest thread count that both were timed at."""
    theirs = {latency.threads: latency.p50_ms for latency in baseline.latencies}
    shared = [latency for latency in entry.latencies if latency.threads in theirs]
    first = min(shared, key=lambda latency: latency.threads or 0, default=None)
    scored = entry.score is not None and baseline.score is not None
    return Comparison(
        size_ratio=baseline.size_bytes / entry.size_bytes,
        speedup=theirs[first.threads] / first.p50_ms if first else None,
        threads=first.threads if first else None,
        score_change=entry.score - baseline.score if scored else None,  # type: ignore[operator]
    )


def headline(report: Measurements, entry: Entry) -> str:
    """What an entry gains and costs beside the baseline, in one sentence.

    Example:
        >>> from tfopt.benchmark.machine import this_machine
        >>> def entry(name, **fields):
        ...     return Entry(name=name, path=name, kind="tflite", gzip_bytes=1, **fields)
        >>> entries = entry("float32", size_bytes=360, score=0.98), entry("int8", size_bytes=100, score=0.98)
        >>> report = Measurements(title="Digits", metric="R²", machine=this_machine(), entries=entries)
        >>> headline(report, report.entries[1])
        'int8 is 3.6× smaller than float32, with the same R² (0.9800); its speed was not compared.'
    """
    if entry is report.baseline:
        return _alone(report, entry)
    difference = compare(entry, report.baseline)
    size, size_gain = _ratio_words(difference.size_ratio, "smaller", "larger", "the same size")
    if difference.speedup is None:
        claim, gain = size, size_gain
    else:
        speed, speed_gain = _ratio_words(difference.speedup, "faster", "slower", "as fast")
        claim = f"{size} {'but' if size_gain * speed_gain < 0 else 'and'} {speed}"
        gain = speed_gain
    claim += f" {'than' if gain else 'as'} {report.baseline.name}"
    return f"{entry.name} is {claim}{_score_words(report, entry, difference)}."


def _alone(report: Measurements, entry: Entry) -> str:
    parts = [human_bytes(entry.size_bytes)]
    parts += [
        f"{significant(latency.p50_ms, 'ms')} ({threads_words(latency.threads)})" for latency in entry.latencies[:1]
    ]
    parts += [f"{report.metric} {score_text(report.metric, entry.score)}"] if entry.score is not None else []
    return f"{entry.name}: {', '.join(parts)}."


def _ratio_words(ratio: float, better: str, worse: str, alike: str) -> tuple[str, int]:
    """Words for a ratio, and whether it is a gain (1), a loss (-1) or neither (0)."""
    if abs(ratio - 1) < ALIKE:
        return alike, 0
    factor = ratio if ratio > 1 else 1 / ratio
    text = f"{factor:.2f}" if factor < 2 else f"{factor:.1f}" if factor < 100 else f"{factor:.0f}"
    return f"{text}{TIMES} {better if ratio > 1 else worse}", 1 if ratio > 1 else -1


def _score_words(report: Measurements, entry: Entry, difference: Comparison) -> str:
    change, words = difference.score_change, ""
    if change is not None:
        same = "with the same" if change == 0 else f"at {score_change_text(report.metric, change)} of"
        words = f", {same} {report.metric} ({score_text(report.metric, entry.score)})"
    missing = ["speed"] if difference.speedup is None else []
    missing += ["accuracy"] if change is None else []
    if missing:
        words += f"; its {' and '.join(missing)} {'were' if len(missing) > 1 else 'was'} not compared"
    return words


def threads_words(threads: int | None) -> str:
    """A thread count in words.

    Example:
        >>> threads_words(1), threads_words(2), threads_words(None)
        ('1 thread', '2 threads', 'default threads')
    """
    if threads is None:
        return "default threads"
    return f"{threads} thread{'s' if threads != 1 else ''}"
