"""One candidate on its way through a session: what was measured of it so far, and why it went no further."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfopt.benchmark.agreement import Agreement
from tfopt.benchmark.candidates import Candidate, gzip_bytes
from tfopt.benchmark.contents import Contents
from tfopt.benchmark.ethos_u import estimate_latency
from tfopt.benchmark.measurements import Entry, Estimate, Latency, OperatorTime
from tfopt.benchmark.protocol import Timing
from tfopt.benchmark.runner import Runner, random_samples
from tfopt.benchmark.scoring import Scores
from tfopt.data import check_samples
from tfopt.errors import BenchmarkError, DataError
from tfopt.pruning.sparse_targets import Target
from tfopt.vela import Accelerator

__all__ = ["Trial"]


@dataclass
class Trial:
    """A candidate and what is known of it; once it has failed, the rest stays unmeasured."""

    candidate: Candidate
    failure: Exception | None = None
    timings: dict[int | None, Timing] = field(default_factory=dict)
    predictions: list[np.ndarray] | None = None
    agreement: Agreement | None = None
    _runner: Runner | None = None
    _samples: list[np.ndarray] | None = None
    _contents: Contents | None = None
    _operators: tuple[OperatorTime, ...] = ()
    _estimates: tuple[Estimate, ...] = ()
    _notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What the report calls it."""
        return self.candidate.name

    @property
    def sample_count(self) -> int:
        """How many samples there are to predict."""
        return len(self._samples[0]) if self._samples else 0

    def attempt(self, step: Callable[[], None]) -> None:
        """Takes a step unless it has failed before; an error of the file or its data is kept as its failure."""
        if self.failure is None:
            try:
                step()
            except (BenchmarkError, DataError) as error:
                self.failure = error

    def load(self, open_runner: Callable[[Candidate], Runner], x: Any | None) -> None:
        """Opens the file, and holds the data against its inputs."""
        runner = open_runner(self.candidate)
        self._notes.append(runner.note)
        self._samples = None if x is None else check_samples(x, runner.inputs, what="benchmark")
        self._runner = runner

    def inspect(self, target: Target | None) -> None:
        """Reads what the file holds, or why that cannot be told."""
        where = target or self._opened.target
        try:
            self._contents = Contents.of(self._opened.parts(where), where)
        except DataError as error:
            self._notes.append(f"not inspected: {error}")

    def predict(self, advance: Callable[[int], None]) -> None:
        """Runs all samples."""
        self.predictions = self._opened.predict(self._samples or [], advance)

    def check_finite(self) -> None:
        """Refuses predictions from which no error can be computed."""
        if not all(np.all(np.isfinite(output)) for output in self.predictions or ()):
            raise DataError(f"The predictions of {self.name} must be finite. Received: NaN or infinite values.")

    def timed_calls(self) -> dict[int | None, Callable[[], object]]:
        """One inference of the first sample, or of a made-up one, by thread count."""
        return self._opened.timed_calls(self._sample())

    def time_operators(self, threads: int) -> None:
        """Takes the time of each operator, where the runtime lets it be told."""
        try:
            self._operators = self._opened.operator_times(threads, self._sample())
        except DataError as error:
            self._notes.append(f"operators not timed: {error}")

    def estimate(self, accelerator: Accelerator) -> None:
        """Asks the accelerator's compiler; what it cannot compile has a note instead."""
        try:
            estimate = estimate_latency(self.candidate.path, accelerator)
        except BenchmarkError as error:
            self._notes.append(f"not estimated: {error}")
            return
        if estimate is None:
            self._notes.append("no operator runs on the accelerator, so there is no estimate")
        else:
            self._estimates = (estimate,)

    def entry(self, scores: Scores) -> Entry:
        """All of it as the report holds it."""
        return Entry(
            name=self.name,
            path=str(self.candidate.path),
            kind=self.candidate.kind,
            score=scores.values.get(self.name),
            size_bytes=sum(file.stat().st_size for file in self.candidate.files),
            gzip_bytes=gzip_bytes(self.candidate.files),
            peak_memory_bytes=self._runner.peak_memory_bytes if self._runner else None,
            arena_bytes=self._runner.arena_bytes if self._runner else None,
            latencies=() if self.failure else tuple(_latency(*timed) for timed in self.timings.items()),
            operators=self._operators,
            estimates=self._estimates,
            verification=self.candidate.record.verification if self.candidate.record else {},
            contents=self._contents,
            **scores.errors.get(self.name, {}),
            agreement=self.agreement,
            note="; ".join(self._notes),
            error="" if self.failure is None else str(self.failure),
        )

    def _sample(self) -> list[np.ndarray]:
        return [array[:1] for array in self._samples] if self._samples else random_samples(self._opened.inputs)

    @property
    def _opened(self) -> Runner:
        assert self._runner is not None  # steps after a failed load are not taken
        return self._runner


def _latency(threads: int | None, timing: Timing) -> Latency:
    low, high = timing.p50_interval_ms or (None, None)
    return Latency(
        threads=threads,
        p50_ms=timing.p50_ms,
        p90_ms=timing.p90_ms,
        p99_ms=timing.p99_ms,
        throughput_per_second=timing.throughput_per_second,
        repeats=timing.repeats,
        p50_low_ms=low,
        p50_high_ms=high,
        round_medians_ms=timing.round_medians_ms,
        percentiles_ms=timing.percentiles_ms,
        outliers=timing.outliers,
        core=timing.core,
    )
