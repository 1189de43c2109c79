"""Trained models and real data: int8 keeps their accuracy."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest

import tfopt
from tfopt.artifact import Artifact
from tfopt.data import load_npz
from tfopt.model_file import load_model
from tfopt.optimize import Result

pytestmark = [pytest.mark.slow, pytest.mark.data]

DATA = Path(os.environ.get("TFOPT_DATA") or Path(__file__).parents[3] / "shared" / "data")


def real(name: str) -> Path:
    """A file of the real data, or the reason to skip."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is absent; set TFOPT_DATA to the folder that holds {name}")
    return path


def check_half_a_point(result: Result) -> None:
    best = min(candidate.drop for candidate in result.candidates[1:] if candidate.drop is not None)
    assert best <= 0.005, str(result)
    assert result.within_max_drop, str(result)
    assert result.artifact.verification["full_integer"] is True
    assert Artifact.load(result.artifact.path) == result.artifact
    assert result.artifact.size_bytes < result.candidates[0].artifact.size_bytes


def test_hand_gestures(tmp_path: Path) -> None:
    rows = np.loadtxt(real("hand_gesture/keypoint.csv.gz"), delimiter=",", dtype=np.float32)
    assert rows.shape == (4450, 43)
    rows = np.random.default_rng(0).permutation(rows)
    x, y = rows[:, 1:], rows[:, 0].astype(int)
    result = tfopt.optimize(
        real("hand_gesture/keypoint_classifier.hdf5"),
        (x[1000:], y[1000:]),
        (x[:1000], y[:1000]),
        max_drop=0.005,
        out=tmp_path,
    )
    assert result.candidates[0].score > 0.95
    check_half_a_point(result)


def test_fashion_mnist(tmp_path: Path) -> None:
    data = load_npz(real("fashion_mnist.npz"))
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            keras.layers.Conv2D(16, 3, strides=2, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Conv2D(32, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10, activation="softmax", name="scores"),
        ]
    )
    x, y = data.x_train[:20_000], data.y_train[:20_000]
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=2, batch_size=64, verbose=0)
    model.save(tmp_path / "fashion.keras")
    result = tfopt.optimize(
        tmp_path / "fashion.keras",
        (x, y),
        (data.x_test[:4000], data.y_test[:4000]),
        max_drop=0.005,
        out=tmp_path / "out",
    )
    assert result.candidates[0].score > 0.8
    check_half_a_point(result)


@pytest.mark.parametrize(
    ("name", "low", "high", "minimum_sqnr_db"),
    [("mlperf_tiny/ad01.keras", -20.0, 20.0, 10.0), ("mlperf_tiny/vww_96.keras", 0.0, 1.0, 10.0)],
)
@pytest.mark.parametrize("way", ["post-training", "quantization-aware"])
def test_mlperf_tiny(tmp_path: Path, name: str, low: float, high: float, minimum_sqnr_db: float, way: str) -> None:
    model = load_model(real(name))
    shape = model.inputs[0].shape[1:]
    # Neither data set is here; for conversion any samples in the range of the inputs do.
    x = np.random.default_rng(0).uniform(low, high, (128, *shape)).astype(np.float32)
    exported = tfopt.quantize_aware(model, calibration=x) if way == "quantization-aware" else model
    artifact = tfopt.export_tflite(exported, tmp_path / "model.tflite", calibration=x)
    assert artifact.verification["full_integer"] is True
    assert artifact.verification["sqnr_db"] == "exact" or artifact.verification["sqnr_db"] > minimum_sqnr_db
    assert artifact.size_bytes < 2 * model.count_params()  # a byte for a weight, and the names of many small tensors
