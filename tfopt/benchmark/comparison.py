"""An entry beside the baseline: ratios, and the same in words."""

from __future__ import annotations

from dataclasses import dataclass

from tfopt.benchmark.measurements import Entry, Latency, Measurements
from tfopt.benchmark.timing_statistics import ALIKE, Verdict, ratio_of_rounds, verdict
from tfopt.benchmark.units import TIMES, human_bytes, score_change_text, score_text, significant

__all__ = ["Comparison", "Speedup", "compare", "headline", "threads_words"]


@dataclass(frozen=True)
class Speedup:
    """How much faster an entry is than the baseline at a thread count.

    Args:
        threads: the thread count; None stands for the runtime's default.
        value: the baseline's time divided by the entry's, above 1 is faster: the median over the rounds, in which both
            had a turn; of a report without rounds the ratio of the p50s.
        low: lower end of its 95 % confidence interval, None where the report has no rounds or too few.
        high: its upper end.
        verdict: what the interval tells; without one, what the value would.
    """

    threads: int | None
    value: float
    low: float | None
    high: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """How an entry differs from the baseline.

    Args:
        size_ratio: bytes of the baseline divided by the entry's: above 1 is smaller; None where one could not be run
            or has no size.
        speedups: one for each thread count that both were timed at, the lowest first.
        score_change: the entry's score less the baseline's, None where one of them is missing.
    """

    size_ratio: float | None
    speedups: tuple[Speedup, ...]
    score_change: float | None

    @property
    def first(self) -> Speedup | None:
        """The speedup at the lowest thread count, None where they were not timed at the same one."""
        return self.speedups[0] if self.speedups else None

    @property
    def speedup(self) -> float | None:
        """Its value."""
        return self.first.value if self.first else None

    @property
    def threads(self) -> int | None:
        """Its thread count."""
        return self.first.threads if self.first else None

    @property
    def verdict(self) -> Verdict | None:
        """What it tells."""
        return self.first.verdict if self.first else None


def compare(entry: Entry, baseline: Entry) -> Comparison:
    """Compares sizes, scores and latencies of two entries of one report."""
    theirs = {latency.threads: latency for latency in baseline.latencies}
    shared = [latency for latency in entry.latencies if latency.threads in theirs]
    scored = entry.score is not None and baseline.score is not None
    sized = not (entry.error or baseline.error) and entry.size_bytes > 0 and baseline.size_bytes > 0
    return Comparison(
        size_ratio=baseline.size_bytes / entry.size_bytes if sized else None,
        speedups=tuple(
            _speedup(theirs[latency.threads], latency)
            for latency in sorted(shared, key=lambda latency: latency.threads or 0)
        ),
        score_change=entry.score - baseline.score if scored else None,  # type: ignore[operator]
    )


def _speedup(theirs: Latency, ours: Latency) -> Speedup:
    ratio = ratio_of_rounds(theirs.round_medians_ms, ours.round_medians_ms)
    if ratio is None:
        value = theirs.p50_ms / ours.p50_ms
        return Speedup(ours.threads, value, None, None, verdict(value, value))
    low, high = (ratio.value if end is None else end for end in (ratio.low, ratio.high))
    return Speedup(ours.threads, ratio.value, ratio.low, ratio.high, verdict(low, high))


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
    if entry.error:
        return f"{entry.name} could not be measured: {entry.error}"
    if entry is report.baseline:
        return _alone(report, entry)
    difference, baseline = compare(entry, report.baseline), report.baseline.name
    size, size_gain = "", 0
    if difference.size_ratio is not None:
        size, size_gain = _ratio_words(difference.size_ratio, "smaller", "larger", "the same size")
    speed, gain = _speed_words(difference.first)
    noisy = "; the machine was too noisy to tell which is faster" if difference.verdict == "too noisy to tell" else ""
    if report.baseline.error or not (size or speed):
        missing = "could not be measured" if report.baseline.error else "was not compared"
        return f"{_alone(report, entry).removesuffix('.')}; {baseline} {missing}{noisy}."
    claim = f"{size} {'but' if size_gain * gain < 0 else 'and'} {speed}" if size and speed else size or speed
    than = "than" if (gain if speed else size_gain) else "as"
    return f"{entry.name} is {claim} {than} {baseline}{_score_words(report, entry, difference)}{noisy}."


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


def _speed_words(speedup: Speedup | None) -> tuple[str, int]:
    """The same for a speedup; no words where it was not measured or is not told."""
    if speedup is None or speedup.verdict == "too noisy to tell":
        return "", 0
    if speedup.verdict == "no difference":
        return "as fast", 0
    return _ratio_words(speedup.value, "faster", "slower", "as fast")


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
