"""A converter's process: what is told of one that fails, crashes or hangs, and how samples reach it."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tfopt.errors import ExportError
from tfopt.export.converter_process import load_samples, run_converter


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Lets a shell script run in the interpreter's place."""
    executable = folder / "interpreter"
    executable.write_text(f"#!/bin/sh\n{script}\n")
    executable.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(executable))


def test_the_last_words_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, 'for i in $(seq 100); do echo "line $i"; done; echo; exit 7')
    with pytest.raises(ExportError, match="failed with code 7") as error:
        run_converter("module", [], name="The converter")
    assert str(error.value).endswith("\n  line 99\n  line 100")
    assert "line 50" not in str(error.value)


def test_a_crash_is_told_by_its_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, "kill -SEGV $$")
    with pytest.raises(ExportError, match=r"was ended by signal 11 \(Segmentation fault\)\. Its last words: \(none\)"):
        run_converter("module", [], name="The converter")


def test_a_converter_that_hangs_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_running: Callable[[int], bool]
) -> None:
    stand_in(tmp_path, monkeypatch, f"echo $$ > {tmp_path}/pid; echo at work; exec sleep 600")
    started = time.monotonic()
    with pytest.raises(ExportError, match=r"did not end within 1 s and was stopped\. Its last words: \n  at work"):
        run_converter("module", [], name="The converter", timeout_seconds=1.0)
    assert time.monotonic() - started < 30
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_arguments_and_samples_reach_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, f'echo "$1 $2 $3" > {tmp_path}/arguments; cp "$4" {tmp_path}/samples.npz')
    given = {"x": np.arange(6.0).reshape(2, 3), "a_scale": np.ones((2, 1), np.int32)}
    run_converter("module", ["first"], name="The converter", samples=given)
    assert (tmp_path / "arguments").read_text() == "-m module first\n"
    received = load_samples(tmp_path / "samples.npz")
    assert received.keys() == given.keys()
    for name, array in given.items():
        np.testing.assert_array_equal(received[name], array)


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    stand_in(tmp_path, monkeypatch, "exit 1")
    with pytest.raises(ExportError, match="The converter failed with code 1"):
        run_converter("module", [], name="The converter", samples={"x": np.zeros(3)})
    assert list(temporary.iterdir()) == []
