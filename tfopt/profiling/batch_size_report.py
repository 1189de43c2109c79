"""What a search for a batch size found, as values and as a table."""

from __future__ import annotations

from dataclasses import dataclass

from tfopt.benchmark.units import human_bytes, percent, significant
from tfopt.plain_table import aligned
from tfopt.profiling.step_cost import StepCost, expected_throughputs

__all__ = ["BatchSizeReport", "BatchSizeTrial"]


@dataclass(frozen=True)
class BatchSizeTrial:
    """One size that was tried.

    Args:
        batch_size: samples in a step.
        samples_per_second: from the median step; None if the size does not fit into memory.
        step_ms: the median step; None likewise.
        memory_bytes: None likewise, and where the system does not tell.
    """

    batch_size: int
    samples_per_second: float | None
    step_ms: float | None
    memory_bytes: int | None


@dataclass(frozen=True)
class BatchSizeReport:
    """The batch size that `find_batch_size` found, and why; printing it gives a table.

    Args:
        batch_size: the knee: the smallest size within `tolerance` of the best throughput.
        trials: the sizes that were tried, rising.
        sizes: all that could have been.
        tolerance: what the knee may lack, as a fraction.
        cost: the time of a step by batch size, fitted to the trials.
        memory_kind: what `memory_bytes` of the trials are: on a GPU the peak that TensorFlow counts, on a CPU the peak
            of the process's resident memory. Weights and data are in both, and on a CPU what the allocator keeps of
            sizes that were tried before.
        seconds: what the search took.

    Example:
        >>> trials = BatchSizeTrial(16, 3200.0, 5.0, 2**20), BatchSizeTrial(32, 3300.0, 9.7, 2**21)
        >>> report = BatchSizeReport(16, trials, (8, 16, 32), 0.05, StepCost(0.3, 0.29), "peak", 1.2)
        >>> print(report)
        batch size  samples/s  step ms    memory
                16      3,200     5.00  1.00 MiB  <- knee
                32      3,300     9.70  2.00 MiB
        memory: peak. Tried 2 of 3 sizes in 1.20 s.
        16: the smallest size within 5.0 % of the best throughput (3,300 samples/s at 32). A step costs 0.300 ms \
however few its samples, \
and 0.290 ms for each of them: at 16 the fixed part is 6.1 % of a step. Doubling it gains 3.1 %.
    """

    batch_size: int
    trials: tuple[BatchSizeTrial, ...]
    sizes: tuple[int, ...]
    tolerance: float
    cost: StepCost
    memory_kind: str
    seconds: float

    @property
    def samples_per_second(self) -> float:
        """Throughput at `batch_size`."""
        return self._throughputs()[self.batch_size]

    @property
    def reason(self) -> str:
        """Why it is this size, in words."""
        throughputs = self._throughputs()
        step_ms = {one.batch_size: one.step_ms for one in self.trials if one.step_ms is not None}
        expected = expected_throughputs(self._fitting(), step_ms)
        best = max(expected, key=lambda size: expected[size])
        kind = "" if best in throughputs else "expected "
        fixed = self.cost.fixed_ms / self.cost.step_ms(self.batch_size)
        words = (
            f"{self.batch_size}: the smallest size within {percent(self.tolerance)} of the best throughput "
            f"({kind}{significant(expected[best])} samples/s at {best}). A step costs "
            f"{significant(self.cost.fixed_ms, 'ms')} however few its samples, and "
            f"{significant(self.cost.per_sample_ms, 'ms')} for each of them: at {self.batch_size} the fixed part is "
            f"{percent(fixed)} of a step."
        )
        double = throughputs.get(2 * self.batch_size)
        if double is not None:
            gain = double / self.samples_per_second - 1
            return f"{words} Doubling it {'gains' if gain >= 0 else 'loses'} {percent(abs(gain))}."
        if 2 * self.batch_size in self.sizes:
            return f"{words} {2 * self.batch_size} does not fit into memory."
        return f"{words} It is the largest size that was allowed, or that the samples fill."

    def __str__(self) -> str:
        rows = [("batch size", "samples/s", "step ms", "memory", "")]
        for trial in self.trials:
            fits = trial.samples_per_second is not None
            rows.append(
                (
                    str(trial.batch_size),
                    significant(trial.samples_per_second) if fits else "does not fit",
                    significant(trial.step_ms) if fits else "",
                    human_bytes(trial.memory_bytes) if fits else "",
                    "<- knee" if trial.batch_size == self.batch_size else "",
                )
            )
        tried = f"Tried {len(self.trials)} of {len(self.sizes)} sizes in {significant(self.seconds, 's')}."
        return "\n".join([*aligned(rows, ">>>><"), f"memory: {self.memory_kind}. {tried}", self.reason])

    def _throughputs(self) -> dict[int, float]:
        return {one.batch_size: one.samples_per_second for one in self.trials if one.samples_per_second is not None}

    def _fitting(self) -> list[int]:
        too_large = [one.batch_size for one in self.trials if one.samples_per_second is None]
        return [size for size in self.sizes if not too_large or size < min(too_large)]
