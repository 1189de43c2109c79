"""What a training step costs by batch size: a straight line, in array maths without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log

import numpy as np

__all__ = ["StepCost", "expected_throughputs", "fit_step_cost"]


@dataclass(frozen=True)
class StepCost:
    """The time of a step as `fixed_ms + per_sample_ms * batch_size`.

    Args:
        fixed_ms: what a step costs however few samples it has: launching operations, updating the weights.
        per_sample_ms: what a sample adds.

    Example:
        >>> cost = StepCost(fixed_ms=9.0, per_sample_ms=1.0)
        >>> cost.samples_per_second(1), cost.samples_per_second(91)
        (100.0, 910.0)
    """

    fixed_ms: float
    per_sample_ms: float

    def step_ms(self, batch_size: int) -> float:
        """Milliseconds of a step."""
        return self.fixed_ms + self.per_sample_ms * batch_size

    def samples_per_second(self, batch_size: int) -> float:
        """Throughput at a batch size."""
        return 1e3 * batch_size / self.step_ms(batch_size)


def fit_step_cost(batch_sizes: Sequence[int], step_ms: Sequence[float]) -> StepCost:
    """The line with the least squared relative errors; both costs are at least zero.

    Where noise would make one of them negative, it is zero and the other fits best alone.

    Args:
        batch_sizes: at least one; with one, all of its time is taken for its samples'.
        step_ms: the time of a step at each, in milliseconds, above 0.

    Example:
        >>> cost = fit_step_cost([16, 64], [5.0, 11.0])
        >>> round(cost.fixed_ms, 6), round(cost.per_sample_ms, 6)
        (3.0, 0.125)
    """
    sizes, times = np.asarray(batch_sizes, float), np.asarray(step_ms, float)
    constant, slope = 1 / times, sizes / times  # what each cost explains of the time, as a part of it
    if len(set(batch_sizes)) > 1:
        fixed, per_sample = np.linalg.lstsq(np.stack([constant, slope], axis=1), np.ones(len(times)), rcond=None)[0]
        if fixed > 0 and per_sample > 0:
            return StepCost(float(fixed), float(per_sample))
        if fixed > 0:
            return StepCost(float(constant.sum() / (constant**2).sum()), 0.0)
    return StepCost(0.0, float(slope.sum() / (slope**2).sum()))


def expected_throughputs(batch_sizes: Iterable[int], step_ms: Mapping[int, float]) -> dict[int, float]:
    """Samples per second at each size: as measured, or by the line through the two sizes nearest to it that were.

    Not by one line through all: on a processor with several cores or a large cache the cost of a sample changes with
    the size, and what a larger size may still gain shows at the largest ones that were measured.

    Args:
        batch_sizes: the sizes that are asked for.
        step_ms: the measured time of a step in milliseconds, by size; at least one.

    Example:
        >>> expected = expected_throughputs([16, 64, 128], {16: 5.0, 64: 11.0, 256: 32.0})
        >>> {size: round(throughput) for size, throughput in expected.items()}
        {16: 3200, 64: 5818, 128: 7111}
    """
    throughputs = {}
    for size in batch_sizes:
        near = sorted(step_ms, key=lambda measured: abs(log(measured / size)))[:2]
        measured = step_ms.get(size)
        cost = fit_step_cost(near, [step_ms[one] for one in near])
        throughputs[size] = cost.samples_per_second(size) if measured is None else 1e3 * size / measured
    return throughputs
