"""Running a .tflite file of several stages, and no stage more than a sample needs."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tfopt.artifact import TensorSpec
from tfopt.benchmark.protocol import measure
from tfopt.data import Samples, check_samples
from tfopt.early_exit.policy import ExitPolicy
from tfopt.early_exit.staged_file import StagedFile, StageRecord
from tfopt.errors import BenchmarkError
from tfopt.quantization.spec import ActivationGrid

__all__ = ["EarlyExitRunner"]


class EarlyExitRunner:
    """Runs what `export_early_exit_tflite` wrote, one sample at a time, up to the exit at which it leaves.

    On a device the same is a few lines in any language that TFLite has: call the signature `stage_1`, take the softmax
    of its first output where it holds logits, compare its largest value with the threshold, and go on to `stage_2` with
    the tensors that `NAME.exits.json` names.

    Args:
        path: the .tflite file, with `NAME.exits.json` beside it.
        threads: that the interpreter may use.
        policy: other thresholds than those in the record.

    Raises:
        DataError: if there is no record beside the file.
        ConfigError: if the policy is of another network.
        BenchmarkError: if the file cannot be loaded.

    Example:
        >>> EarlyExitRunner("absent.tflite")
        Traceback (most recent call last):
        ...
        tfopt.errors.DataError: Expected the stages of absent.tflite in absent.exits.json, as \
export_early_exit_tflite writes them. Received: FileNotFoundError: [Errno 2] No such file or directory: \
'absent.exits.json'
    """

    def __init__(self, path: str | Path, *, threads: int = 1, policy: ExitPolicy | None = None) -> None:
        path = Path(path)
        record = StagedFile.load(path)
        self.policy = record.policy if policy is None else policy
        self.policy.check_fits(record.policy.exits, from_logits=record.policy.from_logits)
        try:
            # One interpreter for all stages: the weights are loaded once.
            interpreter = Interpreter(str(path), num_threads=threads)
            self._stages = [_RunningStage(interpreter, stage) for stage in record.stages]
        except (OSError, RuntimeError, ValueError) as error:
            raise BenchmarkError(f"Cannot run the stages of {path}. Received: {error}") from None
        read = [(name, spec) for stage in record.stages for name, spec in zip(stage.reads, stage.inputs, strict=True)]
        written = {name for stage in record.stages for name in stage.writes}
        self.inputs: tuple[TensorSpec, ...] = tuple(
            spec.model_copy(update={"name": name, "shape": (None, *spec.shape[1:])})
            for name, spec in dict(reversed(read)).items()
            if name not in written
        )[::-1]

    def run(self, *sample: np.ndarray) -> tuple[np.ndarray, int]:
        """Answers one sample.

        Args:
            *sample: an array of shape `(1, ...)` for each input of the network, in order.

        Returns:
            The answer of the exit at which it leaves, as floats of shape `(1, classes)`; and that exit, from 0 on.
        """
        tensors: dict[str, _Held] = {spec.name: _Held(array) for spec, array in zip(self.inputs, sample, strict=True)}
        last = len(self._stages) - 1
        for index, stage in enumerate(self._stages):
            answer = stage.run(tensors)
            if index == last or self.policy.leaves(index, answer)[0]:
                break
        return answer, index

    def predict(self, x: Samples) -> tuple[np.ndarray, np.ndarray]:
        """Answers samples one after the other.

        Args:
            x: samples of shape `(n, ...)`, as floats even where the file takes int8.

        Returns:
            The answers, of shape `(n, classes)`, and the exit of each sample, from 0 on.

        Raises:
            DataError: if the samples do not fit.
        """
        arrays = check_samples(x, self.inputs, what="early-exit")
        answered = [self.run(*(array[row : row + 1] for array in arrays)) for row in range(len(arrays[0]))]
        answers, exits = zip(*answered, strict=True)
        return np.concatenate(answers), np.array(exits)

    def stage_latency_ms(self, x: Samples, *, repeats: int = 100, seconds: float = 0.2) -> tuple[float, ...]:
        """Measures the median milliseconds of each stage, timed in turns: what `choose_thresholds` takes.

        Args:
            x: samples; the first one is run.
            repeats: recorded runs of each stage, at least.
            seconds: recorded time of each stage, at least.
        """
        arrays = check_samples(x, self.inputs, what="early-exit", limit=1)
        tensors = {spec.name: _Held(array) for spec, array in zip(self.inputs, arrays, strict=True)}
        for stage in self._stages:
            stage.run(tensors)
        calls = {index: partial(stage.run, tensors) for index, stage in enumerate(self._stages)}
        timings = measure(calls, repeats=repeats, seconds=seconds)
        return tuple(timings[index].p50_ms for index in calls)


class _Held:
    """A tensor between stages: as its stage wrote it, with the grid that its integers are on."""

    def __init__(self, values: np.ndarray, grid: ActivationGrid | None = None) -> None:
        self.values = values
        self.grid = grid

    def as_floats(self) -> np.ndarray:
        return self.values if self.grid is None else self.grid.dequantize(self.values)

    def on(self, grid: ActivationGrid | None, dtype: np.dtype) -> np.ndarray:
        if _same(grid, self.grid):
            return np.asarray(self.values, dtype)
        return self.as_floats().astype(dtype) if grid is None else grid.quantize(self.as_floats())


class _RunningStage:
    def __init__(self, interpreter: Any, record: StageRecord) -> None:
        self._signature = interpreter.get_signature_runner(record.signature)
        self._reads = [(name, spec.name, *_grid(spec)) for name, spec in zip(record.reads, record.inputs, strict=True)]
        self._writes = [
            (name, spec.name, *_grid(spec)) for name, spec in zip(record.writes, record.outputs, strict=True)
        ]

    def run(self, tensors: dict[str, _Held]) -> np.ndarray:
        """Adds what the stage writes to the tensors, and returns the exit's answer."""
        inputs = {key: tensors[name].on(grid, dtype) for name, key, grid, dtype in self._reads}
        outputs = self._signature(**inputs)
        for name, key, grid, _ in self._writes:
            tensors[name] = _Held(outputs[key], grid)
        return tensors[self._writes[0][0]].as_floats()


def _same(one: ActivationGrid | None, other: ActivationGrid | None) -> bool:
    """Whether integers mean the same, to a hundredth of a step: two stages measure a tensor's range in two runs."""
    if one is None or other is None:
        return one is other
    return (one.zero_point, one.bits) == (other.zero_point, other.bits) and math.isclose(
        one.scale, other.scale, rel_tol=0.01 / 2**one.bits
    )


def _grid(spec: TensorSpec) -> tuple[ActivationGrid | None, np.dtype]:
    dtype = np.dtype(spec.dtype)
    if spec.scale is None or spec.zero_point is None:
        return None, dtype
    return ActivationGrid(spec.scale, spec.zero_point, 8 * dtype.itemsize), dtype
