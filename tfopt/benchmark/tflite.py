"""Running a .tflite file on ai-edge-litert; TensorFlow is not needed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tfopt.artifact import Artifact, TensorSpec
from tfopt.benchmark import peak_memory
from tfopt.errors import BenchmarkError, DataError
from tfopt.export.tflite_file import read_tflite
from tfopt.inspection_file import tflite_parts
from tfopt.inspection_table import Part
from tfopt.pruning.sparse_targets import Target

__all__ = ["TfliteRunner"]

LOAD_TIMEOUT_SECONDS = 600


class TfliteRunner:
    """A .tflite file, loaded once for each thread count.

    It is tried in a process of its own first, where its peak memory is measured and where a damaged file can
    do no harm.

    Args:
        path: the file.
        threads: thread counts to load it with.
        record: what the exporter wrote beside it; gives the order of several inputs.

    Raises:
        BenchmarkError: if the file cannot be loaded or run, or does not take one sample at a time.
    """

    note = "ai-edge-litert, XNNPACK"

    def __init__(self, path: Path, threads: Sequence[int], *, record: Artifact | None = None) -> None:
        self.path = path
        self.peak_memory_bytes = _run_in_fresh_process(path)
        self._interpreters: dict[int, Any] = {count: _load(path, count) for count in threads}
        self._predictor = self._interpreters[max(threads)]
        details = _named_input_details(self._predictor)
        ordered = [spec.name for spec in record.inputs] if record else []
        self._details = [details[name] for name in (ordered if set(ordered) == set(details) else details)]
        self.inputs = tuple(_spec(name, detail) for name, detail in self._named())
        for spec in self.inputs:
            if len(spec.shape) == 0 or spec.shape[0] not in (None, 1):
                raise BenchmarkError(
                    f"{path}: expected a file that takes one sample at a time. Received: input "
                    f"'{spec.name}' of shape {list(spec.shape)}. Export it with batch size 1."
                )

    def _named(self) -> list[tuple[str, dict[str, Any]]]:
        names = {detail["index"]: name for name, detail in _named_input_details(self._predictor).items()}
        return [(names[detail["index"]], detail) for detail in self._details]

    def timed_calls(self, sample: list[np.ndarray]) -> dict[int | None, Callable[[], object]]:
        """`invoke` with the sample in place, for each thread count."""
        for interpreter in self._interpreters.values():
            self._set(interpreter, sample)
        return {count: interpreter.invoke for count, interpreter in self._interpreters.items()}

    def predict(self, samples: list[np.ndarray], advance: Callable[[int], None]) -> list[np.ndarray]:
        """The outputs of all samples, one after the other, dequantized."""
        outputs = self._predictor.get_output_details()
        rows: list[list[np.ndarray]] = [[] for _ in outputs]
        for index in range(len(samples[0])):
            self._set(self._predictor, [array[index : index + 1] for array in samples])
            try:
                self._predictor.invoke()
            except RuntimeError as error:
                raise _cannot_run(self.path, str(error)) from error
            for row, detail in zip(rows, outputs, strict=True):
                row.append(_dequantize(self._predictor.get_tensor(detail["index"]), detail))
            advance(1)
        return [np.concatenate(row) for row in rows]

    def parts(self, target: Target) -> tuple[Part, ...]:
        """The operators."""
        return tflite_parts(read_tflite(self.path), target)

    def _set(self, interpreter: Any, sample: list[np.ndarray]) -> None:
        for array, detail in zip(sample, self._details, strict=True):
            interpreter.set_tensor(detail["index"], _quantize(array, detail))


def _run_in_fresh_process(path: Path) -> int | None:
    command = [sys.executable, "-P", peak_memory.__file__, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise _cannot_run(path, f"no answer within {LOAD_TIMEOUT_SECONDS} seconds") from None
    if done.returncode < 0:
        raise _cannot_run(path, f"the runtime crashed ({signal.Signals(-done.returncode).name})")
    if done.returncode:
        raise _cannot_run(path, (done.stderr.strip() or "no message").splitlines()[-1])
    answer = json.loads(done.stdout.splitlines()[-1])
    if "error" in answer:
        raise _cannot_run(path, answer["error"])
    return answer["peak_memory_bytes"]


def _cannot_run(path: Path, reason: str) -> BenchmarkError:
    return BenchmarkError(
        f"Cannot run {path}: expected a TensorFlow Lite model that ai-edge-litert can load and run. "
        f"Received: {reason.strip().rstrip('.')}. Check that the file is whole, or export it again."
    )


def _load(path: Path, threads: int) -> Any:
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise _cannot_run(path, str(error)) from error
    return interpreter


def _named_input_details(interpreter: Any) -> dict[str, dict[str, Any]]:
    """Input tensors by the signature's names (Keras's), by their own names in a file without a signature."""
    signatures = list(interpreter.get_signature_list())
    if len(signatures) == 1:
        return dict(interpreter.get_signature_runner(signatures[0]).get_input_details())
    return {detail["name"]: detail for detail in interpreter.get_input_details()}


def _spec(name: str, detail: dict[str, Any]) -> TensorSpec:
    scale, zero_point = detail["quantization"]
    signature = detail.get("shape_signature", detail["shape"])
    return TensorSpec(
        name=name,
        shape=tuple(None if size < 0 else int(size) for size in signature),
        dtype=np.dtype(detail["dtype"]).name,
        scale=float(scale) or None,
        zero_point=int(zero_point) if scale else None,
    )


def _quantize(array: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    dtype = np.dtype(detail["dtype"])
    scale, zero_point = detail["quantization"]
    if not np.issubdtype(dtype, np.integer):
        return np.ascontiguousarray(array, dtype)
    if scale:
        limits = np.iinfo(dtype)
        steps = np.round(array.astype(np.float32) / np.float32(scale)) + zero_point
        return np.clip(steps, limits.min, limits.max).astype(dtype)
    whole = array.astype(dtype)
    if not np.array_equal(whole, array):
        raise DataError(
            f"benchmark data for input '{detail['name']}' must be whole numbers in the range of {dtype}. "
            f"Received: values from {array.min()} to {array.max()}."
        )
    return whole


def _dequantize(array: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    scale, zero_point = detail["quantization"]
    return (array.astype(np.float32) - zero_point) * np.float32(scale) if scale else array
