"""What inspect finds in models and files, against what was put there."""

from pathlib import Path

import keras
import numpy as np
import pytest

from tfopt.errors import DataError, ModelError
from tfopt.inspection import inspect
from tfopt.quantization import quantize_aware
from tfopt.serving.folder import export_serving


def model(units: int = 4) -> keras.Model:
    """A dense layer with three quarters of zeros."""
    built = keras.Sequential(
        [keras.Input((8,), name="x"), keras.layers.Dense(units, name="hidden"), keras.layers.ReLU(name="positive")],
        name="tiny",
    )
    kernel = np.ones((8, units), np.float32)
    kernel[:6] = 0
    built.set_weights([kernel, np.ones(units)])
    return built


def test_a_model_in_memory() -> None:
    found = inspect(model())
    assert found.title == "tiny"
    assert found.size_bytes == 4 * (8 * 4 + 4)
    hidden, positive = found.parts
    assert (hidden.name, hidden.kind, hidden.dtypes, hidden.shape) == ("hidden", "Dense", "float32", (None, 4))
    assert (hidden.weights, hidden.size_bytes) == (36, 144)
    assert hidden.zeros == pytest.approx(24 / 36)
    assert (positive.weights, positive.zeros) == (0, None)
    assert found.remarks == ("36 weights in 144 bytes, 66.7% zeros",)


def test_a_model_without_weights() -> None:
    x = keras.Input((2,))
    assert inspect(keras.Model(x, keras.layers.ReLU()(x))).remarks == ("no weights",)


@pytest.mark.parametrize("name", ["tiny.keras", "tiny.h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_keras_file(tmp_path: Path, name: str) -> None:
    model().save(tmp_path / name)
    found = inspect(tmp_path / name)
    assert found.size_bytes == (tmp_path / name).stat().st_size
    assert [part.weights for part in found.parts] == [36, 0]


def test_a_quantize_aware_model() -> None:
    kinds = [part.kind for part in inspect(quantize_aware(model(), calibration=np.ones((4, 8)))).parts]
    assert "QuantizeAware" in kinds


def test_a_saved_model_folder_of_a_server(tmp_path: Path) -> None:
    export_serving(model(), tmp_path, name="tiny", version=9)
    export_serving(model(units=5), tmp_path, name="tiny", version=10)
    newest = inspect(tmp_path / "tiny")
    assert newest.title.endswith("10")  # by number, not by text
    assert newest.size_bytes == inspect(tmp_path / "tiny" / "10").size_bytes
    assert sum(part.weights for part in newest.parts) == 8 * 5 + 5
    assert sum(part.weights for part in inspect(tmp_path / "tiny" / "9").parts) == 36
    assert any("x float32(None, 8) → positive float32(None, 5)" in remark for remark in newest.remarks)
    assert any(remark.startswith("operations: ") and "MatMul 1" in remark for remark in newest.remarks)


def test_printing_gives_the_table() -> None:
    text = str(inspect(model()))
    assert "tiny (144 bytes)" in text
    (row,) = (line for line in text.splitlines() if "hidden" in line)
    for cell in ("Dense", "float32", "?×4", "36", "144", "66.7%"):
        assert cell in row


@pytest.mark.parametrize("name", ["absent.tflite", "absent.keras", "absent"])
def test_an_absent_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name} does not exist"):
        inspect(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("noise.tflite", DataError, "is not a TFLite file"),
        ("noise.txt", DataError, "is not a TFLite file"),
        ("noise.keras", ModelError, "the file is damaged"),
        ("noise.h5", ModelError, "the file is damaged"),
    ],
)
def test_what_is_none_of_these_is_refused(tmp_path: Path, name: str, error: type[Exception], message: str) -> None:
    (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(500))
    with pytest.raises(error, match=message):
        inspect(str(tmp_path / name))


def test_a_folder_without_a_saved_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not a SavedModel: it holds no saved_model\.pb"):
        inspect(tmp_path)


def test_a_damaged_saved_model_is_refused(tmp_path: Path) -> None:
    folder = export_serving(model(), tmp_path, name="tiny").path
    (folder / "saved_model.pb").write_bytes(b"noise")
    with pytest.raises(DataError, match=r"cannot be loaded\. TensorFlow says: "):
        inspect(folder)


def test_another_object_is_refused() -> None:
    with pytest.raises(ModelError, match=r"Expected a Keras 3 model.*Received: int"):
        inspect(7)  # type: ignore[arg-type]
