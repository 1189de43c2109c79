"""Running an .onnx file on ONNX Runtime, on the CPU."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tfopt.artifact import Artifact, TensorSpec
from tfopt.benchmark.fresh_process import peak_memory_in_fresh_process
from tfopt.benchmark.measurements import OperatorTime
from tfopt.benchmark.runner import fitted, random_samples, refused_sample
from tfopt.errors import BenchmarkError, DataError, MissingExtraError, first_line
from tfopt.export.onnx_file import read_onnx
from tfopt.inspection_file import onnx_parts
from tfopt.inspection_table import Part
from tfopt.pruning.sparse_targets import Target

__all__ = ["OnnxRunner"]

PREDICTION_BATCH = 256
PROFILED_CALLS = 50
UNRECORDED_CALLS = 10
QUIET = 4
"""Of ONNX Runtime's log levels, that which tells nothing but a crash: what fails is told by an exception."""
CPU = "CPUExecutionProvider"
UNKNOWN_OPERATOR = "is not a registered function/op"
OWN_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
DTYPES = {"float": "float32", "double": "float64"}
"""ONNX Runtime's names that are not NumPy's."""


class OnnxRunner:
    """An .onnx file, loaded once for each thread count.

    It is tried in a process of its own first, where its peak memory is measured and where a damaged file can
    do no harm. The threads are those within an operator; operators run one after the other.

    Args:
        path: the file.
        threads: thread counts to load it with.
        record: what the exporter wrote beside it; gives the order of several inputs.

    Raises:
        MissingExtraError: if ONNX Runtime is not installed.
        BenchmarkError: if the file cannot be loaded or run, has operators that ONNX Runtime lacks, or does not take
            one sample at a time.
    """

    target: Target = "onnx"
    # ONNX Runtime does not tell how much of its arena the tensors of an inference take.
    arena_bytes: int | None = None

    def __init__(self, path: Path, threads: Sequence[int], *, record: Artifact | None = None) -> None:
        if find_spec("onnxruntime") is None:
            raise MissingExtraError("Running an .onnx file", extra="onnx")
        self.path = path
        self.note = f"ONNX Runtime {version('onnxruntime')}, CPU"
        self.peak_memory_bytes = peak_memory_in_fresh_process(path, lambda reason: _cannot_run(path, reason))
        self._sessions = {count: _load(path, count) for count in threads}
        self._predictor = self._sessions[max(threads)]
        given = {value.name: value for value in self._predictor.get_inputs()}
        ordered = [spec.name for spec in record.inputs] if record else []
        names = ordered if set(ordered) == set(given) else list(given)
        self.inputs = tuple(_spec(given[name], path) for name in names)
        self._outputs = [value.name for value in self._predictor.get_outputs()]

    def timed_calls(self, sample: list[np.ndarray]) -> dict[int | None, Callable[[], object]]:
        """A run with input and output in place, for each thread count; each is called once."""
        import onnxruntime

        calls: dict[int | None, Callable[[], object]] = {}
        for count, session in self._sessions.items():
            binding = session.io_binding()
            for name, array in self._feeds(sample).items():
                binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
            for name in self._outputs:
                binding.bind_output(name, "cpu")
            self._checked(session.run_with_iobinding, binding, sample=0)
            calls[count] = lambda session=session, binding=binding: session.run_with_iobinding(binding)  # type: ignore[misc]
        return calls

    def predict(self, samples: list[np.ndarray], advance: Callable[[int], None]) -> list[np.ndarray]:
        """The outputs of all samples, in batches where the file takes them."""
        size = PREDICTION_BATCH if all(spec.shape[0] is None for spec in self.inputs) else 1
        batches = []
        for begin in range(0, len(samples[0]), size):
            feeds = self._feeds([array[begin : begin + size] for array in samples])
            batches.append(self._checked(self._predictor.run, self._outputs, feeds, sample=begin))
            advance(min(size, len(samples[0]) - begin))
        return [np.concatenate(parts) for parts in zip(*batches, strict=True)]

    def parts(self, target: Target) -> tuple[Part, ...]:
        """The operators, as the file has them."""
        return onnx_parts(read_onnx(self.path), target)

    def operator_times(self, threads: int, sample: list[np.ndarray] | None = None) -> tuple[OperatorTime, ...]:
        """What ONNX Runtime's own profiler tells of 50 calls: the mean of the middle half, for each node.

        They are the nodes after its optimizations: those that it fused bear the names that it gave them.
        """
        feeds = self._feeds(sample or random_samples(self.inputs))
        calls = UNRECORDED_CALLS + PROFILED_CALLS
        with tempfile.TemporaryDirectory(prefix="tfopt-onnx-") as folder:
            session = _load(self.path, threads, profile=Path(folder, "profile"))
            for _ in range(calls):
                self._checked(session.run, self._outputs, feeds, sample=0)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        durations_us: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                node = event["name"].removesuffix("_kernel_time")
                durations_us[node, event["args"]["op_name"]].append(event["dur"])
        times = []
        for (node, kind), durations in durations_us.items():
            # A node within a loop runs several times in a call, as often in each, for the sample is the same.
            by_call = np.sort(np.reshape(durations, (calls, -1))[UNRECORDED_CALLS:].sum(axis=1))
            middle = by_call[PROFILED_CALLS // 4 : -(PROFILED_CALLS // 4)]
            times.append(OperatorTime(name=node, kind=kind, time_ms=float(middle.mean()) / 1e3))
        return tuple(times)

    def _feeds(self, sample: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        return {
            spec.name: fitted(array, spec.dtype, name=spec.name)
            for array, spec in zip(sample, self.inputs, strict=True)
        }

    def _checked(self, run: Callable[..., Any], *arguments: Any, sample: int) -> Any:
        try:
            return run(*arguments)
        except Exception as error:  # it has a dozen of its own, all of them plain exceptions
            raise refused_sample(self.path, sample, runtime="ONNX Runtime", said=first_line(error)) from None


def _load(path: Path, threads: int, *, profile: Path | None = None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = QUIET
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    try:
        return onnxruntime.InferenceSession(path, options, providers=[CPU])
    except Exception as error:  # as above
        raise _cannot_run(path, first_line(error)) from None


def _custom_operators(path: Path) -> list[str]:
    try:
        operators = read_onnx(path).operators
    except DataError:
        return []
    return list(dict.fromkeys(f"{one.domain}:{one.name}" for one in operators if one.domain not in OWN_DOMAINS))


def _spec(given: Any, path: Path) -> TensorSpec:
    dtype = given.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) else None for size in given.shape)
    dtype = DTYPES.get(dtype, dtype)
    if dtype not in np.sctypeDict or not shape or shape[0] not in (None, 1):
        raise BenchmarkError(
            f"{path}: expected a file that takes numbers, one sample at a time or any number of them. Received: input "
            f"'{given.name}' of {given.type} and shape {list(given.shape)}. Export it with an open batch, as "
            "tfopt.export_onnx does."
        )
    return TensorSpec(name=given.name, shape=shape, dtype=dtype)


def _cannot_run(path: Path, reason: str) -> BenchmarkError:
    if UNKNOWN_OPERATOR in reason:
        return BenchmarkError(
            f"Cannot run {path}: expected operators that ONNX Runtime has. Received the custom operators: "
            f"{', '.join(_custom_operators(path)) or reason}. They run only where a library with them is registered. "
            "Export the model without them, as tfopt.export_onnx does."
        )
    return BenchmarkError(
        f"Cannot run {path}: expected an ONNX model that ONNX Runtime can load and run. "
        f"Received: {' '.join(reason.split()).rstrip('.')}. Check that the file is whole, or export it again."
    )
