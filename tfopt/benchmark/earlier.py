"""A report beside an earlier one of the same files."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from tfopt.benchmark.comparison import compare, threads_words
from tfopt.benchmark.figure_columns import NOT_COMPARED, speedup_cell
from tfopt.benchmark.measurements import Entry, Measurements
from tfopt.benchmark.report_markdown import markdown_table
from tfopt.benchmark.units import human_bytes, score_change_text, score_text, significant, span

__all__ = ["EARLIER_COLUMNS", "earlier_markdown", "earlier_remarks", "earlier_rows", "earlier_table"]

EARLIER_COLUMNS = (
    "",
    "size, then → now",
    "score, then → now",
    "p50, then → now",
    "faster than the baseline, then → now",
)
OTHER_MACHINE = "another machine"


def earlier_rows(report: Measurements, earlier: Measurements) -> list[tuple[str, ...]]:
    """What became of each entry that both reports have, by name: the cells of `EARLIER_COLUMNS`.

    Times of two runs stand beside each other and are never divided, and not at all where the runs were on different
    machines. What may be compared across runs is the ratio to the baseline, since each was taken within one.

    Example:
        >>> from tfopt.benchmark.machine import this_machine
        >>> def report(size):
        ...     entry = Entry(name="int8", path="", kind="tflite", size_bytes=size, gzip_bytes=1)
        ...     return Measurements(title="", machine=this_machine(), entries=(entry,))
        >>> earlier_rows(report(2048), report(1024))[0][:2]
        ('int8', '1.00 KiB → 2.00 KiB')
    """
    before = {entry.name: entry for entry in earlier.entries}
    return [
        (
            entry.name,
            f"{human_bytes(before[entry.name].size_bytes)} → {human_bytes(entry.size_bytes)}",
            _scores(report, entry, earlier, before[entry.name]),
            _times(report, entry, earlier, before[entry.name]),
            _speedups(report, entry, earlier, before[entry.name]),
        )
        for entry in report.entries
        if entry.name in before
    ]


def earlier_remarks(report: Measurements, earlier: Measurements) -> list[str]:
    """What to know before reading the rows: when, where, and what is in one report only."""
    remarks = [f"The earlier report is of {earlier.created}. Times of two runs are no ratio."]
    if not report.machine.is_like(earlier.machine):
        there = earlier.machine.processor
        remarks.append(f"It was measured on another machine ({there}): its times are not shown.")
    changed = [
        f"{name} {theirs} → {report.machine.versions.get(name, 'none')}"
        for name, theirs in earlier.machine.versions.items()
        if report.machine.versions.get(name) != theirs
    ]
    if changed:
        remarks.append(f"Libraries changed: {', '.join(changed)}.")
    if report.baseline.name != earlier.baseline.name:
        remarks.append(f"Its baseline was {earlier.baseline.name}: the ratios to the baseline are of different things.")
    now, then = ([entry.name for entry in one.entries] for one in (report, earlier))
    if new := [name for name in now if name not in then]:
        remarks.append(f"Not in the earlier report: {', '.join(new)}.")
    if gone := [name for name in then if name not in now]:
        remarks.append(f"Only in the earlier report: {', '.join(gone)}.")
    return remarks


def earlier_table(report: Measurements, earlier: Measurements) -> Table:
    """The rows for the terminal."""
    table = Table(title="Beside an earlier report", box=box.SIMPLE_HEAD)
    for column in EARLIER_COLUMNS:
        table.add_column(column, overflow="fold")
    for row in earlier_rows(report, earlier):
        table.add_row(*(Text(cell.replace(" → ", "\n→ ")) for cell in row))
    return table


def earlier_markdown(report: Measurements, earlier: Measurements) -> str:
    """The same as a table for pull requests."""
    rows = [list(row) for row in earlier_rows(report, earlier)]
    table = [*markdown_table(list(EARLIER_COLUMNS), rows), ""] if rows else []
    remarks = [f"- {remark}" for remark in earlier_remarks(report, earlier)]
    return "\n".join(["### Beside an earlier report", "", *table, *remarks]) + "\n"


def _scores(report: Measurements, entry: Entry, earlier: Measurements, before: Entry) -> str:
    if entry.score is None or before.score is None or report.metric != earlier.metric:
        return NOT_COMPARED
    change = score_change_text(report.metric, entry.score - before.score)
    return f"{score_text(report.metric, before.score)} → {score_text(report.metric, entry.score)} ({change})"


def _times(report: Measurements, entry: Entry, earlier: Measurements, before: Entry) -> str:
    if not report.machine.is_like(earlier.machine):
        return OTHER_MACHINE
    shared = [one for one in entry.latencies if before.latency_at(one.threads)]
    if not shared:
        return NOT_COMPARED
    now = min(shared, key=lambda one: one.threads or 0)
    then = before.latency_at(now.threads)
    told = [
        f"{significant(one.p50_ms, 'ms')}"
        + ("" if one.p50_low_ms is None or one.p50_high_ms is None else f" ({span(one.p50_low_ms, one.p50_high_ms)})")
        for one in (then, now)
        if one
    ]
    return f"{' → '.join(told)}, {threads_words(now.threads)}"


def _speedups(report: Measurements, entry: Entry, earlier: Measurements, before: Entry) -> str:
    if entry is report.baseline or report.baseline.name != earlier.baseline.name:
        return ""
    cells = [speedup_cell(compare(one, of.baseline).first) for one, of in ((before, earlier), (entry, report))]
    return " → ".join(f"{cell.text} ({cell.remark})" if cell.remark else cell.text for cell in cells)
