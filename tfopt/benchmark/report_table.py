"""The report as a table in the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tfopt.benchmark.figure_columns import BASELINE, Cell, Column, columns
from tfopt.benchmark.measurements import Measurements

__all__ = ["report_table"]


def report_table(report: Measurements, console: Console) -> Table:
    """The entries beside the baseline: a row for each, or a column for each where rows are too wide."""
    figures = columns(report)
    by_row = _table(report)
    by_row.add_column("")
    for figure in figures:
        by_row.add_column(_heading(figure), justify="right")
    for index, entry in enumerate(report.entries):
        by_row.add_row(Text(entry.name), *(_cell(figure.cells[index]) for figure in figures))
    unlimited = console.options.update(max_width=10_000)
    if console.measure(by_row, options=unlimited).maximum <= console.width:
        return by_row
    by_column = _table(report)
    by_column.add_column("")
    for entry in report.entries:
        by_column.add_column(Text(entry.name), justify="right", overflow="fold")
    for figure in figures:
        by_column.add_row(figure.heading, *(_cell(cell) for cell in figure.cells))
    return by_column


def _heading(figure: Column) -> str:
    """Two lines where it has two parts: a column of figures is narrow."""
    first, comma, last = figure.heading.partition(", ")
    if not comma and len(figure.heading) > len("accuracy"):
        first, _, last = figure.heading.partition(" ")
    return f"{first}\n{last}" if last else first


def _cell(cell: Cell) -> str:
    text = "" if cell.text == BASELINE else cell.text
    return f"{text}\n{cell.remark}" if cell.remark else text


def _table(report: Measurements) -> Table:
    table = Table(title=Text(report.title), caption=_caption(report), caption_justify="left", box=box.SIMPLE_HEAD)
    table.pad_edge = False
    return table


def _caption(report: Measurements) -> Text:
    ratio = (
        "smaller, faster: the baseline's size and time divided by the entry's; below 1 is larger or slower. Beneath "
        "p50 and faster: the 95 % confidence interval."
    )
    where = f"{report.machine.cpu}, {report.machine.logical_cores} logical cores."
    failed = [f"{entry.name} could not be measured: {entry.error}" for entry in report.entries if entry.error]
    sentences = {entry.name: entry.contents.zeros_sentence for entry in report.entries if entry.contents}
    zeros = [f"{name}: {sentence}." for name, sentence in sentences.items() if sentence]
    return Text("\n".join((ratio, where, *failed, *zeros, *report.notes)))
