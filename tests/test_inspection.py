"""What inspect finds in models and files, against what was put there."""

from pathlib import Path

import keras
import numpy as np
import pytest

from tfopt.compression import coded_size_bytes
from tfopt.errors import ConfigError, DataError, ModelError
from tfopt.export.onnx import export_onnx
from tfopt.export.tflite import export_tflite
from tfopt.inspection import inspect
from tfopt.quantization import quantize_aware
from tfopt.serving.folder import export_serving
from tfopt.surgery.flops import costs


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
    assert (hidden.nonzeros, hidden.distinct_values, hidden.flops, positive.flops) == (12, 2, 2 * 8 * 4, 0)
    assert hidden.gzip_bytes < hidden.size_bytes
    assert hidden.coded_bytes == sum(coded_size_bytes(array) for array in model().get_weights())
    assert found.remarks == (
        "36 weights, 66.7% zeros, 64 FLOPs",
        f"144 bytes → {hidden.gzip_bytes} bytes after gzip → {hidden.coded_bytes} bytes coded",
    )


def test_a_nested_model_is_opened() -> None:
    x = keras.Input((8,))
    found = inspect(keras.Model(x, keras.layers.Dense(2, name="head")(model()(x))))
    assert [(part.name, part.flops) for part in found.parts] == [("hidden", 64), ("positive", 0), ("head", 16)]


def test_a_layer_used_twice_computes_twice_and_is_stored_once() -> None:
    x = keras.Input((4,))
    shared = keras.layers.Dense(4, use_bias=False)
    found = inspect(keras.Model(x, shared(shared(x))))
    (part,) = found.parts
    assert (part.weights, part.flops) == (16, 64)


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = keras.layers.Dense(3, name="hidden")

    def call(self, x):
        return self.hidden(x)


def test_what_a_subclassed_model_computes_is_not_counted() -> None:
    built = Subclassed()
    built(np.ones((1, 8), np.float32))
    (part,) = inspect(built).parts
    assert (part.name, part.weights, part.flops) == ("hidden", 27, None)


@pytest.mark.slow
@pytest.mark.usefixtures("conversion_in_this_process")
def test_files_count_the_same_operations_as_the_model(tmp_path: Path) -> None:
    layers = keras.layers
    built = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, strides=2, padding="same"),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.Conv2DTranspose(5, 3, strides=2, padding="same"),
            layers.Flatten(),
            layers.Dense(7),
        ]
    )
    tflite = export_tflite(built, tmp_path / "model.tflite", "none")
    onnx = export_onnx(built, tmp_path / "model.onnx")
    for artifact in (tflite, onnx):
        assert sum(part.flops or 0 for part in inspect(artifact.path).parts) == costs(built).flops


@pytest.mark.parametrize(
    ("target", "use"),
    [
        ("edge_tpu", "no: the Edge TPU multiplies zeros too"),
        ("ethos_u", "yes: Ethos-U reads compressed weights"),
        ("tflite", "no: 50% of the blocks of 1×4 along the input are zero, 67% are needed"),
    ],
)
def test_whether_zeros_pay_on_a_target(target: str, use: str) -> None:
    found = inspect(model(), target=target)
    assert [part.zeros_use for part in found.parts] == [use, ""]
    assert f"zeros on {target}" in " ".join(str(found).split())


@pytest.mark.slow
@pytest.mark.usefixtures("conversion_in_this_process")
def test_whether_zeros_pay_in_a_file(tmp_path: Path) -> None:
    export_tflite(model(), tmp_path / "tiny.tflite", "none")
    (use,) = (part.zeros_use for part in inspect(tmp_path / "tiny.tflite", target="tflite").parts if part.weights)
    assert use.startswith("no: 50% of the blocks of 1×4")


@pytest.mark.usefixtures("conversion_in_this_process")
def test_an_onnx_file_tells_its_opset_operators_and_tensors(tmp_path: Path) -> None:
    found = inspect(export_onnx(model(), tmp_path / "tiny.onnx").path, target="onnx")
    assert found.remarks[:2] == ("opset 15", "operators: MatMul 1, Add 1, Relu 1")
    assert "float32 [?, 8]" in found.remarks[2]
    assert [part.kind for part in found.parts] == ["MatMul", "Add", "Relu"]
    assert found.parts[0].zeros_use == "no: ONNX Runtime multiplies zeros too"
    assert found.size_bytes == (tmp_path / "tiny.onnx").stat().st_size


def test_a_damaged_onnx_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "damaged.onnx").write_bytes(b"PK no model")
    with pytest.raises(DataError, match="is not an ONNX file, or is damaged"):
        inspect(tmp_path / "damaged.onnx")


def test_a_narrow_terminal_gets_fewer_columns() -> None:
    found = inspect(model())
    wide, narrow = ([column.header for column in found.table(width).columns] for width in (160, 60))
    assert wide == [
        *("name", "kind", "dtypes", "shape", "FLOPs", "weights", "zeros", "distinct", "bytes", "gzip", "coded")
    ]
    assert narrow == ["name", "kind", "shape", "weights", "zeros", "bytes"]
    assert "not shown for want of width: coded, distinct, gzip, dtypes, FLOPs" in str(found.table(60).caption)


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"inspect: target must be one of tflite, .*Received: 'gpu'"):
        inspect(model(), target="gpu")


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
