"""Running a .tflite file on ai-edge-litert; TensorFlow is not needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tfopt.artifact import Artifact, TensorSpec
from tfopt.benchmark.fresh_process import peak_memory_in_fresh_process
from tfopt.benchmark.measurements import OperatorTime
from tfopt.benchmark.runner import fitted, random_samples, refused_sample
from tfopt.benchmark.tensor_arena import arena_bytes
from tfopt.benchmark.tflite_operators import operator_times
from tfopt.errors import BenchmarkError, DataError, first_line
from tfopt.export.tflite_file import read_tflite
from tfopt.inspection_file import tflite_parts
from tfopt.inspection_table import Part
from tfopt.pruning.sparse_targets import Target

__all__ = ["TfliteRunner"]


class TfliteRunner:
    """A .tflite file, loaded once for each thread count.

    It is tried in a process of its own first, where its peak memory is measured and where a damaged file can
    do no harm.

    Args:
        path: the file.
        threads: thread counts to load it with.
        record: what the exporter wrote beside it; gives the order of several inputs.
        xnnpack: whether the XNNPACK delegate computes what it can, as it does by default; else TFLite's own kernels do.
        delegate: of a device, as `ai_edge_litert.interpreter.load_delegate` returns it, for a file that needs one;
            with it there is one thread count, and no process of its own.

    Raises:
        BenchmarkError: if the file cannot be loaded or run, has operators that TFLite lacks, or does not take one
            sample at a time.
    """

    target: Target = "tflite"

    def __init__(
        self,
        path: Path,
        threads: Sequence[int],
        *,
        record: Artifact | None = None,
        xnnpack: bool = True,
        delegate: Any = None,
    ) -> None:
        try:
            read_tflite(path)  # the runtime takes for granted that the parts of a file fit each other
        except DataError as error:
            raise _cannot_run(path, str(error)) from None
        self.path, self.xnnpack = path, xnnpack
        self.note = f"ai-edge-litert, {'XNNPACK' if xnnpack else 'without XNNPACK'}"
        self.peak_memory_bytes: int | None = None
        if delegate is None:
            self.peak_memory_bytes = peak_memory_in_fresh_process(
                path, lambda reason: _cannot_run(path, reason), xnnpack=xnnpack
            )
        self._interpreters: dict[int, Any] = {
            count: _load(path, count, xnnpack=xnnpack, delegate=delegate) for count in threads
        }
        self._predictor = self._interpreters[max(threads)]
        details = _named_input_details(self._predictor)
        ordered = [spec.name for spec in record.inputs] if record else []
        self._details = {name: details[name] for name in (ordered if set(ordered) == set(details) else details)}
        self.inputs = tuple(_spec(name, detail) for name, detail in self._details.items())
        for spec in self.inputs:
            if spec.dtype not in np.sctypeDict:
                raise BenchmarkError(
                    f"{path}: expected inputs of numbers. Received: input '{spec.name}' of {spec.dtype}. Export the "
                    "model without the layers that turn it into numbers."
                )
            if len(spec.shape) == 0 or spec.shape[0] not in (None, 1):
                raise BenchmarkError(
                    f"{path}: expected a file that takes one sample at a time. Received: input "
                    f"'{spec.name}' of shape {list(spec.shape)}. Export it with batch size 1."
                )

    def timed_calls(self, sample: list[np.ndarray]) -> dict[int | None, Callable[[], object]]:
        """`invoke` with the sample in place, for each thread count; each is called once."""
        for interpreter in self._interpreters.values():
            self._set(interpreter, sample)
            self._invoke(interpreter, 0)
        return {count: interpreter.invoke for count, interpreter in self._interpreters.items()}

    def predict(self, samples: list[np.ndarray], advance: Callable[[int], None]) -> list[np.ndarray]:
        """The outputs of all samples, one after the other, dequantized."""
        outputs = self._predictor.get_output_details()
        rows: list[list[np.ndarray]] = [[] for _ in outputs]
        for index in range(len(samples[0])):
            self._set(self._predictor, [array[index : index + 1] for array in samples])
            self._invoke(self._predictor, index)
            for row, detail in zip(rows, outputs, strict=True):
                row.append(_dequantize(self._predictor.get_tensor(detail["index"]), detail))
            advance(1)
        return [np.concatenate(row) for row in rows]

    def parts(self, target: Target) -> tuple[Part, ...]:
        """The operators."""
        return tflite_parts(read_tflite(self.path), target)

    @cached_property
    def arena_bytes(self) -> int | None:
        """Memory that the tensors share in TFLite's own kernels; see `tfopt.benchmark.tensor_arena`."""
        return arena_bytes(self.path)

    def operator_times(self, threads: int, sample: list[np.ndarray] | None = None) -> tuple[OperatorTime, ...]:
        """The time of each operator; see `tfopt.benchmark.tflite_operators` for what it means."""
        values = {
            detail["index"]: _quantize(array, detail, name)
            for array, (name, detail) in zip(sample or random_samples(self.inputs), self._details.items(), strict=True)
        }
        ordered = [values[detail["index"]] for detail in self._predictor.get_input_details()]
        return operator_times(self.path, ordered, threads=threads, xnnpack=self.xnnpack)

    def _set(self, interpreter: Any, sample: list[np.ndarray]) -> None:
        for array, (name, detail) in zip(sample, self._details.items(), strict=True):
            interpreter.set_tensor(detail["index"], _quantize(array, detail, name))

    def _invoke(self, interpreter: Any, sample: int) -> None:
        try:
            interpreter.invoke()
        except RuntimeError as error:  # it has run on zeros, so the values of the sample are to blame
            raise refused_sample(self.path, sample, runtime="ai-edge-litert", said=first_line(error)) from None


def _cannot_run(path: Path, reason: str) -> BenchmarkError:
    if "unresolved custom op" in reason or "Select TensorFlow op" in reason:
        missing = ", ".join(_custom_operators(path)) or reason
        return BenchmarkError(
            f"Cannot run {path}: expected operators that TensorFlow Lite has. Received the custom operators: "
            f"{missing}. They run only where a library with them is linked in. Export the model without them: "
            "tfopt.export_tflite."
        )
    return BenchmarkError(
        f"Cannot run {path}: expected a TensorFlow Lite model that ai-edge-litert can load and run. "
        f"Received: {' '.join(reason.split()).rstrip('.')}. Check that the file is whole, or export it again."
    )


def _custom_operators(path: Path) -> list[str]:
    try:
        names = [operator.name for operator in read_tflite(path).operators]
    except DataError:
        return []
    return [name.removeprefix("CUSTOM ") for name in dict.fromkeys(names) if name.startswith("CUSTOM ")]


def _load(path: Path, threads: int, *, xnnpack: bool, delegate: Any) -> Any:
    resolver = OpResolverType.AUTO if xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        interpreter = Interpreter(
            str(path),
            num_threads=threads,
            experimental_op_resolver_type=resolver,
            experimental_delegates=None if delegate is None else [delegate],
        )
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


def _quantize(array: np.ndarray, detail: dict[str, Any], name: str) -> np.ndarray:
    dtype = np.dtype(detail["dtype"])
    scale, zero_point = detail["quantization"]
    if scale and np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        steps = np.round(array.astype(np.float32) / np.float32(scale)) + zero_point
        return np.clip(steps, limits.min, limits.max).astype(dtype)
    return fitted(array, dtype.name, name=name)


def _dequantize(array: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    scale, zero_point = detail["quantization"]
    return (array.astype(np.float32) - zero_point) * np.float32(scale) if scale else array
