"""What was measured, as plain frozen values."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tfopt.benchmark.contents import Contents
from tfopt.benchmark.machine import Machine
from tfopt.output_error import ErrorDistribution

__all__ = ["Contents", "CoverageRow", "Entry", "Estimate", "Latency", "Measurements"]


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
        contents: its layers or operators and their total; None where the file was not inspected.
        error_against_targets: of a regression, how the predictions deviate from the targets.
        error_against_baseline: of a regression, how they deviate from the baseline's: what the entry adds.
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
    contents: Contents | None = None
    error_against_targets: ErrorDistribution | None = None
    error_against_baseline: ErrorDistribution | None = None
    note: str = ""

    def latency_at(self, threads: int | None) -> Latency | None:
        """The latency at a thread count, None where it was not measured."""
        return next((latency for latency in self.latencies if latency.threads == threads), None)


class Measurements(_Record):
    """Files beside each other on one machine: the content of a `Report`, which says what the fields are."""

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
