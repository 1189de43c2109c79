"""What goes wrong in practice ends with a clear error, and never with a half-written artifact."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tfopt
from tfopt.artifact import Artifact, record_path
from tfopt.callbacks import MagnitudePruning
from tfopt.errors import ConfigError, DataError, ModelError
from tfopt.export.tflite_file import read_tflite

X = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
Y = np.arange(200) % 3


def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((6,), name="x"), keras.layers.Dense(3, "softmax", name="y")], name="small")


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def nan_model() -> keras.Model:
    broken = model()
    broken.layers[0].bias.assign([0, np.inf, np.nan])
    return broken


USES: dict[str, Callable[[Any, Path], Any]] = {
    "optimize": lambda model, out: tfopt.optimize(model, (X, Y), (X, Y), out=out),
    "export_tflite": lambda model, out: tfopt.export_tflite(model, out / "model.tflite", calibration=X),
    "export_serving": lambda model, out: tfopt.export_serving(model, out, name="small", data=X),
    "quantize_aware": lambda model, out: tfopt.quantize_aware(model, calibration=X),
    "inspect": lambda model, out: tfopt.inspect(model),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (nan_model, "has NaN or infinite values. Training diverged: lower the learning rate"),
    ],
    ids=["nan"],
)
def test_a_model_that_is_not_sound(
    use: Callable[[Any, Path], Any], build: Callable[[], Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as error:
        use(build(), tmp_path / "out")
    assert message in str(error.value)
    assert files(tmp_path) == []


@pytest.mark.parametrize("damage", ["absent", "corrupt", "truncated"])
def test_a_model_file_that_is_absent_or_corrupt(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    if damage != "absent":
        model().save(path)
        content = path.read_bytes()
        path.write_bytes(content[:300] if damage == "truncated" else content[:300] + bytes(len(content) - 300))
    expected = "the file does not exist" if damage == "absent" else "the file is damaged"
    with pytest.raises(ModelError, match=expected):
        tfopt.optimize(path, (X, Y), (X, Y), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("use", ["export_tflite", "optimize", "quantize_aware"])
@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (X[:, :5], r"'x' must have shape \(n, 6\)\. Received: \(200, 5\)"),
        (X[:0], "'x' is empty: give at least one sample"),
    ],
    ids=["shape", "empty"],
)
def test_calibration_that_does_not_fit(use: str, samples: np.ndarray, message: str, tmp_path: Path) -> None:
    calls: dict[str, Callable[[], Any]] = {
        "export_tflite": lambda: tfopt.export_tflite(model(), tmp_path / "model.tflite", calibration=samples),
        "optimize": lambda: tfopt.optimize(model(), (samples, Y), (X, Y), out=tmp_path),
        "quantize_aware": lambda: tfopt.quantize_aware(model(), calibration=samples),
    }
    with pytest.raises(DataError, match=message):
        calls[use]()
    assert files(tmp_path) == []


def test_percent_where_a_fraction_is_meant() -> None:
    with pytest.raises(ConfigError) as error:
        MagnitudePruning(80, end_step=1000)
    assert "final_sparsity" in str(error.value)
    assert "[0, 1)" in str(error.value)
    assert "Received: 80" in str(error.value)
    assert "Did you mean 0.8" in str(error.value)


@pytest.mark.parametrize("use", ["export_tflite", "export_serving", "optimize"])
def test_a_folder_that_cannot_be_written(use: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigError, match=r"Cannot write .*file.*Choose another place"):
        USES[use](model(), tmp_path / "file" / "out")
    assert files(tmp_path) == [tmp_path / "file"]


@pytest.fixture
def optimization(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`tfopt optimize` at work on what no candidate can satisfy, so that it goes through all of them."""
    model().save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x_train=X, y_train=Y, x_test=X, y_test=Y)
    (tmp_path / "temporary").mkdir()
    arguments = [str(tmp_path / "model.keras"), "--data", str(tmp_path / "data.npz"), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-m", "tfopt", "optimize", *arguments, "--max-drop", "0"],
        # AutoGraph imports the sources it writes, and leaves their compiled files behind when it removes them.
        env={**os.environ, "TMPDIR": str(tmp_path / "temporary"), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield process
    process.kill()
    process.wait()


def converters(temporary: Path) -> list[int]:
    """The processes at work on something in the folder."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = command.read_text()
        except OSError:  # it has just ended
            continue
        if "tfopt.export.conversion" in words and str(temporary) in words:
            found.append(int(command.parent.name))
    return found


def wait_until(condition: Callable[[], Any], seconds: float = 300.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    ("end", "moment"),
    [
        (signal.SIGTERM, "first conversion"),
        (signal.SIGTERM, "second conversion"),
        (signal.SIGKILL, "first file"),
        (signal.SIGKILL, "second conversion"),
    ],
)
def test_a_killed_run_leaves_nothing_half_written(
    optimization: subprocess.Popen[bytes], tmp_path: Path, end: signal.Signals, moment: str
) -> None:
    out, temporary = tmp_path / "out", tmp_path / "temporary"
    if moment == "first conversion":
        assert wait_until(lambda: converters(temporary))
    else:
        assert wait_until(lambda: (out / "candidates" / "float32.tflite").exists())
    if moment == "second conversion":
        assert wait_until(lambda: converters(temporary))
    assert optimization.poll() is None
    optimization.send_signal(end)
    optimization.wait(timeout=60)

    assert wait_until(lambda: not converters(temporary), seconds=20)
    for path in out.rglob("*.tflite"):
        assert read_tflite(path).operators
        if record_path(path).exists():  # it is renamed after the file, and the run may have ended between the two
            assert Artifact.load(path).size_bytes == path.stat().st_size
    if moment != "first conversion":
        assert (out / "candidates" / "float32.tflite").exists()
    if end == signal.SIGTERM:
        assert [path for path in out.rglob("*") if path.suffix == ".partial"] == []
        assert list(temporary.iterdir()) == []


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.usefixtures("conversion_in_this_process")
def test_a_run_after_a_killed_one_succeeds(optimization: subprocess.Popen[bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert wait_until(lambda: converters(tmp_path / "temporary"))
    optimization.kill()
    optimization.wait()
    result = tfopt.optimize(tmp_path / "model.keras", (X, Y), (X, Y), out=out, max_drop=0.9)
    assert Artifact.load(out / "model.tflite") == result.artifact
    assert [path for path in out.rglob("*") if path.suffix == ".partial"] == []
