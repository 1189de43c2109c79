"""The command line: every command does what its function does, and an error is one message and exit code 1."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest

from tfopt.artifact import Artifact
from tfopt.cli import main
from tfopt.export.onnx_file import read_onnx
from tfopt.export.tflite_file import read_tflite
from tfopt.recipe import FineTuning, Recipe

pytestmark = pytest.mark.usefixtures("conversion_in_this_process")

COMMANDS = ("demo", "optimize", "export", "benchmark", "inspect", "migrate", "serve", "tune-batching")


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def tfopt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Ended]]:
    """Runs the command line in this process."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")

    def run(*arguments: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["tfopt", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return Ended(end.value.code, *capsys.readouterr())

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model.keras and its data.npz."""
    folder = tmp_path_factory.mktemp("cli")
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)
    y = (x @ np.random.default_rng(1).normal(size=(4, 3))).argmax(-1)
    model = keras.Sequential(
        [keras.Input((4,), name="x"), keras.layers.Dense(16, "relu"), keras.layers.Dense(3, "softmax", name="scores")],
        name="small",
    )
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    model.fit(x[:300], y[:300], epochs=5, verbose=0)
    model.save(folder / "model.keras")
    np.savez(folder / "data.npz", x_train=x[:300], y_train=y[:300], x_test=x[300:], y_test=y[300:])
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(tfopt: Callable[..., Ended], command: str) -> None:
    ended = tfopt(command, "--help")
    assert (ended.code, ended.err) == (0, "")
    assert f"tfopt {command}" in ended.out
    assert command in tfopt("--help").out


@pytest.mark.slow
def test_inspect_shows_layers(tfopt: Callable[..., Ended], folder: Path) -> None:
    ended = tfopt("inspect", folder / "model.keras")
    assert (ended.code, ended.err) == (0, "")
    assert "scores" in ended.out
    assert "131 weights, " in ended.out


@pytest.mark.slow
def test_export_writes_a_tflite_file(tfopt: Callable[..., Ended], folder: Path, tmp_path: Path) -> None:
    ended = tfopt("export", folder / "model.keras", "--data", folder / "data.npz", "--out", tmp_path)
    assert ended.code == 0
    assert str(tmp_path / "model.tflite") in ended.out
    assert "full_integer=True" in ended.out
    assert Artifact.load(tmp_path / "model.tflite").recipe["quantization"] == "int8"
    inspected = tfopt("inspect", tmp_path / "model.tflite")
    assert inspected.code == 0
    assert "full integer: no operator, input or output is floating-point" in inspected.out
    assert "FULLY_CONNECTED" in inspected.out


@pytest.mark.slow
def test_export_takes_a_quantization(tfopt: Callable[..., Ended], folder: Path, tmp_path: Path) -> None:
    assert tfopt("export", folder / "model.keras", "--out", tmp_path, "--quantization", "none").code == 0
    assert not read_tflite(tmp_path / "model.tflite").is_full_integer


@pytest.mark.slow
def test_export_puts_labels_into_the_file(tfopt: Callable[..., Ended], folder: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("one\ntwo\nthrée\n", encoding="utf-8")
    options = ("--quantization", "none", "--labels", labels)
    assert tfopt("export", folder / "model.keras", "--out", tmp_path, *options).code == 0
    assert "3 labels of scores: one, two, thrée" in tfopt("inspect", tmp_path / "model.tflite").out


def test_export_lists_its_presets(tfopt: Callable[..., Ended]) -> None:
    ended = tfopt("export", "--list-presets")
    assert ended.code == 0
    assert "int8_float_io     int8     int8           float32" in ended.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "told"), [("edge-tpu", "Edge TPU, predicted (not compiled): 3 of 3"), ("ethos-u", "estimated")]
)
def test_export_for_an_accelerator_tells_what_it_runs(
    format: str, told: str, tfopt: Callable[..., Ended], folder: Path, tmp_path: Path
) -> None:
    data = folder / "data.npz"
    ended = tfopt("export", folder / "model.keras", "--out", tmp_path, "--data", data, "--format", format)
    assert ended.code == 0
    assert told in ended.out
    assert Artifact.load(tmp_path / "model.tflite").verification["full_integer"] is True


def test_export_writes_a_serving_folder(tfopt: Callable[..., Ended], folder: Path, tmp_path: Path) -> None:
    options = ("--format", "serving", "--name", "ranker", "--version", "7", "--data", folder / "data.npz")
    ended = tfopt("export", folder / "model.keras", "--out", tmp_path, *options)
    assert ended.code == 0
    assert Artifact.load(tmp_path / "ranker" / "7").outputs[0].name == "scores"
    assert "ranker" in (tmp_path / "models.config").read_text()


def test_export_writes_an_onnx_file(tfopt: Callable[..., Ended], folder: Path, tmp_path: Path) -> None:
    ended = tfopt("export", folder / "model.keras", "--out", tmp_path, "--format", "onnx")
    assert ended.code == 0
    assert f"onnx {tmp_path / 'model.onnx'}" in ended.out
    assert read_onnx(tmp_path / "model.onnx").opset == 15


@pytest.mark.slow
def test_benchmark_measures_and_reports(tfopt: Callable[..., Ended], folder: Path, tmp_path: Path) -> None:
    tfopt("export", folder / "model.keras", "--out", tmp_path, "--quantization", "none")
    ended = tfopt("benchmark", tmp_path / "model.tflite", "--data", folder / "data.npz", "--out", tmp_path / "report")
    assert ended.code == 0
    assert str(tmp_path / "report" / "report.html") in ended.out
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [entry["name"] for entry in report["entries"]] == ["model"]
    assert "<html" in (tmp_path / "report" / "report.html").read_text()


@pytest.mark.slow
def test_optimize_writes_what_it_chose(tfopt: Callable[..., Ended], folder: Path, tmp_path: Path) -> None:
    recipe = Recipe(fine_tuning=FineTuning(epochs=1)).save(tmp_path / "recipe.yaml")
    data, out = folder / "data.npz", tmp_path / "out"
    ended = tfopt(
        "optimize", folder / "model.keras", "--data", data, "--out", out, "--max-drop", "0.5", "--recipe", recipe
    )
    assert ended.code == 0
    assert Artifact.load(out / "model.tflite").verification["full_integer"] is True
    assert f"Chosen: {out / 'model.tflite'}" in ended.out
    assert f"Report: {out / 'report.html'}" in ended.out
    assert "recipe: It loses" in ended.out


@pytest.mark.slow
def test_a_budget_that_is_not_reached_has_an_exit_code(
    tfopt: Callable[..., Ended], folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ended = tfopt(
        "optimize", folder / "model.keras", "--data", folder / "data.npz", "--out", out, "--max-drop", "0.5",
        "--budget", "size: 1 B", "--epochs", "0",
    )  # fmt: skip
    assert ended.code == 3
    assert "What prevents more: the budget 'size: 1 B' takes a smaller network" in ended.out
    assert (out / "model.tflite").exists()


def test_help_needs_no_tensorflow_and_works_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tfopt", "--help"], capture_output=True, text=True, check=True
    )
    assert all(command in done.stdout for command in COMMANDS)
    assert "tfopt.cli" in done.stderr
    assert "tensorflow" not in done.stderr.replace("tfopt.tensorflow_start", "")


@pytest.mark.slow
def test_an_error_is_one_message(folder: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tfopt", "inspect", str(tmp_path / "absent.keras")],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error:")
    assert done.stderr.count("\n") == 1
    assert f"{tmp_path / 'absent.keras'} does not exist" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("export {m} --out {out}", "needs calibration=..., a few hundred typical samples"),
        ("export {m} --out {out} --quantization int4", "weight_only_int4, none. Received: 'int4'"),
        (
            "export {m} --out {out} --format coreml",
            "--format must be one of tflite, edge-tpu, ethos-u, onnx, serving. Received: coreml",
        ),
        ("export {m} --out {out} --format serving --quantization int8", "Received: int8, for serving"),
        ("export {m} --out {out} --format ethos-u --target u55", "Received: 'u55'"),
        ("export {m} --out {out} --format onnx --quantization dynamic", "none, float16, int8. Received: 'dynamic'"),
        ("export {m} --out {out} --format serving --name a/b", "Received: 'a/b'"),
        ("export {m} --out {out} --format serving --version 0", "at least 1. Received: 0"),
        ("export {m} --out {out} --labels absent.txt", "a text file with a class label in each line. Received: absent"),
        ("export {m} --out {out} --labels {d}", "a text file with a class label in each line"),
        ("export {m} --out {out} --mean 0 --quantization none", "mean and standard_deviation go together"),
        ("export {m} --out {out} --mean 0 --format onnx", "--standard-deviation are for tflite. Received: onnx"),
        ("export absent.keras --out {out}", "No model at absent.keras: the file does not exist"),
        ("export {m} --out {out} --data absent.npz", "Cannot read absent.npz as an NPZ file"),
        ("optimize {m} --data {d} --out {out} --max-drop 1", "[0, 1). Received: 1. Did you mean 0.01?"),
        (
            "optimize {m} --data {d} --out {out} --target coreml",
            "one of tflite, edge_tpu, onnx, serving. Received: 'coreml'",
        ),
        ("optimize {m} --data {d} --out {out} --recipe absent.yaml", "cannot read absent.yaml"),
        ("optimize {d} --data {d} --out {out}", "Expected a Keras model file (.keras, .h5, .hdf5)"),
        ("benchmark absent.tflite", "Received: absent.tflite, which does not exist"),
        ("benchmark {m} --estimate z80", "estimate must be one of ethos-u55-32"),
        ("inspect {d}", "is not a TFLite file"),
        ("demo --out {out} --data cifar10", "--data must be digits, fashion_mnist or a FILE.npz. Received: cifar10"),
        ("demo --out {out} --data {d}", "The demo trains an image classifier"),
    ],
)
def test_bad_input_is_told(
    tfopt: Callable[..., Ended], folder: Path, tmp_path: Path, arguments: str, message: str
) -> None:
    places = {"m": folder / "model.keras", "d": folder / "data.npz", "out": tmp_path / "out"}
    ended = tfopt(*(part.format(**places) for part in arguments.split(" ")))
    assert ended.code == 1
    assert ended.err.startswith("Error:")
    assert message in " ".join(ended.err.split())
    assert "Traceback" not in ended.err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_is_no_success(number: signal.Signals, code: int) -> None:
    program = (
        "import os, sys, tfopt.cli\n"
        "@tfopt.cli.app.command()\n"
        f"def wait(): os.kill(os.getpid(), {int(number)})\n"
        "sys.argv = ['tfopt', 'wait']\n"
        "tfopt.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stderr == "Interrupted: nothing half-written is left.\n"


@pytest.mark.parametrize(
    "arguments",
    [[], ["export"], ["bogus"], ["inspect", "a", "--bogus"], ["optimize", "a", "--data", "d", "--max-drop", "abc"]],
    ids=" ".join,
)
def test_wrong_usage_is_told_without_a_traceback(tfopt: Callable[..., Ended], arguments: list[str]) -> None:
    ended = tfopt(*arguments)
    assert "Traceback" not in ended.err
    assert "Usage:" in ended.err + ended.out
    assert ended.code == 2
