"""The report as a table for pull requests."""

from __future__ import annotations

from tfopt.benchmark.figure_columns import BASELINE, Cell, columns
from tfopt.benchmark.measurements import Measurements

__all__ = ["markdown_cell", "markdown_table", "report_markdown"]


def report_markdown(report: Measurements) -> str:
    """A heading, a table with one row for each entry, and the remarks below it."""
    figures = [figure for figure in columns(report) if any(cell.text for cell in figure.cells)]
    rows = [
        [entry.name, *(_cell(figure.cells[index]) for figure in figures)] for index, entry in enumerate(report.entries)
    ]
    machine = report.machine
    samples = f" {report.metric} on {report.samples:,} samples." if report.samples else ""
    remarks = [f"{entry.name} could not be measured: {entry.error}" for entry in report.entries if entry.error] + list(
        report.notes
    )
    lines = [
        f"### {markdown_cell(report.title)}",
        "",
        *markdown_table(["", *(figure.heading for figure in figures)], rows),
        "",
        f"{machine.processor}, {report.created}.{samples} In brackets: the 95 % "
        "confidence interval. “smaller”, “faster”: the baseline's size and time divided by the entry's, of one run.",
        *(["", *(f"- {markdown_cell(remark)}" for remark in remarks)] if remarks else []),
    ]
    return "\n".join(lines) + "\n"


def markdown_table(headings: list[str], rows: list[list[str]]) -> list[str]:
    r"""Lines of a table whose first column is aligned left and the others right.

    Example:
        >>> markdown_table(["", "size"], [["a|b", "1 B"]])
        ['|  | size |', '|---|---:|', '| a\\|b | 1 B |']
    """
    return [
        f"| {' | '.join(map(markdown_cell, headings))} |",
        f"|---{'|---:' * (len(headings) - 1)}|",
        *(f"| {' | '.join(map(markdown_cell, row))} |" for row in rows),
    ]


def markdown_cell(text: str) -> str:
    """Text that neither ends a cell nor becomes HTML."""
    for plain, escaped in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("*", "\\*"), ("\n", " ")):
        text = text.replace(plain, escaped)
    return text


def _cell(cell: Cell) -> str:
    text = "" if cell.text == BASELINE else cell.text
    return f"{text} ({cell.remark})" if cell.remark else text
