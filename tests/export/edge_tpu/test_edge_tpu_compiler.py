"""edgetpu_compiler is in no package registry: a stand-in on PATH prints a log in the format of version 16."""

import os
import time
from pathlib import Path

import pytest

from tfopt.errors import ExportError
from tfopt.export.edge_tpu.compiler import OperatorStatus, compile_for_edge_tpu

LOG = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 1234 ms.

Input model: model.tflite
Input size: 3.43MiB
Output model: model_edgetpu.tflite
Output size: 3.58MiB
On-chip memory used for caching model parameters: 3.33MiB
On-chip memory remaining for caching model parameters: 4.36MiB
Off-chip memory used for streaming uncached model parameters: 21.75KiB
Number of Edge TPU subgraphs: 1
Total number of operations: 40
Operation log: model_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of the model will \
instead run on the CPU, which is slower. If possible, consider updating your model to use only operations supported \
by the Edge TPU. For details, visit g.co/coral/model-reqs.
Number of operations that will run on Edge TPU: 36
Number of operations that will run on CPU: 4
See the operation log file for individual operation details.

Operator                       Count      Status

CONV_2D                        35         Mapped to Edge TPU
CONV_2D                        2          More than one subgraph is not supported
UNIDIRECTIONAL_SEQUENCE_LSTM   1          Mapped to Edge TPU
DEQUANTIZE                     1          Operation is working on an unsupported data type
QUANTIZE                       1          Operation is otherwise supported, but not mapped due to some unspecified \
limitation
Compilation child process completed within timeout period.
Compilation succeeded!
"""
WRITES = 'while [ "$1" != "-o" ]; do shift; done; echo compiled > "$2/model_edgetpu.tflite"'


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"TFL3")
    return path


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a shell script on PATH under the compiler's name."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def install(script: str, log: str = LOG) -> None:
        (folder / "log.txt").write_text(log)
        executable = folder / "edgetpu_compiler"
        executable.write_text(f'#!/bin/sh\ncat "{folder}/log.txt"\n{script}\n')
        executable.chmod(0o755)

    return install


def test_the_log_is_read(stand_in, model, tmp_path):
    stand_in(WRITES)
    compilation = compile_for_edge_tpu(model, tmp_path / "out" / "compiled.tflite")
    assert compilation.path.read_text() == "compiled\n"
    assert compilation.version == "16.0.384591198"
    assert compilation.operators == (
        OperatorStatus("CONV_2D", 35, "Mapped to Edge TPU"),
        OperatorStatus("CONV_2D", 2, "More than one subgraph is not supported"),
        OperatorStatus("UNIDIRECTIONAL_SEQUENCE_LSTM", 1, "Mapped to Edge TPU"),
        OperatorStatus("DEQUANTIZE", 1, "Operation is working on an unsupported data type"),
        OperatorStatus(
            "QUANTIZE",
            1,
            "Operation is otherwise supported, but not mapped due to some unspecified limitation",
        ),
    )
    assert (compilation.mapped_count, compilation.operator_count, compilation.subgraphs) == (36, 40, 1)
    assert compilation.cached_bytes == round(3.33 * 2**20)
    assert compilation.remaining_bytes == round(4.36 * 2**20)
    assert compilation.streamed_bytes == 22272
    text = str(compilation)
    assert text.startswith("Edge TPU, compiled by edgetpu_compiler 16.0.384591198: 36 of 40 operators run on it")
    assert "DEQUANTIZE                        1  Operation is working on an unsupported data type" in text
    assert "predicted" not in text


def test_absence_is_none(model, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compile_for_edge_tpu(model, tmp_path / "compiled.tflite") is None


@pytest.mark.parametrize(
    ("script", "log", "message"),
    [
        (
            "exit 1",
            "ERROR: Didn't find op for builtin opcode 'GELU' version '1'\n\nCompilation failed!\n",
            r"edgetpu_compiler failed on .*model\.tflite\. Its last words: \n  ERROR: Didn't find op.*\n  Compilation",
        ),
        ("kill -SEGV $$", "", r"crashed \(SIGSEGV\).*\(none\)"),
        ("exit 0", LOG, "wrote no compiled file"),
        (WRITES, LOG.replace("CONV_2D                        35", "CONV_2D                        30"), "not complete"),
        (WRITES, LOG.replace("Number of Edge TPU subgraphs: 1\n", ""), "not that of version 16"),
        (WRITES, LOG.replace("On-chip memory remaining", "On-chip memory"), "does not tell 'On-chip memory remaining"),
    ],
)
def test_failures_are_errors_and_write_nothing(stand_in, model, tmp_path, script, log, message):
    stand_in(script, log)
    with pytest.raises(ExportError, match=message):
        compile_for_edge_tpu(model, tmp_path / "compiled.tflite")
    assert {path.name for path in tmp_path.iterdir()} == {"bin", "model.tflite"}


def test_a_compiler_that_hangs_is_stopped_with_its_children(stand_in, model, tmp_path):
    stand_in(f"sleep 60 & echo $! > {tmp_path}/child; wait", "Started a compilation timeout timer of 180 seconds.\n")
    with pytest.raises(ExportError, match=r"did not end within 1 s and was stopped.*\n  Started a compilation"):
        compile_for_edge_tpu(model, tmp_path / "compiled.tflite", timeout_seconds=1)
    child = Path("/proc", (tmp_path / "child").read_text().strip())
    for _ in range(100):
        if not child.exists() or "\nState:\tZ" in (child / "status").read_text():
            break
        time.sleep(0.02)
    else:
        pytest.fail("the compiler's child still runs")
    assert not (tmp_path / "compiled.tflite").exists()
