"""The TFLite converter's process: what it says when it fails, and that it never outlives who started it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tfopt.errors import ExportError
from tfopt.export.conversion import convert_saved_model


def wait_until(condition, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.slow
def test_a_failing_converter_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "saved_model").mkdir()
    with pytest.raises(ExportError) as error:
        convert_saved_model(tmp_path / "saved_model", tmp_path / "model.tflite", quantization="none")
    assert "The TFLite converter failed with code 1. Its last words:" in str(error.value)
    assert "SavedModel file does not exist" in str(error.value)
    assert not (tmp_path / "model.tflite").exists()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_converter_ends_with_its_parent(
    tmp_path: Path, end: signal.Signals, is_running: Callable[[int], bool]
) -> None:
    saved_model, temporary = tmp_path / "saved_model", tmp_path / "temporary"
    saved_model.mkdir()
    temporary.mkdir()
    os.mkfifo(saved_model / "saved_model.pb")  # nobody writes to it: the converter would wait for ever
    program = (
        "import signal\n"
        "from pathlib import Path\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "from tfopt.export.conversion import convert_saved_model\n"
        f"convert_saved_model(Path({str(saved_model)!r}), Path({str(tmp_path / 'a.tflite')!r}), quantization='none')\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.DEVNULL,
    )
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    assert wait_until(lambda: parent.poll() is not None or children.read_text().strip())
    child = int(children.read_text().split()[0])
    try:
        command = Path(f"/proc/{child}/cmdline")
        assert wait_until(lambda: "tfopt.export.conversion" in command.read_text())
        parent.send_signal(end)
        parent.wait()
        assert wait_until(lambda: not is_running(child))
    finally:
        parent.kill()
        if is_running(child):
            os.kill(child, signal.SIGKILL)
    if end == signal.SIGINT:  # Python's own way out: the temporary files go as well
        assert list(temporary.iterdir()) == []
