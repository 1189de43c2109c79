"""The report: measurements that can be saved, read, printed and shown."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from pydantic import ValidationError, computed_field, model_validator
from rich.console import Console

from tfopt.artifact import write_whole
from tfopt.benchmark.comparison import Comparison, compare
from tfopt.benchmark.costs import Derived, derived_figures
from tfopt.benchmark.earlier import earlier_markdown, earlier_remarks, earlier_table
from tfopt.benchmark.measurements import (
    Contents,
    CoverageRow,
    Entry,
    Estimate,
    Latency,
    Measurements,
    OperatorTime,
)
from tfopt.benchmark.pareto import pareto_front
from tfopt.benchmark.report_markdown import report_markdown
from tfopt.benchmark.report_page import render_page
from tfopt.benchmark.report_table import report_table
from tfopt.errors import DataError

__all__ = ["Contents", "CoverageRow", "Entry", "Estimate", "Latency", "OperatorTime", "Report"]

PRINTED_WIDTH = 200
COMPUTED = ("comparisons", "pareto_front", "derived")


class Report(Measurements):
    """Files beside each other: accuracy, size, latency and memory.

    It is a value: `report.model_copy(update={"entries": (*report.entries, more)})` adds to it.

    Args:
        title: heading.
        metric: what the scores are, None where nothing was scored; higher is better.
        samples: how many samples were scored.
        machine: where it was measured.
        entries: the files; the first is the baseline.
        coverage: layers and whether they are quantized.
        price_per_hour: what the machine costs in dollars, as the user said.
        watts: what the device draws, as the user said.
        created: time of the measurement, ISO 8601.
        notes: remarks on the whole measurement.
        reproduce: the call or command that measures it again.

    Example:
        >>> from tfopt.benchmark.machine import this_machine
        >>> entry = Entry(name="int8", path="m.tflite", kind="tflite", size_bytes=2048, gzip_bytes=900)
        >>> report = Report(title="Digits", machine=this_machine(), entries=(entry,))
        >>> report.baseline.name
        'int8'
        >>> "2.00 KiB" in str(report)
        True
    """

    @computed_field(repr=False)  # type: ignore[prop-decorator]
    @property
    def comparisons(self) -> dict[str, Comparison]:
        """Every entry but the baseline beside it, by name."""
        return {entry.name: compare(entry, self.baseline) for entry in self.entries[1:]}

    @computed_field(repr=False)  # type: ignore[prop-decorator]
    @property
    def pareto_front(self) -> tuple[str, ...]:
        """The entries that no other beats in size, score and latency, by name."""
        return pareto_front(self)

    @computed_field(repr=False)  # type: ignore[prop-decorator]
    @property
    def derived(self) -> dict[str, tuple[Derived, ...]]:
        """Cost and energy of the entries, by name: empty without a price or watts."""
        figures = {entry.name: derived_figures(self, entry) for entry in self.entries}
        return {name: one for name, one in figures.items() if one}

    @model_validator(mode="before")
    @classmethod
    def _without_computed(cls, fields: Any) -> Any:
        """What is written with the measurements follows from them, so it is not read."""
        return (
            {key: value for key, value in fields.items() if key not in COMPUTED} if isinstance(fields, dict) else fields
        )

    def save(self, directory: str | Path, *, earlier: Measurements | None = None) -> Path:
        """Writes report.json and report.html into a folder and returns where the page is.

        Args:
            directory: the folder; it is made if it is not there.
            earlier: a report of before, which the page then shows beside this one.

        Raises:
            ConfigError: if the folder cannot be written.
        """
        directory = Path(directory)
        page = render_page(self, earlier)
        with write_whole(directory / "report.json") as temporary:
            temporary.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        with write_whole(directory / "report.html") as temporary:
            temporary.write_text(page, encoding="utf-8")
        return directory / "report.html"

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Reads a report.json, or the one in a folder.

        Raises:
            DataError: if there is none, or it is not a report.
        """
        path = Path(path)
        file = path / "report.json" if path.is_dir() else path
        try:
            return cls.model_validate_json(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, ValidationError) as error:
            raise DataError(f"Report.load: expected a report as Report.save writes it in {file}. {error}") from None

    def to_markdown(self, *, earlier: Measurements | None = None) -> str:
        """The entries as a table for pull requests, and beside an earlier report where one is given.

        Example:
            >>> from tfopt.benchmark.machine import this_machine
            >>> entry = Entry(name="int8", path="m.tflite", kind="tflite", size_bytes=2048, gzip_bytes=900)
            >>> Report(title="Digits", machine=this_machine(), entries=(entry,)).to_markdown().splitlines()[0]
            '### Digits'
        """
        text = report_markdown(self)
        return text if earlier is None else f"{text}\n{earlier_markdown(self, earlier)}"

    def print_table(self, console: Console | None = None) -> None:
        """Prints the entries beside the baseline."""
        console = console or Console()
        console.print(report_table(self, console))

    def print_beside(self, earlier: Measurements, console: Console | None = None) -> None:
        """Prints what became of the entries of an earlier report."""
        console = console or Console()
        console.print(earlier_table(self, earlier))
        for remark in earlier_remarks(self, earlier):
            console.print(remark, soft_wrap=True, highlight=False, markup=False)

    def __str__(self) -> str:
        text = io.StringIO()
        self.print_table(Console(file=text, width=PRINTED_WIDTH, color_system=None, force_jupyter=False))
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip("\n")
