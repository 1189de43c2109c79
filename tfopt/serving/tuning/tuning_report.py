"""What a search for batching parameters measured, and what it recommends."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from tfopt.plain_table import aligned
from tfopt.serving.batching import BatchingParameters

__all__ = ["MeasuredSetting", "TuningReport"]


@dataclass(frozen=True, kw_only=True)
class MeasuredSetting:
    """One setting, measured under the load in one or several rounds.

    Args:
        parameters: the setting; None is a server that runs each request alone.
        simulated_per_second: requests answered in a second in the simulation.
        throughputs_per_second: requests answered in a second within the time that was asked for, of each round.
        p50_ms: median latency of each round.
        p99_ms: 99th percentile of the latency of each round.
    """

    parameters: BatchingParameters | None
    simulated_per_second: float
    throughputs_per_second: tuple[float, ...]
    p50_ms: tuple[float, ...]
    p99_ms: tuple[float, ...]

    @property
    def throughput_per_second(self) -> float:
        """The median of the rounds."""
        return median(self.throughputs_per_second)

    def __str__(self) -> str:
        if self.parameters is None:
            return "no batching"
        return (
            f"up to {self.parameters.max_batch_size}, {self.parameters.batch_timeout_micros / 1000:g} ms, "
            f"{self.parameters.num_batch_threads} at once"
        )


@dataclass(frozen=True, kw_only=True)
class TuningReport:
    """The result of `tune_batching`: print it, or take `choice`.

    Args:
        endpoint: where it was measured, and on what machine: elsewhere the best setting may be another.
        load: what the server was loaded with.
        slo_ms: the latency that was asked for, or None.
        simulated: how many settings were simulated.
        settings: those that were measured, the best first; the server without batching is among them.
        choice: the parameters to use; None says: do not batch.
        reason: why.
        seconds: that the search took.
    """

    endpoint: str
    load: str
    slo_ms: float | None
    simulated: int
    settings: tuple[MeasuredSetting, ...]
    choice: BatchingParameters | None
    reason: str
    seconds: float

    def __str__(self) -> str:
        rows = [("setting", "rounds", "answers/s", "of single rounds", "p50 ms", "p99 ms", "simulated")]
        for one in self.settings:
            spread = f"{min(one.throughputs_per_second):.0f} – {max(one.throughputs_per_second):.0f}"
            rows.append(
                (
                    f"{one}{' *' if one.parameters == self.choice else ''}",
                    str(len(one.throughputs_per_second)),
                    f"{one.throughput_per_second:.0f}",
                    spread,
                    f"{median(one.p50_ms):.1f}",
                    f"{median(one.p99_ms):.1f}",
                    f"{one.simulated_per_second:.0f}",
                )
            )
        goal = f", answers within {self.slo_ms:g} ms counted" if self.slo_ms is not None else ""
        return "\n".join(
            [
                f"Batching, measured on {self.endpoint}",
                f"{self.load}{goal}; {self.simulated} settings simulated, {self.seconds:.0f} s in all",
                *aligned(rows, "<" + ">" * (len(rows[0]) - 1)),
                self.reason,
            ]
        )
