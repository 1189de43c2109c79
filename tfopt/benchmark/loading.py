"""The runner of a file."""

from __future__ import annotations

from collections.abc import Sequence

from tfopt.benchmark.candidates import Candidate
from tfopt.benchmark.runner import Runner
from tfopt.pruning.sparse_targets import Target

__all__ = ["load_runner"]


def load_runner(candidate: Candidate, threads: Sequence[int], *, target: Target | None = None) -> Runner:
    """Loads a file into the runtime that runs it.

    Args:
        candidate: the file.
        threads: thread counts to load it with, where the runtime can be told.
        target: what the report is about; "edge_tpu" adds to the note what the Edge TPU would run of a .tflite.

    Raises:
        BenchmarkError: if the file cannot be loaded or run.
        MissingExtraError: if the runtime is not installed.
    """
    # Each runtime is loaded where it is needed: a .tflite is measured without TensorFlow.
    if candidate.kind == "saved_model":
        from tfopt.benchmark.saved_model import SavedModelRunner

        return SavedModelRunner(candidate.path, record=candidate.record)
    if candidate.kind == "onnx":
        from tfopt.benchmark.onnx import OnnxRunner

        return OnnxRunner(candidate.path, threads, record=candidate.record)
    from tfopt.benchmark.edge_tpu import (
        EdgeTpuFileRunner,
        edge_tpu_delegate,
        edge_tpu_report,
        is_compiled_for_edge_tpu,
        predicted,
        verdict,
    )
    from tfopt.benchmark.tflite import TfliteRunner

    if is_compiled_for_edge_tpu(candidate.path):
        delegate = edge_tpu_delegate()
        if delegate is None:
            return EdgeTpuFileRunner(candidate.path)
        # A device takes one interpreter at a time, and its latency does not depend on the CPU's threads.
        runner = TfliteRunner(candidate.path, (1,), record=candidate.record, delegate=delegate)
        runner.target, runner.note = "edge_tpu", f"on the Edge TPU; {edge_tpu_report(candidate.path)}"
        return runner
    runner = TfliteRunner(candidate.path, threads, record=candidate.record, xnnpack=candidate.xnnpack)
    found = candidate.record.verification.get("edge_tpu") if candidate.record else None
    if found is not None or target == "edge_tpu":
        runner.note += f"; {verdict(found or predicted(candidate.path))}"
    return runner
