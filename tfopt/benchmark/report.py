"""The report: what was measured, as a value that can be saved, read, printed and shown."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console

from tfopt.artifact import write_whole
from tfopt.benchmark.machine import Machine
from tfopt.errors import DataError

__all__ = ["CoverageRow", "Entry", "Estimate", "Latency", "Report"]

PRINTED_WIDTH = 200


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Latency(_Record):
    """How long one inference takes at a thread count; all figures are of the same run.

    Args:
        threads: thread count, None for the runtime's default.
        p50_ms: median, in milliseconds.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile.
        throughput_per_second: inferences one after the other in a second.
        repeats: inferences recorded.
    """

    threads: int | None
    p50_ms: float
    p90_ms: float
    p99_ms: float
    throughput_per_second: float
    repeats: int


class Estimate(_Record):
    """What a compiler predicts for a device; not a measurement.

    Args:
        target: the device.
        source: who estimates it, and for which system.
        latency_ms: estimated time of one inference, without the operators left on the CPU.
        cycles: estimated clock cycles.
        sram_bytes: working memory the compiled file needs.
        accelerator_operators: operators that run on the accelerator.
        cpu_operators: operators left on the CPU.
    """

    target: str
    source: str
    latency_ms: float
    cycles: int
    sram_bytes: int
    accelerator_operators: int
    cpu_operators: int


class CoverageRow(_Record):
    """Whether a layer is quantized, and why not."""

    layer: str
    type: str
    quantized: bool
    reason: str = ""


class Entry(_Record):
    """One measured file; what was not measured is None, or empty.

    Args:
        name: how the report calls it.
        path: where it was.
        kind: "tflite" or "saved_model".
        score: value of the report's metric.
        size_bytes: bytes of the file, or of the files that make up a SavedModel.
        gzip_bytes: the same, compressed by gzip at level 9.
        peak_memory_bytes: growth of a fresh process by loading and running the file.
        latencies: one for each thread count.
        estimates: predictions for devices that are not at hand.
        verification: what the exporter measured against Keras, from the artifact's record.
        note: under which conditions it ran, and what was remarkable.
    """

    name: str
    path: str
    kind: Literal["tflite", "saved_model"]
    score: float | None = None
    size_bytes: int = Field(gt=0)
    gzip_bytes: int = Field(gt=0)
    peak_memory_bytes: int | None = None
    latencies: tuple[Latency, ...] = ()
    estimates: tuple[Estimate, ...] = ()
    verification: dict[str, Any] = {}
    note: str = ""

    def latency_at(self, threads: int | None) -> Latency | None:
        """The latency at a thread count, None where it was not measured."""
        return next((latency for latency in self.latencies if latency.threads == threads), None)


class Report(_Record):
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

    title: str
    metric: str | None = None
    samples: int | None = None
    machine: Machine
    entries: tuple[Entry, ...] = Field(min_length=1)
    coverage: tuple[CoverageRow, ...] = ()
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    notes: tuple[str, ...] = ()
    reproduce: str = ""

    @property
    def baseline(self) -> Entry:
        """What the others are compared with: the first entry."""
        return self.entries[0]

    def save(self, directory: str | Path) -> Path:
        """Writes report.json and report.html into a folder and returns where the page is.

        Raises:
            ConfigError: if the folder cannot be written.
        """
        from tfopt.benchmark.report_page import render_page

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
        from tfopt.benchmark.report_table import report_table

        console = console or Console()
        console.print(report_table(self, console))

    def __str__(self) -> str:
        text = io.StringIO()
        self.print_table(Console(file=text, width=PRINTED_WIDTH, color_system=None))
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip("\n")
