"""Model files: every format that Keras writes is read, and what is not a model is named."""

from pathlib import Path

import keras
import numpy as np
import pytest

from tfopt.errors import ModelError
from tfopt.model_file import load_model
from tfopt.quantization import is_quantize_aware, quantize_aware


@pytest.fixture
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.Dense(2)])


X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.hdf5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_model_computes_the_same_after_loading(tmp_path: Path, model: keras.Model, name: str) -> None:
    model.compile("adam", "mse")
    model.save(tmp_path / name)
    np.testing.assert_allclose(load_model(tmp_path / name)(X), model(X), atol=1e-6)


def test_a_quantize_aware_model_stays_one(tmp_path: Path, model: keras.Model) -> None:
    aware = quantize_aware(model, calibration=X)
    aware.save(tmp_path / "aware.keras")
    loaded = load_model(str(tmp_path / "aware.keras"))
    assert is_quantize_aware(loaded)
    np.testing.assert_allclose(loaded(X), aware(X), atol=1e-6)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"No model at .*absent\.keras: the file does not exist"):
        load_model(tmp_path / "absent.keras")


@pytest.mark.parametrize("name", ["model.tflite", "model.npz", "model"])
def test_another_kind_of_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"content")
    with pytest.raises(ModelError, match=rf"\.keras, \.h5, \.hdf5.*Received: .*{name}.*model\.save"):
        load_model(tmp_path / name)


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
@pytest.mark.parametrize("damage", ["random", "truncated", "empty"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_damaged_file_is_refused(tmp_path: Path, model: keras.Model, name: str, damage: str) -> None:
    path = tmp_path / name
    model.save(path)
    content = path.read_bytes()
    path.write_bytes(
        {"random": np.random.default_rng(0).bytes(999), "truncated": content[: len(content) // 2], "empty": b""}[damage]
    )
    with pytest.raises(ModelError, match=rf"cannot load .*{name}: the file is damaged.*Keras says: .+"):
        load_model(path)


def test_a_file_with_nan_weights_is_refused(tmp_path: Path, model: keras.Model) -> None:
    model.layers[-1].set_weights([np.full((3, 2), np.nan), np.zeros(2)])
    model.save(tmp_path / "model.keras")
    with pytest.raises(ModelError, match="has NaN or infinite values"):
        load_model(tmp_path / "model.keras")
