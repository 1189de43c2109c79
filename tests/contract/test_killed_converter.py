"""A converter that is killed at work: told, and nothing of it left, neither files nor a process."""

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tfopt
from tfopt.errors import ExportError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

X = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)


def children() -> dict[int, str]:
    """The processes that this one has started and not yet waited for, dead ones too, with their command lines."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread of TensorFlow's has ended since
            for number in map(int, (task / "children").read_text().split()):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a process has
                    found[number] = Path(f"/proc/{number}/cmdline").read_text()
    return found


class Killer(threading.Thread):
    """Waits for a child whose command line has a certain word and that has loaded a certain library, and kills it."""

    def __init__(self, word: str, library: str) -> None:
        super().__init__(daemon=True)
        self.word, self.library = word, library
        self.killed: list[int] = []

    def run(self) -> None:
        deadline = time.monotonic() + 300
        while not self.killed and time.monotonic() < deadline:
            for child in [number for number, command in children().items() if self.word in command]:
                with contextlib.suppress(OSError):
                    if self.library in Path(f"/proc/{child}/maps").read_text():
                        os.kill(child, signal.SIGKILL)
                        self.killed.append(child)
            time.sleep(0.01)


@pytest.mark.parametrize(
    ("export", "name", "options", "process", "message"),
    [
        (
            "export_tflite",
            "model.tflite",
            {"quantization": "int8"},
            ("tfopt.export.conversion", "tensorflow"),
            r"The TFLite converter was ended by signal 9 \(Killed\), as systems do when memory runs out",
        ),
        (
            "export_onnx",
            "model.onnx",
            {"quantization": "int8"},
            ("tfopt.export.onnx_conversion", "tensorflow"),
            r"The ONNX converter was ended by signal 9 \(Killed\)",
        ),
        pytest.param(
            "export_ethos_u",
            "model.tflite",
            {},
            ("/bin/vela", "python"),
            r"Vela cannot compile .* it crashed \(SIGKILL\)",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["tflite", "onnx", "vela"],
)
def test_a_killed_converter_is_told_and_leaves_nothing(
    export: str,
    name: str,
    options: dict[str, Any],
    process: tuple[str, str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, temporary = tmp_path / "out", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    (folder / name).write_bytes(b"an older file")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    before = children()
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])
    killer = Killer(*process)
    killer.start()
    with pytest.raises(ExportError, match=message):
        getattr(tfopt, export)(model, folder / name, calibration=X, **options)
    killer.join()
    assert len(killer.killed) == 1
    assert children().keys() == before.keys()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {name: b"an older file"}
    assert list(temporary.glob("tfopt-*")) == []  # TensorFlow keeps files of its own there
