"""The report: measurements that can be saved, read, printed and shown."""

from __future__ import annotations

import io
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from tfopt.artifact import write_whole
from tfopt.benchmark.measurements import Contents, CoverageRow, Entry, Estimate, Latency, Measurements
from tfopt.benchmark.report_page import render_page
from tfopt.benchmark.report_table import report_table
from tfopt.errors import DataError

__all__ = ["Contents", "CoverageRow", "Entry", "Estimate", "Latency", "Report"]

PRINTED_WIDTH = 200


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

    def save(self, directory: str | Path) -> Path:
        """Writes report.json and report.html into a folder and returns where the page is.

        Raises:
            ConfigError: if the folder cannot be written.
        """
        directory = Path(directory)
        page = render_page(self)
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

    def print_table(self, console: Console | None = None) -> None:
        """Prints the entries beside the baseline."""
        console = console or Console()
        console.print(report_table(self, console))

    def __str__(self) -> str:
        text = io.StringIO()
        self.print_table(Console(file=text, width=PRINTED_WIDTH, color_system=None))
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip("\n")
