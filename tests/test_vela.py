"""Vela's process: how accelerators are named, what its log says, and how its failures are told."""

from pathlib import Path

import pytest

from tfopt import vela
from tfopt.errors import ConfigError, ExportError, MissingExtraError
from tfopt.vela import Accelerator, accelerator_of, compile_with_vela

U55 = Accelerator("ethos-u55-128", "system", "mode")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Lets a shell script run in Vela's place; $FOLDER is where it is to write."""

    def set_script(script: str) -> Path:
        executable, folder = tmp_path / "vela", tmp_path / "out"
        folder.mkdir()
        executable.write_text(f"#!/bin/sh\nFOLDER={folder}\n{script}\n")
        executable.chmod(0o755)
        monkeypatch.setattr(vela, "_vela", lambda: executable)
        return folder

    return set_script


def compiled(tmp_path: Path, folder: Path, **options: float):
    return compile_with_vela(tmp_path / "model.tflite", U55, folder, **options)


@pytest.mark.parametrize("name", ["ethos-u55-128", "ethos_u55_128"])
def test_a_name_has_one_form(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(vela, "_vela", lambda: Path("vela"))
    expected = Accelerator("ethos-u55-128", "Ethos_U55_High_End_Embedded", "Shared_Sram")
    assert accelerator_of(name, argument="target") == expected


@pytest.mark.parametrize("name", ["ethos-u55", "ethos-u55-512", "u55-128", "", None, 55])
def test_an_unknown_accelerator_is_refused(name: object) -> None:
    with pytest.raises(ConfigError, match=r"target must be one of ethos-u55-32, .*Received: "):
        accelerator_of(name, argument="target")  # type: ignore[arg-type]


def test_an_absent_compiler_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(vela.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(MissingExtraError, match=r"The Ethos-U compiler Vela needs the extra 'edge'"):
        accelerator_of("ethos-u55-128", argument="target")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("kill -FPE $$", r"for ethos-u55-128: .* Received: it crashed \(SIGFPE\)\."),
        ("echo at work; echo 'Error: no such tensor.' >&2; exit 1", "Received: Error: no such tensor"),
        ("exit 3", "Received: exit status 3"),
        ("echo done", "expected a compiled file and a summary. Received: done"),
        ("exec sleep 60", "did not end within 1 s and was stopped"),
    ],
    ids=["crash", "failure", "silent failure", "no files", "hangs"],
)
def test_a_failure_is_told(stand_in, tmp_path: Path, script: str, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        compiled(tmp_path, stand_in(script), timeout_seconds=1.0)


def test_a_log_of_another_version_is_refused(stand_in, tmp_path: Path) -> None:
    folder = stand_in(
        "echo x > $FOLDER/m_vela.tflite\n"
        "printf 'inference_time,cycles_total,sram_memory_used\\n0.5,100,2\\n' > $FOLDER/m_summary_s.csv"
    )
    with pytest.raises(ExportError, match="does not tell how many operators run on the NPU"):
        compiled(tmp_path, folder)


def test_the_log_and_the_summary_are_read(stand_in, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vela, "version", lambda name: "5.2.0")
    folder = stand_in(
        "cat << 'END'\n"
        "Warning: No configuration file specified.\n\n"
        "Warning (supported operators) operator: NEG, ofm: 'norm/it's;x'\n"
        "Reason: Operation has tensor with unsupported DataType Float32 (y)\n"
        "Feature-map dataTypes must be INT8\n\n"
        "Warning (supported operators) operator: DEQUANTIZE, ofm: 'tfl.dequantize'\n"
        "Reason: Unsupported opType\n\n"
        "CPU operators = 2 (20.0%)\nNPU operators = 8 (80.0%)\n"
        "END\n"
        "echo x > $FOLDER/m_vela.tflite\n"
        "printf 'inference_time,cycles_total,sram_memory_used\\n0.5,100.0,2.5\\n' > $FOLDER/m_summary_s.csv"
    )
    found = compiled(tmp_path, folder)
    assert found.path == folder / "m_vela.tflite"
    assert found.source == "ethos-u-vela 5.2.0, system, mode"
    assert (found.latency_ms, found.cycles, found.sram_bytes) == (500.0, 100, 2560)
    assert (found.accelerator_operators, found.cpu_operators) == (8, 2)
    assert found.reasons == {
        "norm/it's;x": "Operation has tensor with unsupported DataType Float32 (y); Feature-map dataTypes must be INT8",
        "tfl.dequantize": "Unsupported opType",
    }
