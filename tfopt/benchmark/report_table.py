"""The report as a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from tfopt.benchmark.figure_columns import BASELINE, Cell, Column, columns
from tfopt.benchmark.measurements import Measurements

__all__ = ["report_table"]


def report_table(report: Measurements, console: Console) -> Group:
    """The entries beside the baseline: a row for each, or a column for each where rows are too wide.

    Columns that do not fit side by side either are put into several tables, one below the other.
    """
    figures = columns(report)
    rows = _in_rows(report, figures)
    if _fits(rows, console):
        return _titled(report, rows)
    count = len(report.entries)
    for tables in range(1, count + 1):
        parts = [range(count)[begin : begin + -(-count // tables)] for begin in range(0, count, -(-count // tables))]
        found = [_in_columns(report, figures, part) for part in parts]
        if all(_fits(table, console) for table in found):
            break
    return _titled(report, *found)


def _titled(report: Measurements, *tables: Table) -> Group:
    tables[0].title = Text(report.title)
    tables[-1].caption = _caption(report)
    return Group(*tables)


def _fits(table: Table, console: Console) -> bool:
    return console.measure(table, options=console.options.update(max_width=10_000)).maximum <= console.width


def _in_rows(report: Measurements, figures: Sequence[Column]) -> Table:
    table = _table()
    table.add_column("")
    for figure in figures:
        table.add_column(_heading(figure), justify="right")
    for index, entry in enumerate(report.entries):
        table.add_row(Text(entry.name), *(_cell(figure.cells[index]) for figure in figures))
    return table


def _in_columns(report: Measurements, figures: Sequence[Column], entries: range) -> Table:
    table = _table()
    table.add_column("")
    for index in entries:
        table.add_column(Text(report.entries[index].name), justify="right", overflow="fold")
    for figure in figures:
        table.add_row(figure.heading, *(_cell(figure.cells[index]) for index in entries))
    return table


def _heading(figure: Column) -> str:
    """Two lines where it has two parts: a column of figures is narrow."""
    first, comma, last = figure.heading.partition(", ")
    if not comma and len(figure.heading) > len("accuracy"):
        first, _, last = figure.heading.partition(" ")
    return f"{first}\n{last}" if last else first


def _cell(cell: Cell) -> str:
    text = "" if cell.text == BASELINE else cell.text
    return f"{text}\n{cell.remark}" if cell.remark else text


def _table() -> Table:
    table = Table(caption_justify="left", box=box.SIMPLE_HEAD)
    table.pad_edge = False
    return table


def _caption(report: Measurements) -> Text:
    ratio = (
        "smaller, faster: the baseline's size and time divided by the entry's; below 1 is larger or slower. Beneath "
        "p50 and faster: the 95 % confidence interval."
    )
    where = f"{report.machine.processor}."
    failed = [f"{entry.name} could not be measured: {entry.error}" for entry in report.entries if entry.error]
    sentences = {entry.name: entry.contents.zeros_sentence for entry in report.entries if entry.contents}
    zeros = [f"{name}: {sentence}." for name, sentence in sentences.items() if sentence]
    return Text("\n".join((ratio, where, *failed, *zeros, *report.notes)))
