"""What export_onnx writes: a file that computes what Keras computes at any batch size, or a refusal and no file."""

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from keras import layers

import tfopt
from tfopt.artifact import Artifact
from tfopt.errors import ConfigError, DataError, ExportError, MissingExtraError, ModelError
from tfopt.export.onnx import FLOAT32_TOLERANCE, MINIMUM_SQNR_DB, export_onnx
from tfopt.export.onnx_file import read_onnx
from tfopt.export.onnx_runtime import run_onnx
from tfopt.quantization import quantize_aware
from tfopt.recipe import Recipe

pytestmark = pytest.mark.usefixtures("conversion_in_this_process")

KINDS = ("none", "float16", "int8")
NAMES = ("scores", "height", "box")


def exact_gelu(x: Any) -> Any:
    return keras.activations.gelu(x, approximate=False)


def with_biases(model: keras.Model) -> keras.Model:
    """New biases are zero, and the converter leaves out what adds zero."""
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign_add(generator.uniform(0.05, 0.2, weight.shape))
    return model


def two_inputs() -> keras.Model:
    """Inputs and outputs whose order is neither the alphabet's nor that of their making."""
    keras.utils.set_random_seed(0)
    scale = keras.Input((3,), name="a-scale")
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False)(image)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Flatten()(layers.MaxPooling2D()(x))
    x = layers.Concatenate()([layers.Dense(16, exact_gelu)(x), scale])
    box, height = layers.Dense(4, name="box")(x), layers.Dense(1, name="height")(x)
    scores = layers.Dense(3, "softmax", name="scores")(x)
    return with_biases(keras.Model([image, scale], [scores, height, box]))


def samples() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "a-scale": generator.normal(2.0, 1.0, (40, 3)).astype(np.float32),
        "image": generator.random((40, 8, 8, 3), np.float32),
    }


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return two_inputs()


@pytest.fixture(scope="module")
def artifacts(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("onnx")
    return {kind: export_onnx(model, folder / f"{kind}.onnx", kind, calibration=samples()) for kind in KINDS}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_names_order_and_the_open_batch_are_the_models(kind: str, artifacts: dict[str, Artifact]) -> None:
    artifact = artifacts[kind]
    inputs, outputs = (
        [("image", (None, 8, 8, 3)), ("a_scale", (None, 3))],
        [("scores", (None, 3)), ("height", (None, 1)), ("box", (None, 4))],
    )
    assert artifact.kind == "onnx"
    assert [(spec.name, spec.shape) for spec in artifact.inputs] == inputs
    assert [(spec.name, spec.shape) for spec in artifact.outputs] == outputs
    assert {spec.dtype for spec in (*artifact.inputs, *artifact.outputs)} == {"float32"}
    graph = onnx.load(artifact.path).graph
    assert [value.name for value in graph.input] == [name for name, _ in inputs]
    assert [value.name for value in graph.output] == [name for name, _ in outputs]
    batches = {value.type.tensor_type.shape.dim[0].dim_param for value in (*graph.input, *graph.output)}
    assert batches == {"batch"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [1, 7, 40])
def test_each_name_gives_what_keras_gives_under_it(
    kind: str, batch_size: int, artifacts: dict[str, Artifact], model: keras.Model
) -> None:
    x = samples()
    expected = dict(zip(NAMES, model.predict([x["image"], x["a-scale"]], verbose=0), strict=True))
    given = {"image": x["image"], "a_scale": x["a-scale"]}
    received = run_onnx(artifacts[kind].path, given, batch_size=batch_size)
    tolerance = {"none": 1e-5, "float16": 5e-3, "int8": 0.05}[kind]
    for name in NAMES:
        assert np.abs(received[name] - expected[name]).max() <= tolerance * np.abs(expected[name]).max(), name


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_measured_is_recorded(kind: str, artifacts: dict[str, Artifact]) -> None:
    artifact = artifacts[kind]
    verification = artifact.verification
    assert verification["samples"] == 40
    assert verification["samples_from"] == "calibration data"
    assert verification["batch_sizes"] == [1, 3]
    assert verification["opset"] == read_onnx(artifact.path).opset == 15
    assert verification["operators"] == read_onnx(artifact.path).operator_counts
    assert verification["sqnr_db"] >= verification["minimum_sqnr_db"] == MINIMUM_SQNR_DB[kind]
    assert ("tolerance" in verification) == (kind == "none")
    assert ("float_operators" in verification) == (kind == "int8")
    assert artifact.recipe == Recipe(quantization=kind).to_dict()
    assert {"keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime"} <= artifact.versions.keys()
    assert Artifact.load(artifact.path) == artifact


def test_float32_agrees_to_a_ten_thousandth(artifacts: dict[str, Artifact]) -> None:
    verification = artifacts["none"].verification
    assert verification["relative_error"] <= verification["tolerance"] == FLOAT32_TOLERANCE
    assert verification["top1_agreement"] == 1.0


def test_exact_gelu_is_written_with_an_operator_that_exists(artifacts: dict[str, Artifact]) -> None:
    for artifact in artifacts.values():
        assert artifact.verification["operators"]["Erf"] == 1
        assert "Erfc" not in artifact.verification["operators"]


def test_int8_weights_have_a_scale_per_channel_and_activations_are_uint8(artifacts: dict[str, Artifact]) -> None:
    file = read_onnx(artifacts["int8"].path)
    kernels = [one.inputs[1].stored for one in file.operators if one.name in {"Conv", "Gemm", "MatMul"}]
    assert len(kernels) == 5
    assert {None if kernel is None else kernel.dtype for kernel in kernels} == {"int8"}
    dequantizing = {id(one.inputs[0]): one for one in file.operators if one.name == "DequantizeLinear"}
    for kernel in kernels:
        assert kernel is not None
        assert kernel.constant is not None
        scales = dequantizing[id(kernel)].inputs[1].constant
        assert scales is not None
        assert scales.size in kernel.constant.shape
    written = {one.outputs[0].dtype for one in file.operators if one.name == "QuantizeLinear"}
    assert written == {"uint8"}
    assert [one.domain for one in onnx.load(artifacts["int8"].path).opset_import] == [""]


def test_int8_names_what_stays_float(artifacts: dict[str, Artifact]) -> None:
    floats = artifacts["int8"].verification["float_operators"]
    assert "Erf" in floats
    assert not {"Conv", "Gemm", "MatMul"} & floats.keys()


def test_smaller_numbers_make_smaller_weights(artifacts: dict[str, Artifact]) -> None:
    sizes = {kind: tfopt.inspect(artifact.path) for kind, artifact in artifacts.items()}
    weights = {kind: sum(part.size_bytes for part in found.parts) for kind, found in sizes.items()}
    assert weights["float16"] < 0.55 * weights["none"]
    assert weights["int8"] < 0.35 * weights["none"]
    assert artifacts["float16"].size_bytes < 0.75 * artifacts["none"].size_bytes


def test_names_of_operators_begin_with_those_of_the_models_layers(artifacts: dict[str, Artifact]) -> None:
    nodes = [operator.node for operator in read_onnx(artifacts["none"].path).operators]
    for layer in ("batch_normalization", "max_pooling2d", "scores", "height", "box"):
        assert any(layer in node for node in nodes), layer
    assert not any("PartitionedCall" in node for node in nodes)


def sequence(*stack: keras.layers.Layer, shape: tuple[int, ...] = (10, 4)) -> keras.Model:
    keras.utils.set_random_seed(0)
    return with_biases(keras.Sequential([keras.Input(shape, name="x"), *stack]))


def transformer() -> keras.Model:
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 8), name="x")
    normal = layers.LayerNormalization()(x)
    y = layers.Add()([x, layers.MultiHeadAttention(2, 4)(normal, normal)])
    y = layers.Add()([y, layers.Dense(8)(layers.Dense(16, exact_gelu)(layers.LayerNormalization()(y)))])
    return with_biases(keras.Model(x, layers.Dense(3, "softmax")(layers.GlobalAveragePooling1D()(y))))


def nested() -> keras.Model:
    inner = sequence(layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(), shape=(8, 8, 3))
    x = keras.Input((8, 8, 3), name="x")
    return keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(inner(x))))


def mixed_precision() -> keras.Model:
    half = {"dtype": "mixed_float16"}
    return sequence(layers.Dense(8, "relu", **half), layers.Flatten(**half), layers.Dense(3, dtype="float32"))


def audio() -> keras.Model:
    stack = [layers.Conv1D(8, 5, strides=2, padding="causal", activation="relu"), layers.SeparableConv1D(8, 3)]
    return sequence(*stack, layers.BatchNormalization(), layers.GlobalMaxPooling1D(), layers.Dense(3), shape=(64, 4))


def normalized() -> keras.Model:
    """Its mean is a tensor that the layer keeps, neither a variable nor a constant of the graph."""
    normal = layers.Normalization()
    normal.adapt(np.random.default_rng(0).normal(2.0, 3.0, (50, 8)).astype(np.float32))
    return sequence(normal, layers.Dense(3), shape=(8,))


def tokens() -> keras.Model:
    x = keras.Input((10,), dtype="int32", name="x")
    return with_biases(keras.Model(x, layers.Dense(3)(layers.LSTM(8)(layers.Embedding(20, 8, mask_zero=True)(x)))))


MODELS: dict[str, Callable[[], keras.Model]] = {
    "lstm": lambda: sequence(layers.LSTM(8, return_sequences=True), layers.LSTM(8), layers.Dense(3)),
    "gru": lambda: sequence(layers.GRU(8), layers.Dense(3)),
    "transformer": transformer,
    "nested": nested,
    "mixed precision": mixed_precision,
    "audio": audio,
    "normalized": normalized,
}
FLOAT_OPERATOR = {"lstm": "LSTM", "gru": "Loop", "tokens": "Loop"}
"""What int8 leaves in float: recurrent layers, as one operator or as a loop."""


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_layers_of_all_kinds_agree_in_float32(name: str, tmp_path: Path) -> None:
    artifact = export_onnx(MODELS[name](), tmp_path / "model.onnx")
    assert artifact.verification["relative_error"] <= 1e-5
    assert artifact.verification["samples_from"] == "standard normal samples"


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["float16", "int8"])
@pytest.mark.parametrize("name", [*MODELS, "tokens"])
def test_layers_of_all_kinds_agree_when_quantized(name: str, quantization: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    built = tokens() if name == "tokens" else MODELS[name]()
    shape = (64, *built.inputs[0].shape[1:])
    x = generator.integers(1, 20, shape) if name == "tokens" else generator.normal(size=shape)
    artifact = export_onnx(built, tmp_path / "model.onnx", quantization, calibration=x)
    assert artifact.verification["sqnr_db"] >= {"float16": 50, "int8": 20}[quantization]
    if quantization == "int8" and name in FLOAT_OPERATOR:
        assert artifact.verification["float_operators"][FLOAT_OPERATOR[name]] >= 1


@pytest.mark.slow
def test_the_process_of_its_own_writes_the_same_file(
    tmp_path: Path, artifacts: dict[str, Artifact], model: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tfopt.export.onnx.convert_to_onnx", importlib.import_module(CONVERSION).convert_to_onnx)
    artifact = export_onnx(model, tmp_path / "model.onnx", "int8", calibration=samples())
    assert artifact.verification["operators"] == artifacts["int8"].verification["operators"]


CONVERSION = "tfopt.export.onnx_conversion"


def dense(units: int = 3, **options: Any) -> keras.Model:
    keras.utils.set_random_seed(units)
    return keras.Sequential([keras.Input((4,), name="x"), layers.Dense(units, name="y", **options)])


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("opset", [13, 18])
def test_the_opset_is_chosen(tmp_path: Path, opset: int) -> None:
    for quantization in ("none", "int8"):
        path = tmp_path / f"{quantization}.onnx"
        artifact = export_onnx(dense(), path, quantization, calibration=np.eye(4), opset=opset)
        assert artifact.verification["opset"] == opset
        assert {one.domain: one.version for one in onnx.load(path).opset_import}[""] == opset


@pytest.mark.slow
def test_of_a_quantize_aware_model_the_float_model_is_exported(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    aware = quantize_aware(dense(), calibration=x)
    plain = export_onnx(dense(), tmp_path / "plain.onnx", calibration=x)
    stripped = export_onnx(aware, tmp_path / "stripped.onnx", calibration=x)
    assert stripped.verification["operators"] == plain.verification["operators"]
    assert [spec.name for spec in stripped.outputs] == ["y"]
    assert export_onnx(aware, tmp_path / "int8.onnx", "int8", calibration=x).verification["sqnr_db"] > 20


def test_the_recipe_that_is_given_is_recorded(tmp_path: Path) -> None:
    recipe = Recipe(quantization="none", calibration_samples=5)
    x = np.ones((50, 4), np.float32)
    artifact = export_onnx(dense(), tmp_path / "model.onnx", "none", calibration=x, recipe=recipe)
    assert Recipe.from_dict(artifact.recipe) == recipe
    assert artifact.verification["samples"] == 5


def test_without_verification_no_agreement_is_claimed(tmp_path: Path) -> None:
    artifact = export_onnx(dense(), tmp_path / "model.onnx", verify=False)
    assert artifact.verification.keys() == {"opset", "operators"}


def inverse_error_function(x: Any) -> Any:
    return keras.ops.erfinv(keras.ops.tanh(x))


def test_an_operation_that_onnx_lacks_is_named_and_refused(tmp_path: Path) -> None:
    model = sequence(layers.Dense(3, inverse_error_function, name="inverse"), shape=(4,))
    with pytest.raises(ExportError, match=r"ONNX has no operator for Erfinv \(.*inverse.*\)") as error:
        export_onnx(model, tmp_path / "model.onnx")
    assert "Build the layer of other operations" in str(error.value)
    assert files(tmp_path) == []


def test_a_model_that_mixes_the_samples_of_a_batch_is_refused(tmp_path: Path) -> None:
    x = keras.Input((4,), name="x")
    model = keras.Model(x, x / keras.ops.max(keras.ops.abs(x)))
    with pytest.raises(ExportError, match=r"disagrees with Keras \(none, batch size 1\)"):
        export_onnx(model, tmp_path / "model.onnx")
    assert files(tmp_path) == []


def test_an_output_without_the_batch_is_refused(tmp_path: Path) -> None:
    x = keras.Input((4,), name="x")
    model = keras.Model(x, keras.ops.max(x, axis=0, keepdims=True))
    with pytest.raises(ExportError, match=r"must have the shape \(1, 4\)\. Received: \(3, 4\)"):
        export_onnx(model, tmp_path / "model.onnx")
    assert files(tmp_path) == []


def replace_conversion(monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], Any]) -> None:
    monkeypatch.setattr("tfopt.export.onnx.convert_to_onnx", lambda saved_model, path, **options: write(path))


def test_a_wrong_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = export_onnx(dense(3, kernel_initializer="normal"), tmp_path / "other" / "model.onnx")
    replace_conversion(monkeypatch, lambda path: shutil.copyfile(other.path, path))
    with pytest.raises(ExportError, match=r"disagrees with Keras \(none, batch size 1\): .* at least 60 dB") as error:
        export_onnx(dense(3), tmp_path / "out" / "model.onnx")
    assert "standard normal samples" in str(error.value)
    assert files(tmp_path / "out") == []


def test_one_value_that_is_off_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = dense(3)
    other = keras.models.clone_model(model)
    other.set_weights([kernel_or_bias * (1 + 5e-4) for kernel_or_bias in model.get_weights()])
    almost = export_onnx(other, tmp_path / "other" / "model.onnx")
    replace_conversion(monkeypatch, lambda path: shutil.copyfile(almost.path, path))
    with pytest.raises(ExportError, match=r"errors of at most 0\.0001 of an output's largest value .*0\.0005"):
        export_onnx(model, tmp_path / "out" / "model.onnx")
    assert files(tmp_path / "out") == []


def test_a_file_that_is_quietly_float_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = export_onnx(dense(3), tmp_path / "other" / "model.onnx")
    replace_conversion(monkeypatch, lambda path: shutil.copyfile(quiet.path, path))
    with pytest.raises(ExportError, match=r"refused \(int8\): MatMul \(.*\) has float32 weights, not int8"):
        export_onnx(dense(3), tmp_path / "out" / "model.onnx", "int8", calibration=np.eye(4))
    assert files(tmp_path / "out") == []


@pytest.mark.parametrize("content", [b"", b"no protobuf", b"\x08\x08" + bytes(64)])
def test_a_file_that_cannot_be_read_back_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    replace_conversion(monkeypatch, lambda path: path.write_bytes(content))
    with pytest.raises(DataError, match="is not an ONNX file"):
        export_onnx(dense(), tmp_path / "model.onnx")
    assert files(tmp_path) == []


def test_a_failed_conversion_keeps_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = export_onnx(dense(), tmp_path / "model.onnx")

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise ExportError("The ONNX converter failed")

    replace_conversion(monkeypatch, fail)
    with pytest.raises(ExportError, match="converter failed"):
        export_onnx(dense(5), tmp_path / "model.onnx")
    assert Artifact.load(tmp_path / "model.onnx") == before
    assert len(files(tmp_path)) == 2


def test_without_onnx_runtime_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_conversion(monkeypatch, lambda path: pytest.fail("it was begun"))
    monkeypatch.setattr("tfopt.export.onnx_runtime.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"The ONNX export needs the extra 'onnx'.*pip install 'tfopt\[onnx\]'"):
        export_onnx(dense(), tmp_path / "model.onnx")
    assert files(tmp_path) == []


def test_a_model_too_large_for_one_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfopt.export.onnx.LARGEST_FILE_BYTES", 59)
    with pytest.raises(ModelError, match=r"must fit into 59 bytes.*Received: 60 bytes"):
        export_onnx(dense(), tmp_path / "model.onnx")
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"quantization": "dynamic"}, ConfigError, "must be one of none, float16, int8. Received: 'dynamic'"),
        ({"quantization": None}, ConfigError, "Received: None"),
        ({"opset": 12}, ConfigError, "opset must be from 13 to 18. Received: 12"),
        ({"opset": "15"}, ConfigError, "opset must be from 13 to 18. Received: '15'"),
        ({"path": "model.tflite"}, ConfigError, r"file ending in \.onnx\. Received: .*model\.tflite"),
        ({"path": ""}, ConfigError, r"must be that of a file ending in \.onnx"),
        ({"quantization": "int8"}, ConfigError, r"int8 needs calibration=\.\.\..*Received: None"),
        ({"calibration": np.zeros((3, 5))}, DataError, r"'x' must have shape \(n, 4\)\. Received: \(3, 5\)"),
        ({"calibration": np.zeros((0, 4))}, DataError, "'x' is empty"),
        ({"model": "model.keras"}, ModelError, r"Expected a Keras 3 model.*Received: str"),
    ],
)
def test_unusable_arguments_are_told(
    tmp_path: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    call = {"model": dense(), "path": "model.onnx", "quantization": "none", "calibration": None, "opset": None}
    call |= arguments
    options = {name: call[name] for name in ("calibration", "opset")}
    with pytest.raises(error, match=message):
        export_onnx(call["model"], tmp_path / call["path"], call["quantization"], **options)
    assert files(tmp_path) == []


def test_a_dynamic_shape_is_refused(tmp_path: Path) -> None:
    x = keras.Input((None, 3), name="sequence")
    model = keras.Model(x, layers.GlobalAveragePooling1D()(x))
    with pytest.raises(ModelError, match=r"export_onnx: the input 'sequence' must have a static shape"):
        export_onnx(model, tmp_path / "model.onnx")
    assert files(tmp_path) == []


def test_a_subclassed_model_is_refused(tmp_path: Path) -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="own")
            self.dense = layers.Dense(2)

        def call(self, x: Any) -> Any:
            return self.dense(x)

    own = Own()
    own(np.zeros((1, 4), np.float32))
    with pytest.raises(ModelError, match="'own' is subclassed"):
        export_onnx(own, tmp_path / "model.onnx")
    assert files(tmp_path) == []
