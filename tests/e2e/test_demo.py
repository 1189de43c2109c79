"""`tfopt demo`, as a newcomer runs it."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from tfopt.artifact import Artifact
from tfopt.export.tflite_file import read_tflite
from tfopt.export.tflite_runtime import run_tflite

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Demo:
    """A finished demo: its folder, what it printed, and how long it took."""

    out: Path
    printed: str
    seconds: float


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tfopt", "demo", "--out", str(out)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "160"},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return Demo(out, done.stdout, time.monotonic() - started)


def test_it_ends_in_less_than_four_minutes(demo: Demo) -> None:
    assert demo.seconds < 240


def test_it_writes_verified_files_a_serving_folder_and_the_report(demo: Demo) -> None:
    stages = {"float32", "int8_post_training", "int8_quantization_aware"}
    assert {path.stem for path in (demo.out / "tflite").glob("*.tflite")} == stages
    for path in (demo.out / "tflite").glob("*.tflite"):
        verification = Artifact.load(path).verification
        assert verification["sqnr_db"] == "exact" or verification["sqnr_db"] >= verification["minimum_sqnr_db"]
    names = {path.name for path in (demo.out / "serving").iterdir()}
    server = {"docker-compose.yaml", "kubernetes.yaml", "monitoring.config", "tensorflow_model_server.sh"}
    assert names == {"batching_parameters.txt", "models.config", "small_cnn", *server}
    page = (demo.out / "report.html").read_text()
    for stage in ("float32", "int8 post-training, pruned", "int8 quantization-aware, pruned", "SavedModel, pruned"):
        assert stage in page
    assert 'src="http' not in page
    assert list(demo.out.rglob("*.partial")) == []


def test_int8_is_integer_throughout_and_within_a_point(demo: Demo) -> None:
    int8 = demo.out / "tflite" / "int8_quantization_aware.tflite"
    assert read_tflite(int8).is_full_integer
    report = json.loads((demo.out / "report.json").read_text())
    scores = {entry["name"]: entry["score"] for entry in report["entries"]}
    assert scores["float32"] >= 0.95
    for stage in ("int8 post-training, pruned", "int8 quantization-aware, pruned"):
        assert scores["float32"] - scores[stage] <= 0.01
    assert int8.stat().st_size < 0.5 * (demo.out / "tflite" / "float32.tflite").stat().st_size


def test_half_of_the_weights_are_zero(demo: Demo) -> None:
    file = read_tflite(demo.out / "tflite" / "int8_quantization_aware.tflite")
    kernels = [
        operator.inputs[1].values() for operator in file.operators if operator.name in {"CONV_2D", "FULLY_CONNECTED"}
    ]
    assert len(kernels) == 4
    for kernel in kernels:
        assert np.mean(kernel == 0) >= 0.5  # rounding may add zeros, never take one away


def test_the_serving_folder_answers_as_the_files_do(demo: Demo) -> None:
    version = demo.out / "serving" / "small_cnn" / "1"
    artifact = Artifact.load(version)
    assert artifact.verification["warmup_requests"] >= 1
    images = (load_digits().images[:50, ..., np.newaxis] / 16).astype(np.float32)
    signature = tf.saved_model.load(str(version)).signatures["serving_default"]
    served = signature(**{artifact.inputs[0].name: tf.constant(images)})[artifact.outputs[0].name].numpy()
    (int8,) = run_tflite(demo.out / "tflite" / "int8_post_training.tflite", {artifact.inputs[0].name: images}).values()
    assert np.mean(served.argmax(-1) == int8.argmax(-1)) >= 0.98


def test_it_prints_the_table_and_where_things_are(demo: Demo) -> None:
    for part in ("float32", "int8 quantization-aware, pruned", "SavedModel, pruned"):
        assert part in demo.printed
    for place in ("tflite/int8_quantization_aware.tflite", "serving", "report.html"):
        assert str(demo.out / place) in demo.printed
