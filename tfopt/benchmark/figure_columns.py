"""How an entry's figures read in the terminal, on the page and in Markdown: the same words everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tfopt.benchmark.comparison import Speedup, compare, threads_words
from tfopt.benchmark.costs import Derived, derived_figures
from tfopt.benchmark.measurements import Entry, Latency, Measurements
from tfopt.benchmark.metric import ACCURACIES
from tfopt.benchmark.pareto import pareto_front
from tfopt.benchmark.units import (
    NOT_MEASURED,
    factor,
    human_bytes,
    percent,
    score_change_text,
    score_text,
    signed,
    significant,
    span,
)

__all__ = ["BASELINE", "NOT_COMPARED", "Cell", "Column", "columns", "measured_columns", "speedup_cell", "timed_threads"]

BASELINE = "baseline"
NOT_COMPARED = "not compared"


@dataclass(frozen=True)
class Cell:
    """A figure, and what stands below it in small: an interval, a thread count."""

    text: str
    remark: str = ""


@dataclass(frozen=True)
class Column:
    """A kind of figure, with the cell of each entry."""

    heading: str
    cells: tuple[Cell, ...]


def timed_threads(report: Measurements) -> list[int | None]:
    """The thread counts that any entry was timed at, the runtime's default last."""
    counts = {latency.threads for entry in report.entries for latency in entry.latencies}
    return sorted(counts, key=lambda count: (count is None, count or 0))


def columns(report: Measurements) -> list[Column]:
    """All figures of a report's entries: what was measured, what is derived, and who is on the Pareto front."""
    found = [*measured_columns(report), *_derived_columns(report)]
    if sum(not entry.error for entry in report.entries) > 1:
        front = pareto_front(report)
        found.append(_column("Pareto front", ("yes" if entry.name in front else "" for entry in report.entries)))
    return found


def measured_columns(report: Measurements) -> list[Column]:
    """What was measured of the entries, beside the baseline."""
    entries, differences = report.entries, [compare(entry, report.baseline) for entry in report.entries]
    changes = [score_change_text(report.metric, one.score_change).removesuffix(" points") for one in differences]
    ratios = [factor(one.size_ratio) for one in differences]
    found = [
        _column(report.metric or "accuracy", (score_text(report.metric, entry.score) for entry in entries)),
        _column("change, points" if report.metric in ACCURACIES else "change", [BASELINE, *changes[1:]]),
        _column("size", (human_bytes(entry.size_bytes) for entry in entries)),
        _column("smaller", [BASELINE, *ratios[1:]]),
        _column("gzip", (human_bytes(entry.gzip_bytes) for entry in entries)),
    ]
    if any(entry.contents and entry.contents.is_sparse_or_shared for entry in entries):
        totals = [entry.contents.total if entry.contents else None for entry in entries]
        found.append(_column("weights zero", (percent(total.zeros if total else None) for total in totals)))
        found.append(_column("weights coded", (human_bytes(total.coded_bytes if total else None) for total in totals)))
    for threads in timed_threads(report):
        cells = tuple(_latency_cell(entry.latency_at(threads)) for entry in entries)
        found.append(Column(f"p50 ms, {threads_words(threads)}", cells))
    if any(entry.error_against_baseline for entry in entries):
        found.append(_column("adds bias ± std", [_added_error(entry) for entry in entries]))
    speedups = tuple(speedup_cell(one.first) for one in differences[1:])
    found.append(Column("faster", (Cell(BASELINE), *speedups)))
    if any(entry.agreement for entry in entries):
        found.append(_column("agreement with baseline", [BASELINE, *(_agreement(entry) for entry in entries[1:])]))
    found.append(_column("peak memory", (human_bytes(entry.peak_memory_bytes) for entry in entries)))
    if any(entry.arena_bytes for entry in entries):
        found.append(_column("tensor arena", (human_bytes(entry.arena_bytes) for entry in entries)))
    for target in dict.fromkeys(one.target for entry in entries for one in entry.estimates):
        estimated = [{one.target: one.latency_ms for one in entry.estimates} for entry in entries]
        found.append(_column(f"estimated ms, {target}", (significant(one.get(target)) for one in estimated)))
    return found


def speedup_cell(speedup: Speedup | None) -> Cell:
    """A ratio that is told, or the verdict that there is none; with its interval."""
    if speedup is None:
        return Cell(NOT_MEASURED)
    told = speedup.verdict in ("faster", "slower")
    interval = "" if speedup.low is None or speedup.high is None else f"{span(speedup.low, speedup.high)}×"
    return Cell(factor(speedup.value) if told or not interval else speedup.verdict, interval)


def _column(heading: str, texts: Iterable[str]) -> Column:
    return Column(heading, tuple(Cell(text) for text in texts))


def _latency_cell(latency: Latency | None) -> Cell:
    if latency is None:
        return Cell(NOT_MEASURED)
    if latency.p50_low_ms is None or latency.p50_high_ms is None:
        return Cell(significant(latency.p50_ms))
    return Cell(significant(latency.p50_ms), span(latency.p50_low_ms, latency.p50_high_ms))


def _added_error(entry: Entry) -> str:
    error = entry.error_against_baseline
    return f"{signed(error.bias)} ± {significant(error.standard_deviation)}" if error else ""


def _agreement(entry: Entry) -> str:
    """Of classes the share that is the same; of other outputs how far they are from the baseline's."""
    if entry.agreement is None:
        return NOT_MEASURED
    same = entry.agreement.top1
    return percent(same) if same is not None else f"error {percent(entry.agreement.relative_error)}"


def _derived_columns(report: Measurements) -> list[Column]:
    """Each derived figure at the lowest thread count of an entry."""
    first: list[dict[str, Derived]] = []
    for entry in report.entries:
        figures: dict[str, Derived] = {}
        for one in derived_figures(report, entry):
            figures.setdefault(one.figure, one)
        first.append(figures)
    names = dict.fromkeys(name for figures in first for name in figures)
    return [
        _column(f"{name}, derived", (significant(one[name].value) if name in one else NOT_MEASURED for one in first))
        for name in names
    ]
