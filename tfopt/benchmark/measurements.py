"""What was measured, as plain frozen values."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tfopt.benchmark.agreement import Agreement
from tfopt.benchmark.contents import Contents
from tfopt.benchmark.machine import Machine
from tfopt.output_error import ErrorDistribution

__all__ = ["Contents", "CoverageRow", "Entry", "Estimate", "Latency", "Measurements", "OperatorTime"]


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
        p50_low_ms: lower end of the median's 95 % confidence interval; None of fewer than five rounds.
        p50_high_ms: its upper end.
        round_medians_ms: the median of each round, in which all entries had a turn: ratios are taken round by round.
        percentiles_ms: the percentiles 0, 1, …, 100.
        outliers: the fraction of inferences that took far longer than the others.
        core: the core that a single thread was kept on for most of the time, None where it was free to move.
    """

    threads: int | None
    p50_ms: float
    p90_ms: float
    p99_ms: float
    throughput_per_second: float
    repeats: int
    p50_low_ms: float | None = None
    p50_high_ms: float | None = None
    round_medians_ms: tuple[float, ...] = ()
    percentiles_ms: tuple[float, ...] = ()
    outliers: float | None = None
    core: int | None = None


class OperatorTime(_Record):
    """How long one operator of a file takes within an inference.

    Args:
        name: what the file calls it, or the tensor that it writes.
        kind: what it computes, such as CONV_2D.
        time_ms: of one inference, in milliseconds; how it is measured is the runner's to say.
    """

    name: str
    kind: str
    time_ms: float


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
    """One file; what was not measured is None, or empty.

    Args:
        name: how the report calls it.
        path: where it was.
        kind: "tflite", "saved_model" or "onnx".
        score: value of the report's metric.
        size_bytes: bytes of the file, or of the files that make up a SavedModel.
        gzip_bytes: the same, compressed by gzip at level 9.
        peak_memory_bytes: growth of a fresh process by loading and running the file.
        arena_bytes: memory that the tensors of one inference share, without weights (.tflite, without XNNPACK).
        latencies: one for each thread count.
        operators: times of its operators, in their order; empty where the runtime does not tell them.
        estimates: predictions for devices that are not at hand.
        verification: what the exporter measured against Keras, from the artifact's record.
        contents: its layers or operators and their total; None where the file was not inspected.
        error_against_targets: of a regression, how the predictions deviate from the targets.
        error_against_baseline: of a regression, how they deviate from the baseline's: what the entry adds.
        agreement: how far its answers are those of the baseline; None of the baseline, and without samples.
        note: under which conditions it ran, and what was remarkable.
        error: why it could not be measured, or not to the end; empty where it was.
    """

    name: str
    path: str
    kind: Literal["tflite", "saved_model", "onnx"]
    score: float | None = None
    size_bytes: int = Field(ge=0)
    gzip_bytes: int = Field(ge=0)
    peak_memory_bytes: int | None = None
    arena_bytes: int | None = None
    latencies: tuple[Latency, ...] = ()
    operators: tuple[OperatorTime, ...] = ()
    estimates: tuple[Estimate, ...] = ()
    verification: dict[str, Any] = {}
    contents: Contents | None = None
    error_against_targets: ErrorDistribution | None = None
    error_against_baseline: ErrorDistribution | None = None
    agreement: Agreement | None = None
    note: str = ""
    error: str = ""

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
    price_per_hour: float | None = Field(default=None, gt=0)
    watts: float | None = Field(default=None, gt=0)
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    notes: tuple[str, ...] = ()
    reproduce: str = ""

    @property
    def baseline(self) -> Entry:
        """What the others are compared with: the first entry."""
        return self.entries[0]
