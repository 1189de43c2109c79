"""Every operator of an exported file is known by the layers it computes."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from tfopt.artifact import Artifact
from tfopt.export.layer_names import LayerScopes, layer_scopes
from tfopt.export.tflite import export_tflite
from tfopt.export.tflite_file import read_tflite
from tfopt.quantization import quantize_aware

pytestmark = pytest.mark.usefixtures("conversion_in_this_process")


def nested(**options: Any) -> keras.Model:
    """Models in a model, with a layer name in both; a shared layer; operations; a batch norm for an output."""
    keras.utils.set_random_seed(0)
    inner = keras.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, padding="same", name="conv", **options)(inner)
    block = keras.Model(inner, layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x)), name="block")
    tail = keras.Sequential([layers.Conv2D(4, 1, name="conv"), layers.ReLU(name="relu")], name="tail")
    image = keras.Input((6, 6, 3), name="image")
    x = tail(block(image))
    maps = layers.BatchNormalization(name="norm")(layers.Conv2D(2, 3, name="maps", **options)(x))
    x = layers.GlobalAveragePooling2D(name="pool")(x + 1.0)
    shared = layers.Dense(4, "tanh", name="shared")
    scores = layers.Dense(3, "softmax", name="scores")(shared(shared(x)))
    return keras.Model(image, [maps, scores, layers.Dense(1, name="height")(x)])


IMAGES = np.random.default_rng(0).random((32, 6, 6, 3), np.float32)


def named_operators(artifact: Artifact) -> list[tuple[str, tuple[str, ...]]]:
    operators = read_tflite(artifact.path).operators
    return [(one.name, names) for one, names in zip(operators, artifact.layers, strict=True)]


@pytest.fixture(scope="module")
def folder(conversion_in_this_process: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layer_names")


NESTED_OPERATORS = [
    ("ADD", ("add",)),
    ("CONV_2D", ("block/conv", "block/norm", "block/relu")),
    ("CONV_2D", ("maps", "norm")),
    ("CONV_2D", ("tail/conv", "tail/relu")),
    ("FULLY_CONNECTED", ("height",)),
    ("FULLY_CONNECTED", ("scores",)),
    ("FULLY_CONNECTED", ("shared",)),
    ("FULLY_CONNECTED", ("shared",)),
    ("MEAN", ("pool",)),
    ("SOFTMAX", ("scores",)),
    ("TANH", ("shared",)),
    ("TANH", ("shared",)),
]


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_nested_models_shared_layers_and_operations(folder: Path, quantization: str) -> None:
    model = nested()
    artifact = export_tflite(model, folder / f"{quantization}.tflite", quantization, calibration=IMAGES)
    [addition] = (operation.name for operation in model.operations if type(operation).__name__ == "Add")
    found = [
        (name, tuple("add" if one == addition else one for one in names)) for name, names in named_operators(artifact)
    ]
    assert sorted(found) == NESTED_OPERATORS


@pytest.mark.slow
def test_a_mixed_precision_model_is_rebuilt_and_keeps_its_names(folder: Path) -> None:
    artifact = export_tflite(nested(dtype="mixed_float16"), folder / "mixed.tflite", "none")
    assert ("CONV_2D", ("block/conv", "block/norm", "block/relu")) in named_operators(artifact)
    assert all(artifact.layers)


@pytest.mark.slow
def test_a_quantize_aware_model_has_the_names_of_its_coverage(folder: Path) -> None:
    x = keras.Input((8, 8, 3))
    h = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(layers.Conv2D(8, 3, name="conv")(x)))
    h = layers.Flatten(name="flat")(layers.Concatenate(name="both")([h, layers.MaxPooling2D(1, name="pool")(h)]))
    model = keras.Model(x, layers.Dense(3, "softmax", name="scores")(h))
    samples = np.random.default_rng(0).random((32, 8, 8, 3), np.float32)
    artifact = export_tflite(quantize_aware(model, calibration=samples), folder / "aware.tflite")
    assert named_operators(artifact) == [
        ("CONV_2D", ("conv", "norm", "relu")),
        ("MAX_POOL_2D", ("pool",)),
        ("CONCATENATION", ("both",)),
        ("RESHAPE", ("flat",)),
        ("FULLY_CONNECTED", ("scores",)),
        ("SOFTMAX", ("scores_activation",)),
    ]


def test_a_quantize_aware_model_in_float_has_them_too(folder: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu", name="hidden"), layers.Softmax(name="scores")])
    artifact = export_tflite(quantize_aware(model, calibration=np.eye(4)), folder / "float.tflite", "none")
    assert named_operators(artifact) == [
        ("FULLY_CONNECTED", ("hidden", "hidden_activation")),
        ("SOFTMAX", ("scores",)),
    ]


@pytest.mark.slow
def test_operators_within_a_loop_are_the_recurrent_layers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfopt.surgery.recurrent.LONGEST_SEQUENCE", 4)
    model = keras.Sequential([keras.Input((5, 4)), layers.LSTM(3, name="memory"), layers.Dense(2, name="scores")])
    found = named_operators(export_tflite(model, folder / "lstm.tflite", "none"))
    assert ("WHILE", ("memory",)) in found
    assert [names for name, names in found if name == "LOGISTIC"] == [("memory",)] * 3
    assert ("FULLY_CONNECTED", ("scores",)) in found
    assert all(names for _, names in found)


@pytest.mark.slow
def test_every_step_is_the_recurrent_layer(folder: Path) -> None:
    model = keras.Sequential([keras.Input((3, 4)), layers.GRU(2, name="memory"), layers.Dense(2, name="scores")])
    found = named_operators(export_tflite(model, folder / "gru.tflite", "none"))
    assert {names for name, names in found if name == "TANH"} == {("memory",)}
    assert found[-1] == ("FULLY_CONNECTED", ("scores",))
    assert all(names for _, names in found)


def test_float_operators_are_told_with_their_layers(folder: Path) -> None:
    x = keras.Input((6, 8))
    h = layers.Activation(keras.ops.floor, name="whole")(layers.Dense(8, name="first")(x))
    model = keras.Model(x, layers.Dense(2, name="last")(h))
    samples = np.random.default_rng(0).normal(size=(32, 6, 8)).astype(np.float32)
    artifact = export_tflite(model, folder / "whole.tflite", "int8", calibration=samples, allow_float=True)
    in_float = artifact.verification["float_operators"]
    assert in_float["FLOOR"] == ["whole"]
    assert in_float["QUANTIZE"] == in_float["DEQUANTIZE"] == ["whole"]
    assert all(artifact.layers)


def test_a_name_that_tensorflow_takes_within_a_model_only(folder: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="_hidden"), layers.Dense(2, name="layer_hidden")])
    found = named_operators(export_tflite(model, folder / "underscore.tflite", "none"))
    assert found == [("FULLY_CONNECTED", ("_hidden",)), ("FULLY_CONNECTED", ("layer_hidden",))]


def test_half_precision_weights_belong_to_their_layer(folder: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(64, name="hidden"), layers.Dense(3, name="scores")])
    found = named_operators(export_tflite(model, folder / "float16.tflite", "float16"))
    assert {names for name, names in found if name == "DEQUANTIZE"} == {("hidden",), ("scores",)}


def test_a_model_in_scopes_computes_what_it_does() -> None:
    keras.utils.set_random_seed(0)
    tokens = keras.Input((7,), dtype="int32", name="tokens")
    x = layers.Embedding(9, 4, mask_zero=True)(tokens)
    x = layers.LSTM(5)(layers.Dropout(0.9)(x, training=True))
    model = keras.Model(tokens, {"b": layers.Dense(2)(x), "a": ops.multiply(x, np.float32([1, 2, 3, 4, 5]))})
    samples = np.random.default_rng(0).integers(0, 9, (6, 7)).astype(np.int32)
    expected = model(samples, training=False)
    received = layer_scopes(model, model).call([samples])
    for one, other in zip([expected["a"], expected["b"]], received, strict=True):
        np.testing.assert_array_equal(one, other)


def test_layers_are_told_by_their_whole_name() -> None:
    scopes = LayerScopes(
        layer_scopes(nested(), nested()).graph, (), {"conv": "conv", "conv_1": "conv_1", "a/conv": "x"}
    )
    assert scopes.layer_of("conv/conv_1/Relu") == "conv"
    assert scopes.layer_of("conv_1/conv_1/Relu") == "conv_1"
    assert scopes.layer_of("a/conv/conv/while/cell/MatMul1") == "x"
    assert scopes.layer_of("conv_2/Relu") is None
    assert scopes.layer_of("conv") is None


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["none", "int8", "quantize-aware"])
@pytest.mark.parametrize("build", [keras.applications.MobileNetV2, keras.applications.MobileNetV3Small])
def test_every_operator_of_a_network_has_a_layer(folder: Path, build: Any, kind: str) -> None:
    keras.utils.set_random_seed(0)
    model = build((96, 96, 3), weights=None, classes=10)
    samples = np.random.default_rng(0).random((8, 96, 96, 3), np.float32)
    known = {layer.name for layer in model.layers}
    if kind == "quantize-aware":
        model = quantize_aware(model, calibration=samples)
    quantization = "none" if kind == "none" else "int8"
    artifact = export_tflite(model, folder / f"{model.name}.tflite", quantization, calibration=samples, verify=False)
    assert all(artifact.layers)
    if kind != "quantize-aware":
        assert {name for names in artifact.layers for name in names} <= known | {op.name for op in model.operations}
