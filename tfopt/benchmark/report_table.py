"""The report as a table in the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tfopt.benchmark.comparison import compare, threads_words
from tfopt.benchmark.measurements import Entry, Measurements
from tfopt.benchmark.metric import ACCURACIES
from tfopt.benchmark.units import factor, human_bytes, percent, score_change_text, score_text, signed, significant

__all__ = ["report_table", "timed_threads"]


def timed_threads(report: Measurements) -> list[int | None]:
    """The thread counts that any entry was timed at, the runtime's default last."""
    counts = {latency.threads for entry in report.entries for latency in entry.latencies}
    return sorted(counts, key=lambda count: (count is None, count or 0))


def report_table(report: Measurements, console: Console) -> Table:
    """The entries beside the baseline: a row for each, or a column for each where rows are too wide."""
    by_row = _table(report)
    by_row.add_column("")
    for heading, _ in _figures(report):
        by_row.add_column(heading, justify="right")
    for index, entry in enumerate(report.entries):
        by_row.add_row(Text(entry.name), *(cells[index] for _, cells in _figures(report)))
    unlimited = console.options.update(max_width=10_000)
    if console.measure(by_row, options=unlimited).maximum <= console.width:
        return by_row
    by_column = _table(report)
    by_column.add_column("")
    for entry in report.entries:
        by_column.add_column(Text(entry.name), justify="right", overflow="fold")
    for heading, cells in _figures(report):
        by_column.add_row(heading.replace("\n", ", "), *cells)
    return by_column


def _table(report: Measurements) -> Table:
    table = Table(title=Text(report.title), caption=_caption(report), caption_justify="left", box=box.SIMPLE_HEAD)
    table.pad_edge = False
    return table


def _figures(report: Measurements) -> list[tuple[str, list[str]]]:
    """Each kind of figure, with the entries' values."""
    differences = [compare(entry, report.baseline) for entry in report.entries]
    changes = [score_change_text(report.metric, one.score_change).removesuffix(" points") for one in differences]
    figures = [
        (report.metric or "accuracy", [score_text(report.metric, entry.score) for entry in report.entries]),
        ("change\npoints" if report.metric in ACCURACIES else "change", ["", *changes[1:]]),
        ("size", [human_bytes(entry.size_bytes) for entry in report.entries]),
        ("smaller", ["", *(factor(one.size_ratio) for one in differences[1:])]),
        ("gzip", [human_bytes(entry.gzip_bytes) for entry in report.entries]),
    ]
    if any(entry.contents and entry.contents.is_sparse_or_shared for entry in report.entries):
        totals = [entry.contents.total if entry.contents else None for entry in report.entries]
        figures.append(("weights\nzero", [percent(total.zeros if total else None) for total in totals]))
        figures.append(("weights\ncoded", [human_bytes(total.coded_bytes if total else None) for total in totals]))
    for threads in timed_threads(report):
        latencies = [entry.latency_at(threads) for entry in report.entries]
        medians = [significant(latency.p50_ms if latency else None) for latency in latencies]
        figures.append((f"p50 ms\n{threads_words(threads)}", medians))
    if any(entry.error_against_baseline for entry in report.entries):
        figures.append(("adds\nbias ± std", [_added_error(entry) for entry in report.entries]))
    figures.append(("faster", ["", *(factor(one.speedup) for one in differences[1:])]))
    figures.append(("memory\npeak", [human_bytes(entry.peak_memory_bytes) for entry in report.entries]))
    for target in dict.fromkeys(one.target for entry in report.entries for one in entry.estimates):
        estimated = [{one.target: one.latency_ms for one in entry.estimates} for entry in report.entries]
        figures.append((f"estimated ms\n{target}", [significant(one.get(target)) for one in estimated]))
    return figures


def _added_error(entry: Entry) -> str:
    error = entry.error_against_baseline
    return f"{signed(error.bias)} ± {significant(error.standard_deviation)}" if error else ""


def _caption(report: Measurements) -> Text:
    ratio = "smaller, faster: the baseline's size and p50 divided by the entry's; below 1 is larger or slower."
    where = f"{report.machine.cpu}, {report.machine.logical_cores} logical cores."
    sentences = {entry.name: entry.contents.zeros_sentence for entry in report.entries if entry.contents}
    zeros = [f"{name}: {sentence}." for name, sentence in sentences.items() if sentence]
    return Text("\n".join((ratio, where, *zeros, *report.notes)))
