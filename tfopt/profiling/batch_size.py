"""The smallest batch size that trains about as fast as any: searched, not swept."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfopt.benchmark.peak_memory import forget_peak, peak_bytes, resident_bytes
from tfopt.errors import ConfigError, DataError
from tfopt.profiling.batch_size_report import BatchSizeReport, BatchSizeTrial
from tfopt.profiling.step_cost import StepCost, expected_throughputs, fit_step_cost
from tfopt.profiling.training_trial import check_compiled, left_as_it_was, time_steps, training_arrays
from tfopt.schedules.arguments import check_number, check_positive, check_steps
from tfopt.training_batches import endless_batches

__all__ = ["find_batch_size"]


def find_batch_size(
    model: keras.Model,
    data: Any,
    *,
    min_size: int = 8,
    max_size: int = 512,
    tolerance: float = 0.05,
    seconds: float = 0.5,
    memory_limit_bytes: int | None = None,
) -> BatchSizeReport:
    """Finds the smallest batch size whose training throughput is about the best that can be expected.

    A larger batch makes a step longer and no sample cheaper once the fixed cost of a step is spread thin; it takes
    more memory, and fewer updates an epoch. Two sizes are timed first. The line through their step times, a fixed cost
    and a cost per sample, tells where the knee should be; that size and its double are timed too, and lines are
    drawn anew, through the nearest sizes, until the knee is at a size that was timed. Since other programs slow
    single timings, the knee, its double and the fastest are timed three times, in turns, and their medians count.

    Steps are those of `model.fit` on samples that are in memory, so what an input pipeline costs is not in
    them (see `callbacks.InputPipelineMonitor`). How well a batch size learns is not measured: with another one the
    learning rate has to be chosen anew (`callbacks.LearningRateFinder`).

    The model is trained for the measurement and put back: weights, optimizer, metrics and random state are as before.

    Args:
        model: built, and compiled as for the training; optimizer, precision, `jit_compile` and
            `steps_per_execution` are measured as they are.
        data: `(x, y)` or `(x, y, sample_weight)` of arrays of shape `(n, ...)`, or a tf.data.Dataset of batches of
            these. The first `max_size` samples or, of arrays, eight times as many are used, over and over.
        min_size: the smallest size; the others are its doubles.
        max_size: the largest size. Sizes of more samples than the data has are not tried.
        tolerance: what the knee may lack of the best throughput, as a fraction in (0, 1).
        seconds: steps of a size are recorded for so long in each turn, but three of them at least.
        memory_limit_bytes: a size at which the peak memory, extrapolated from those before, would be above it is not
            tried; by default, on a CPU, what the process holds when it starts and what the system has left, where it
            tells.

    Returns:
        The report: print it, or read `batch_size`, `trials` and `reason`.

    Raises:
        ConfigError: if an argument is out of range, or the smallest size does not fit into memory.
        ModelError: if the model is not built or not compiled.
        DataError: if the data does not fit the model, or has fewer than `min_size` samples.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> report = find_batch_size(model, (np.ones((64, 8)), np.ones(64)), seconds=0.01)
        >>> report.batch_size in (8, 16, 32, 64)
        True

    References: McCandlish et al. 2018, arXiv:1812.06162, for what a batch size does to learning.
    """
    check_compiled(model, verb="find_batch_size")
    check_steps("find_batch_size: min_size", min_size, minimum=1)
    check_steps("find_batch_size: max_size", max_size, minimum=min_size)
    check_positive("find_batch_size: seconds", seconds)
    if not 0 < check_number("find_batch_size: tolerance", tolerance) < 1:
        raise ConfigError(f"find_batch_size: tolerance must be in (0, 1). Received: {tolerance!r}.")
    if memory_limit_bytes is not None:
        check_steps("find_batch_size: memory_limit_bytes", memory_limit_bytes, minimum=1)
    started = time.perf_counter()
    limit = max_size if isinstance(data, tf.data.Dataset) else _SAMPLES_PER_LARGEST_BATCH * max_size
    arrays = training_arrays(data, model, limit=limit)
    samples = len(keras.tree.flatten(arrays)[0])
    sizes = [min_size]
    while sizes[-1] * 2 <= min(max_size, samples):
        sizes.append(sizes[-1] * 2)
    if samples < min_size:
        raise DataError(f"find_batch_size: expected at least min_size={min_size} samples. Received: {samples}.")
    search = _Search(model, arrays, sizes, seconds, memory_limit_bytes)
    with left_as_it_was(model):
        knee = search.run(tolerance)
    return BatchSizeReport(
        batch_size=knee,
        trials=tuple(search.trials[size] for size in sorted(search.trials)),
        sizes=tuple(sizes),
        tolerance=tolerance,
        cost=search.cost(),
        memory_kind=search.memory.kind,
        seconds=time.perf_counter() - started,
    )


_SAMPLES_PER_LARGEST_BATCH = 8
_TURNS = 3


class _Search:
    """What was measured so far, and which size is to be measured next."""

    def __init__(
        self, model: keras.Model, arrays: Any, sizes: Sequence[int], seconds: float, memory_limit_bytes: int | None
    ) -> None:
        self.model, self.arrays, self.seconds = model, arrays, seconds
        self.sizes = list(sizes)
        self.trials: dict[int, BatchSizeTrial] = {}
        self.turns: dict[int, list[float]] = {size: [] for size in sizes}
        self.memory = _Memory()
        self.memory_limit_bytes = memory_limit_bytes or self.memory.limit_bytes

    def run(self, tolerance: float) -> int:
        # Neither end: the smallest tells little of the cost of a sample, and the largest costs most to time.
        for position in (1, 3):
            self._measure(self.sizes[min(position, len(self.sizes) - 1)])
        while True:
            expected = expected_throughputs(self.sizes, self._step_ms())
            enough = (1 - tolerance) * max(expected.values())
            knee = next(size for size in self.sizes if expected[size] >= enough)
            fastest = max(self.sizes, key=lambda size: expected[size] if self.turns[size] else 0.0)
            # The double too: it shows whether more is to be gained, whatever the line says.
            deciding = [size for size in (knee, 2 * knee, fastest) if size in self.sizes]
            uncertain = [size for size in deciding if len(self.turns[size]) < _TURNS]
            if not uncertain:
                return knee
            self._measure(min(uncertain, key=lambda size: len(self.turns[size])))

    def cost(self) -> StepCost:
        step_ms = self._step_ms()
        return fit_step_cost(list(step_ms), list(step_ms.values()))

    def _step_ms(self) -> dict[int, float]:
        return {size: trial.step_ms for size, trial in self.trials.items() if trial.step_ms is not None}

    def _measure(self, size: int) -> None:
        """Times a size; one that does not fit leaves the sizes below it, and the next smaller takes its place."""
        while size in self.sizes:
            trial = None
            if not self._is_too_large(size):
                with contextlib.suppress(tf.errors.ResourceExhaustedError):
                    trial = self._time(size)
            self.trials[size] = trial or BatchSizeTrial(size, None, None, None)
            if trial is not None:
                return
            self.sizes = [smaller for smaller in self.sizes if smaller < size]
            if not self.sizes:
                raise ConfigError(
                    f"find_batch_size: no size fits into memory. Received: min_size={size}. Lower min_size, use "
                    "gradient accumulation, or a smaller model."
                )
            size = self.sizes[-1]

    def _time(self, size: int) -> BatchSizeTrial:
        if not self.trials:  # what loading and tracing take once belongs to no size
            time_steps(self.model, endless_batches(self.arrays, self.sizes[0]), seconds=0.0, min_steps=1)
        self.memory.forget_peak()
        durations = time_steps(self.model, endless_batches(self.arrays, size), seconds=self.seconds)
        self.turns[size].append(float(np.median(durations)))
        step_seconds = statistics.median(self.turns[size])
        return BatchSizeTrial(size, size / step_seconds, step_seconds * 1e3, self.memory.peak_bytes())

    def _is_too_large(self, size: int) -> bool:
        known = [(one.batch_size, one.memory_bytes) for one in self.trials.values() if one.memory_bytes is not None]
        if not known or self.memory_limit_bytes is None:
            return False
        largest, peak = max(known)
        growth = max(peak - self.memory.before_bytes, 0)
        return size > largest and peak + growth * (size / largest - 1) > self.memory_limit_bytes


class _Memory:
    """Peak memory: TensorFlow's own count on a GPU, else the resident memory of the process, where the system tells."""

    def __init__(self) -> None:
        self.on_gpu = bool(tf.config.list_logical_devices("GPU"))
        self.kind = f"peak {'on GPU:0' if self.on_gpu else 'of the process'}, all that it holds included"
        resident, available = (None, None) if self.on_gpu else (resident_bytes(), _available_bytes())
        self.before_bytes = resident or 0
        self.limit_bytes = None if resident is None or available is None else resident + available

    def forget_peak(self) -> None:
        if self.on_gpu:
            tf.config.experimental.reset_memory_stats("GPU:0")
        else:
            forget_peak()

    def peak_bytes(self) -> int | None:
        if self.on_gpu:
            return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
        return peak_bytes()


def _available_bytes() -> int | None:
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return None
