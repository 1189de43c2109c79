"""What export_tflite writes: the right kind of numbers under the right names, or a refusal and no file."""

import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from tfopt.artifact import Artifact
from tfopt.errors import ConfigError, DataError, ExportError, ModelError
from tfopt.export.presets import PRESETS
from tfopt.export.tflite import export_tflite
from tfopt.export.tflite_file import read_tflite
from tfopt.export.tflite_runtime import run_tflite
from tfopt.quantization import quantize_aware
from tfopt.recipe import FineTuning, Recipe

pytestmark = pytest.mark.usefixtures("conversion_in_this_process")

KINDS = ("none", "float16", "dynamic", "int8", "int8 quantization-aware")


def two_inputs(*order: str) -> keras.Model:
    """Three outputs whose order is neither the alphabet's nor that of their making."""
    keras.utils.set_random_seed(0)
    scale = keras.Input((3,), name="a-scale")
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False)(image)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Flatten()(layers.MaxPooling2D()(x))
    x = layers.Concatenate()([layers.Dense(16, "relu")(x), scale])
    outputs = {"scores": layers.Dense(3, "softmax")(x), "height": layers.Dense(1)(x), "box": layers.Dense(4)(x)}
    inputs = {"image": image, "a-scale": scale}
    return keras.Model({name: inputs[name] for name in order}, outputs)


def samples() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "a-scale": generator.normal(2.0, 1.0, (40, 3)).astype(np.float32),
        "image": generator.random((40, 8, 8, 3), np.float32),
    }


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return two_inputs("image", "a-scale")


@pytest.fixture(scope="module")
def aware() -> keras.Model:
    return quantize_aware(two_inputs("a-scale", "image"), calibration=samples())


@pytest.fixture(scope="module")
def artifacts(model: keras.Model, aware: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("tflite")
    return {
        kind: export_tflite(
            aware if kind.endswith("aware") else model,
            folder / f"{kind}.tflite",
            kind.partition(" ")[0],
            calibration=samples(),
        )
        for kind in KINDS
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_names_shapes_and_order_are_the_models(kind: str, artifacts: dict[str, Artifact]) -> None:
    artifact = artifacts[kind]
    assert {spec.name: spec.shape for spec in artifact.inputs} == {"image": (1, 8, 8, 3), "a_scale": (1, 3)}
    assert {spec.name: spec.shape for spec in artifact.outputs} == {"scores": (1, 3), "height": (1, 1), "box": (1, 4)}
    dtype = "int8" if kind.startswith("int8") else "float32"
    assert {spec.dtype for spec in (*artifact.inputs, *artifact.outputs)} == {dtype}


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_has_one_signature_of_these_names(kind: str, artifacts: dict[str, Artifact]) -> None:
    signatures = Interpreter(str(artifacts[kind].path)).get_signature_list()
    assert signatures == {"serving_default": {"inputs": ["a_scale", "image"], "outputs": ["box", "height", "scores"]}}


@pytest.mark.parametrize("kind", KINDS)
def test_each_name_gives_what_keras_gives_under_it(
    kind: str, artifacts: dict[str, Artifact], model: keras.Model, aware: keras.Model
) -> None:
    x = samples()
    expected = (aware if kind.endswith("aware") else model).predict(x, verbose=0)
    for xnnpack in (True, False):
        received = run_tflite(artifacts[kind].path, {"image": x["image"], "a_scale": x["a-scale"]}, xnnpack=xnnpack)
        tolerance = {"none": 1e-6, "float16": 2e-3}.get(kind, 0.05)
        for name in ("scores", "height", "box"):
            largest = np.abs(expected[name]).max()
            assert np.abs(received[name] - expected[name]).max() <= tolerance * largest, name


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_measured_is_recorded(kind: str, artifacts: dict[str, Artifact]) -> None:
    artifact = artifacts[kind]
    verification = artifact.verification
    quantization = kind.partition(" ")[0]
    assert verification["samples"] == 40
    assert verification["samples_from"] == "calibration data"
    assert verification["minimum_sqnr_db"] == PRESETS[quantization].minimum_sqnr_db
    assert verification["sqnr_db"] >= PRESETS[quantization].minimum_sqnr_db
    assert verification["operators"] == read_tflite(artifact.path).operator_counts
    assert artifact.recipe == Recipe(quantization=quantization).to_dict()
    assert Artifact.load(artifact.path) == artifact


def test_int8_is_integer_throughout(artifacts: dict[str, Artifact]) -> None:
    for kind in ("int8", "int8 quantization-aware"):
        file = read_tflite(artifacts[kind].path)
        assert file.is_full_integer
        assert artifacts[kind].verification["full_integer"] is True
        grids = [(tensor.scales, tensor.zero_points) for tensor in (*file.inputs.values(), *file.outputs.values())]
        assert all(len(scales) == len(zero_points) == 1 for scales, zero_points in grids)
        for spec in artifacts[kind].outputs:
            assert ((spec.scale,), (spec.zero_point,)) == (
                file.outputs[spec.name].scales,
                file.outputs[spec.name].zero_points,
            )
    assert artifacts["int8 quantization-aware"].verification["max_lsb"] <= 1.001
    assert not any(artifacts[kind].verification["full_integer"] for kind in ("none", "float16", "dynamic"))


def test_weights_have_the_precision_asked_for(artifacts: dict[str, Artifact]) -> None:
    def weight_dtypes(kind: str) -> set[str]:
        tensors = [tensor for part in read_tflite(artifacts[kind].path).operators for tensor in part.inputs]
        # TensorFlow's dynamic-range quantization leaves what is smaller in float.
        return {part.dtype for part in tensors if part.constant is not None and part.values().size >= 1024}

    assert weight_dtypes("none") == {"FLOAT32"}
    assert weight_dtypes("float16") == {"FLOAT16"}
    assert weight_dtypes("dynamic") == weight_dtypes("int8") == {"INT8"}


def test_smaller_numbers_make_smaller_files(artifacts: dict[str, Artifact]) -> None:
    sizes = {kind: artifact.path.stat().st_size for kind, artifact in artifacts.items()}
    assert {kind: artifact.size_bytes for kind, artifact in artifacts.items()} == sizes
    assert sizes["float16"] < 0.75 * sizes["none"]
    assert sizes["dynamic"] < 0.6 * sizes["none"]
    assert sizes["int8"] < 0.6 * sizes["none"]


@pytest.mark.slow
def test_fake_quantization_stays_out_of_a_float_file(
    tmp_path: Path, aware: keras.Model, artifacts: dict[str, Artifact]
) -> None:
    for quantization in ("none", "float16"):
        artifact = export_tflite(aware, tmp_path / f"{quantization}.tflite", quantization, calibration=samples())
        assert artifact.verification["operators"] == artifacts[quantization].verification["operators"]
        assert {spec.name for spec in artifact.outputs} == {"scores", "height", "box"}


@pytest.mark.slow
def test_a_quantize_aware_model_needs_no_calibration(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    artifact = export_tflite(quantize_aware(model, calibration=x), tmp_path / "model.tflite")
    assert artifact.verification["full_integer"] is True
    assert artifact.verification["samples_from"] == "standard normal samples"


@pytest.mark.slow
def test_the_recipe_that_is_given_is_recorded(tmp_path: Path) -> None:
    recipe = Recipe(quantization="none", fine_tuning=FineTuning(epochs=9), calibration_samples=5)
    x = np.ones((50, 4), np.float32)
    artifact = export_tflite(dense(), tmp_path / "model.tflite", "none", calibration=x, recipe=recipe)
    assert Recipe.from_dict(artifact.recipe) == recipe
    assert artifact.verification["samples"] == 5


def test_without_verification_no_agreement_is_claimed(tmp_path: Path) -> None:
    artifact = export_tflite(dense(), tmp_path / "model.tflite", "none", verify=False)
    assert artifact.verification.keys() == {"full_integer", "operators"}


def dense(units: int = 3, **options: Any) -> keras.Model:
    keras.utils.set_random_seed(units)
    return keras.Sequential([keras.Input((4,), name="x"), layers.Dense(units, name="y", **options)])


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_an_operator_that_stays_float_is_named_and_refused(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, "squareplus", name="odd"), layers.Dense(2)])
    with pytest.raises(
        ExportError, match=r"refused \(int8\): .* \(layer 'odd_activation'\) computes in float"
    ) as error:
        export_tflite(quantize_aware(model, calibration=x), tmp_path / "model.tflite")
    assert "tfopt.quantization.coverage" in str(error.value)
    assert files(tmp_path) == []


@pytest.mark.slow
def test_a_wrong_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = export_tflite(dense(3, kernel_initializer="normal"), tmp_path / "other" / "model.tflite", "none")

    def convert_another_model(saved_model: Path, path: Path, **options: Any) -> None:
        shutil.copyfile(other.path, path)

    monkeypatch.setattr("tfopt.export.tflite.convert_saved_model", convert_another_model)
    with pytest.raises(ExportError, match=r"disagrees with Keras \(none, with XNNPACK\): .* at least 60 dB") as error:
        export_tflite(dense(3), tmp_path / "out" / "model.tflite", "none")
    assert "standard normal samples" in str(error.value)
    assert files(tmp_path / "out") == []


@pytest.mark.parametrize("content", [b"", b"no flatbuffer", b"\x1c\0\0\0TFL3" + bytes(64)])
def test_a_file_that_cannot_be_read_back_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(
        "tfopt.export.tflite.convert_saved_model", lambda saved_model, path, **_: path.write_bytes(content)
    )
    with pytest.raises((ExportError, DataError), match=r"damaged|not a TFLite file"):
        export_tflite(dense(), tmp_path / "model.tflite", "none")
    assert files(tmp_path) == []


@pytest.mark.slow
def test_a_failed_conversion_keeps_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = export_tflite(dense(), tmp_path / "model.tflite", "none")

    def fail(saved_model: Path, path: Path, **options: Any) -> None:
        path.write_bytes(b"half")
        raise ExportError("The TFLite converter failed")

    monkeypatch.setattr("tfopt.export.tflite.convert_saved_model", fail)
    with pytest.raises(ExportError, match="converter failed"):
        export_tflite(dense(5), tmp_path / "model.tflite", "none")
    assert Artifact.load(tmp_path / "model.tflite") == before
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"quantization": "int4"}, ConfigError, "weight_only_int4, none. Received: 'int4'"),
        ({"quantization": None}, ConfigError, "Received: None"),
        ({"path": "model.bin"}, ConfigError, r"must be that of a file ending in \.tflite\. Received: .*model\.bin"),
        ({"quantization": "int8"}, ConfigError, "int8 needs calibration=.*Received: None"),
        ({"calibration": np.zeros((3, 5))}, DataError, r"'x' must have shape \(n, 4\)\. Received: \(3, 5\)"),
        ({"calibration": np.zeros((0, 4))}, DataError, "'x' is empty"),
        ({"model": "model.keras"}, ModelError, r"Expected a Keras 3 model.*Received: str"),
    ],
)
def test_unusable_arguments_are_told(
    tmp_path: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    call = {"model": dense(), "path": "model.tflite", "quantization": "none", "calibration": None} | arguments
    with pytest.raises(error, match=message):
        export_tflite(call["model"], tmp_path / call["path"], call["quantization"], calibration=call["calibration"])
    assert files(tmp_path) == []


def test_a_dynamic_shape_is_refused(tmp_path: Path) -> None:
    x = keras.Input((None, 3), name="sequence")
    model = keras.Model(x, layers.GlobalAveragePooling1D()(x))
    with pytest.raises(ModelError, match=r"'sequence' must have a static shape .* Received: \(None, None, 3\)"):
        export_tflite(model, tmp_path / "model.tflite", "none")
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("quantization", "fits"),
    [
        ("none", "int8, int8_float_io, int16x8, float16, dynamic"),
        ("int8", "weight_only_int4"),
        ("weight_only_int4", ""),
    ],
)
def test_a_model_too_large_for_one_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantization: str, fits: str
) -> None:
    size_bytes = 15 * {"none": 32, "int8": 8, "weight_only_int4": 4}[quantization] // 8
    monkeypatch.setattr("tfopt.export.tflite.LARGEST_FILE_BYTES", size_bytes - 1)
    with pytest.raises(
        ModelError, match=f"must fit into {size_bytes - 1} bytes.*Received: {size_bytes} bytes"
    ) as error:
        export_tflite(dense(), tmp_path / "new" / "model.tflite", quantization, calibration=np.ones((8, 4)))
    assert (f"Choose a quantization that fits ({fits}" in str(error.value)) == bool(fits)
    assert "export it in parts" in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_two_gigabytes_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tfopt.export.tflite.convert_saved_model", lambda *arguments, **options: pytest.fail("it was begun")
    )
    wide = [layers.Dense(8192, use_bias=False, kernel_initializer="zeros") for _ in range(8)]
    model = keras.Sequential([keras.Input((8192,)), *wide])
    assert 4 * model.count_params() == 2**31  # one byte too many
    with pytest.raises(ModelError, match=r"fit into 2,147,483,647 bytes.*Received: 2,147,483,648 bytes \(none\)"):
        export_tflite(model, tmp_path / "model.tflite", "none")
    assert list(tmp_path.iterdir()) == []
