"""The report as a table in the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from tfopt.benchmark.comparison import compare, threads_words
from tfopt.benchmark.metric import ACCURACIES
from tfopt.benchmark.report import Report
from tfopt.benchmark.units import factor, human_bytes, score_change_text, score_text, significant

__all__ = ["report_table", "timed_threads"]


def timed_threads(report: Report) -> list[int | None]:
    """The thread counts that any entry was timed at, the runtime's default last."""
    counts = {latency.threads for entry in report.entries for latency in entry.latencies}
    return sorted(counts, key=lambda count: (count is None, count or 0))


def report_table(report: Report) -> Table:
    """One row for each entry, beside the baseline."""
    timed = timed_threads(report)
    targets = list(dict.fromkeys(one.target for entry in report.entries for one in entry.estimates))
    headings = [report.metric or "accuracy", "change\npoints" if report.metric in ACCURACIES else "change"]
    headings += [
        "size",
        "smaller",
        "gzip",
        *(f"p50 ms\n{threads_words(threads)}" for threads in timed),
        "faster",
    ]
    headings += ["peak\nmemory", *(f"estimated ms\n{target}" for target in targets)]
    table = Table(
        title=Text(report.title), caption=_caption(report), caption_justify="left", box=box.SIMPLE_HEAD
    )
    table.pad_edge = False
    table.add_column("", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold")
    for entry in report.entries:
        difference, first = compare(entry, report.baseline), entry is report.baseline
        latencies = [entry.latency_at(threads) for threads in timed]
        estimated = {one.target: one.latency_ms for one in entry.estimates}
        cells = [
            score_text(report.metric, entry.score),
            ""
            if first
            else score_change_text(report.metric, difference.score_change).removesuffix(" points"),
            human_bytes(entry.size_bytes),
            "" if first else factor(difference.size_ratio),
            human_bytes(entry.gzip_bytes),
            *(significant(latency.p50_ms if latency else None) for latency in latencies),
            "" if first else factor(difference.speedup),
            human_bytes(entry.peak_memory_bytes),
            *(significant(estimated.get(target)) for target in targets),
        ]
        table.add_row(Text(entry.name), *cells)
    return table


def _caption(report: Report) -> Text:
    ratio = (
        "smaller, faster: the baseline's size and p50 divided by the entry's; below 1 is larger or slower."
    )
    where = f"{report.machine.cpu}, {report.machine.logical_cores} logical cores."
    return Text("\n".join((ratio, where, *report.notes)))
