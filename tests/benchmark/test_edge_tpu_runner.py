"""Files for the Edge TPU: none is at hand, so nothing is timed, and what is known of the file is told."""

import shutil
import sys

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import tfopt
from tfopt.artifact import Artifact
from tfopt.benchmark import edge_tpu
from tfopt.benchmark.candidates import candidates
from tfopt.benchmark.edge_tpu import (
    EdgeTpuFileRunner,
    edge_tpu_delegate,
    edge_tpu_report,
    is_compiled_for_edge_tpu,
    predicted,
    verdict,
)
from tfopt.benchmark.loading import load_runner
from tfopt.errors import DataError
from tfopt.export.tflite_writer import pack_tflite, unpack_tflite

FOUND = {
    "source": "edgetpu_compiler 16.0",
    "operators": 3,
    "mapped_operators": 2,
    "subgraphs": 1,
    "cached_bytes": 4096,
    "streamed_bytes": 0,
    "on_cpu": {"ELU": "Operation not supported"},
}


@pytest.fixture
def compiled(files, tmp_path):
    """What the compiler would write: the first operator has become one of its own, the last stays on the CPU."""
    model = unpack_tflite(files.int8.read_bytes())
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode, code.version = b"edgetpu-custom-op", 1
    model.operatorCodes = [*model.operatorCodes, code]
    first = model.subgraphs[0].operators[0]
    first.opcodeIndex, first.builtinOptions, first.builtinOptionsType = len(model.operatorCodes) - 1, None, 0
    first.inputs = first.inputs[:1]
    path = tmp_path / "model_edgetpu.tflite"
    path.write_bytes(pack_tflite(model))
    return path


def test_compiled_files_are_told_from_others(files, compiled, tmp_path):
    assert is_compiled_for_edge_tpu(compiled)
    assert not is_compiled_for_edge_tpu(files.int8)
    (tmp_path / "damaged.tflite").write_bytes(compiled.read_bytes()[:100])
    assert not is_compiled_for_edge_tpu(tmp_path / "damaged.tflite")


def test_without_a_device_nothing_is_measured_and_the_report_says_why(files, compiled, monkeypatch, tmp_path):
    monkeypatch.setitem(edge_tpu.LIBRARIES, sys.platform, "libedgetpu-that-is-not-there.so")
    report = tfopt.benchmark([files.int8, compiled], (files.x, files.y), threads=[1], repeats=2, seconds=0.0)
    entry = report.entries[1]
    assert entry.kind == "tflite"
    assert entry.latencies == ()
    assert (entry.score, entry.peak_memory_bytes, entry.contents) == (None, None, None)
    assert entry.size_bytes == compiled.stat().st_size
    assert "not run: there is no Edge TPU or no libedgetpu-that-is-not-there.so" in entry.note
    assert "Edge TPU: 1 compiled subgraph(s), on the CPU: SOFTMAX" in entry.note
    assert "not inspected: what is compiled for the Edge TPU only that reads" in entry.note
    assert "not measured" in str(report)


def test_its_inputs_are_those_of_the_file(compiled, files):
    runner = EdgeTpuFileRunner(compiled)
    (spec,) = runner.inputs
    assert (spec.name, spec.shape, spec.dtype) == ("features", (1, 16), "int8")
    assert spec.scale == pytest.approx(2 / 255, rel=0.02)
    done = []
    assert runner.predict([files.x], done.append) is None
    assert done == [len(files.x)]
    assert runner.timed_calls([files.x[:1]]) == {}
    assert runner.operator_times(1) == ()
    with pytest.raises(DataError, match="inspect the file that was compiled"):
        runner.parts("edge_tpu")


def test_the_compilers_words_are_read_from_the_record_beside_it(compiled, files):
    source = compiled.with_name("model.tflite")
    shutil.copy(files.int8, source)
    Artifact.of(source, kind="tflite", inputs=(), outputs=(), verification={"edge_tpu": FOUND}).save()
    told = "Edge TPU (edgetpu_compiler 16.0): 2 of 3 operators, 4,096 bytes of parameters on chip, 0 streamed"
    assert edge_tpu_report(compiled).endswith(f"on the CPU: SOFTMAX; {told}; on the CPU: ELU")
    source.write_bytes(files.float32.read_bytes())  # another file by now
    assert edge_tpu_report(compiled).endswith("on the CPU: SOFTMAX")


def test_the_record_of_a_file_that_is_not_compiled_is_passed_on(files, tmp_path):
    path = tmp_path / "model.tflite"
    shutil.copy(files.int8, path)
    Artifact.of(path, kind="tflite", inputs=(), outputs=(), verification={"edge_tpu": FOUND}).save()
    (candidate,) = candidates(path)
    assert load_runner(candidate, (1,)).note == f"ai-edge-litert, XNNPACK; {verdict(FOUND)}"


def test_without_a_record_the_edge_tpu_is_predicted_where_it_is_the_target(files):
    (candidate,) = candidates(files.int8)
    told = load_runner(candidate, (1,), target="edge_tpu").note
    assert told.startswith("ai-edge-litert, XNNPACK; Edge TPU (predicted): 2 of 2 operators, ")
    assert "Edge TPU" not in load_runner(candidate, (1,)).note
    in_float = predicted(files.float32)
    assert in_float["mapped_operators"] == 0
    assert "FULLY_CONNECTED" in in_float["on_cpu"]


def test_with_a_device_the_file_runs_on_its_delegate(compiled, files, monkeypatch):
    """A stand-in for the device: the delegate is seen to arrive, and the file that was compiled answers."""
    given = []

    class OnDevice(sys.modules["ai_edge_litert.interpreter"].Interpreter):
        def __init__(self, model_path, experimental_delegates=None, **options):
            given.append((model_path, experimental_delegates))
            super().__init__(str(files.int8), **options)

    monkeypatch.setattr(edge_tpu, "edge_tpu_delegate", lambda: "the delegate")
    monkeypatch.setattr(sys.modules["tfopt.benchmark.tflite"], "Interpreter", OnDevice)
    (candidate,) = candidates(compiled)
    runner = load_runner(candidate, (1, 2))
    assert given == [(str(compiled), ["the delegate"])]
    assert list(runner.timed_calls([files.x[:1]])) == [1]
    assert runner.note.startswith("on the Edge TPU; Edge TPU: 1 compiled subgraph(s)")
    assert runner.target == "edge_tpu"
    assert runner.peak_memory_bytes is None
    assert runner.arena_bytes is None
    (outputs,) = runner.predict([files.x], [].append)
    assert np.mean(outputs.argmax(-1) == files.y) >= 0.95
    with pytest.raises(DataError, match="edgetpu-custom-op"):
        runner.operator_times(1)


def test_a_library_that_is_no_delegate_is_no_device(monkeypatch):
    monkeypatch.setitem(edge_tpu.LIBRARIES, sys.platform, "libedgetpu-that-is-not-there.so")
    assert edge_tpu_delegate() is None
