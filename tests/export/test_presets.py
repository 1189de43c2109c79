"""The presets of export_tflite: each gives what its row in the table says, whichever engine quantizes."""

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from tfopt.artifact import Artifact
from tfopt.errors import ConfigError, ExportError
from tfopt.export.presets import PRESETS, presets_table
from tfopt.export.tflite import export_tflite
from tfopt.export.tflite_file import TfliteFile, read_tflite
from tfopt.export.tflite_runtime import run_tflite
from tfopt.quantization import quantize_aware
from tfopt.recipe import Recipe

pytestmark = [
    pytest.mark.usefixtures("conversion_in_this_process"),
    pytest.mark.filterwarnings("ignore:export_tflite. .* is slow on CPUs:UserWarning"),
]

X = np.random.default_rng(0).normal(size=(40, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 3), name="image"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(16, "tanh"),
            layers.Dense(4, name="logits"),
        ]
    )


@pytest.fixture(scope="module")
def artifacts(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("presets")
    return {
        preset: export_tflite(model, folder / f"{preset}.tflite", preset, calibration=X)
        for preset in ("int8_float_io", "weight_only_int4", "weight_only_int8", "none")
    }


def weight_dtypes(file: TfliteFile) -> set[str]:
    tensors = [tensor for operator in file.operators for tensor in operator.inputs]
    return {one.dtype for one in tensors if one.constant is not None and np.prod(one.shape) >= 1024}


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["int8_float_io", "weight_only_int4", "weight_only_int8", "none"])
def test_a_file_is_what_its_preset_says(preset: str, artifacts: dict[str, Artifact]) -> None:
    artifact, expected = artifacts[preset], PRESETS[preset]
    assert {spec.dtype for spec in (*artifact.inputs, *artifact.outputs)} == {expected.tensors}
    assert weight_dtypes(read_tflite(artifact.path)) == {expected.weights.upper()}
    assert artifact.verification["sqnr_db"] >= expected.minimum_sqnr_db
    assert Recipe.from_dict(artifact.recipe).quantization == preset


def test_with_float_input_and_output_everything_between_is_integer(artifacts: dict[str, Artifact]) -> None:
    artifact = artifacts["int8_float_io"]
    assert artifact.verification["full_integer"] is False
    assert "float_operators" not in artifact.verification
    floats = [operator.name for operator in read_tflite(artifact.path).operators if operator.is_float]
    assert floats == ["QUANTIZE", "DEQUANTIZE"]


def test_fewer_bits_make_smaller_files(artifacts: dict[str, Artifact]) -> None:
    sizes = {preset: artifact.size_bytes for preset, artifact in artifacts.items()}
    assert sizes["weight_only_int4"] < 0.7 * sizes["weight_only_int8"] < 0.3 * sizes["none"]


@pytest.mark.slow
def test_a_quantize_aware_model_keeps_its_ranges_behind_float_inputs(model: keras.Model, tmp_path: Path) -> None:
    aware = quantize_aware(model, calibration=X)
    artifact = export_tflite(aware, tmp_path / "model.tflite", "int8_float_io")
    expected = aware.predict(X, verbose=0)
    received = run_tflite(artifact.path, {"image": X})["logits"]
    step = read_tflite(artifact.path).operators[-1].inputs[0].scales[0]
    assert np.abs(received - expected).max() <= 1.01 * step


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["int8", "int8_float_io"])
def test_the_better_engine_is_kept(preset: str, model: keras.Model, tmp_path: Path) -> None:
    best = export_tflite(model, tmp_path / "best.tflite", preset, calibration=X, engine="best")
    ratios = best.verification["engines_sqnr_db"]
    assert ratios.keys() == {"converter", "ai-edge-quantizer"}
    assert best.verification["engine"] == max(ratios, key=ratios.get)
    assert best.verification["sqnr_db"] == max(ratios.values())
    assert {spec.dtype for spec in (*best.inputs, *best.outputs)} == {PRESETS[preset].tensors}
    assert "float_operators" not in best.verification


@pytest.mark.slow
def test_an_engine_that_fails_is_named(model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tfopt.export import tflite

    convert = tflite.convert_saved_model

    def fail_in_one(*arguments: Any, engine: str, **options: Any) -> None:
        if engine == "converter":
            raise ExportError("The TFLite converter was ended by signal 11")
        convert(*arguments, engine=engine, **options)

    monkeypatch.setattr(tflite, "convert_saved_model", fail_in_one)
    artifact = export_tflite(model, tmp_path / "model.tflite", "int8", calibration=X, engine="best")
    assert artifact.verification["engine"] == "ai-edge-quantizer"
    assert "signal 11" in artifact.verification["engines_sqnr_db"]["converter"]

    def fail(*_: Any, engine: str, **__: Any) -> None:
        raise ExportError(f"{engine} failed")

    monkeypatch.setattr(tflite, "convert_saved_model", fail)
    with pytest.raises(ExportError, match=r"No engine gave .* converter: converter failed ai-edge.*: .* failed"):
        export_tflite(model, tmp_path / "other.tflite", "int8", calibration=X, engine="best")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.artifact.json", "model.tflite"]


@pytest.mark.slow
def test_dense_kernels_can_have_one_scale(model: keras.Model, tmp_path: Path) -> None:
    artifact = export_tflite(model, tmp_path / "model.tflite", "int8", calibration=X, per_channel_dense=False)
    scales = {
        operator.name: len(operator.inputs[1].scales)
        for operator in read_tflite(artifact.path).operators
        if operator.name in {"CONV_2D", "FULLY_CONNECTED"}
    }
    assert scales == {"CONV_2D": 32, "FULLY_CONNECTED": 1}


@pytest.mark.parametrize(("preset", "slower"), [("int16x8", "20"), ("weight_only_int4", "3.9")])
def test_a_slow_preset_says_so_before_it_is_converted(
    preset: str, slower: str, model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise ExportError("stopped")

    monkeypatch.setattr("tfopt.export.tflite.convert_saved_model", stop)
    with pytest.warns(UserWarning, match=rf"{preset} is slow on CPUs: {slower} times"), pytest.raises(ExportError):
        export_tflite(model, tmp_path / "model.tflite", preset, calibration=X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "toco"}, "engine must be one of converter, ai-edge-quantizer, best. Received: 'toco'"),
        ({"engine": "best", "verify": False}, "decided by the verification. Received: verify=False"),
        ({"engine": "ai-edge-quantizer", "quantization": "float16"}, "quantizes to int8.* Received: float16"),
        ({"engine": "best", "per_channel_dense": False}, "Received: int8, engine='best'"),
        ({"per_channel_dense": False, "quantization": "none"}, "Received: none, engine='converter'"),
    ],
)
def test_options_that_do_not_go_together_are_told(
    options: dict[str, Any], message: str, model: keras.Model, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        export_tflite(model, tmp_path / "model.tflite", **{"quantization": "int8", "calibration": X} | options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "ai-edge-quantizer"}, "keeps the ranges it learned"),
        ({"per_channel_dense": False}, "Received: a quantize-aware model"),
    ],
)
def test_a_quantize_aware_model_has_decided(
    options: dict[str, Any], message: str, model: keras.Model, tmp_path: Path
) -> None:
    aware = quantize_aware(model, calibration=X)
    with pytest.raises(ConfigError, match=message):
        export_tflite(aware, tmp_path / "model.tflite", "int8", **options)


def test_int16_activations_need_float_inputs(tmp_path: Path) -> None:
    tokens = keras.Input((5,), dtype="int32", name="tokens")
    model = keras.Model(tokens, layers.Flatten()(layers.Embedding(9, 4)(tokens)))
    with pytest.raises(ConfigError, match=r"cannot calibrate int16x8 for integer inputs.* Received: tokens int32"):
        export_tflite(model, tmp_path / "model.tflite", "int16x8", calibration=np.zeros((3, 5), np.int32))


def test_the_table_names_every_preset_of_a_recipe() -> None:
    lines = presets_table().splitlines()
    assert [re.split(r"\s+", line)[0] for line in lines[1:]] == list(PRESETS)
    for name in PRESETS:
        assert Recipe(quantization=name).quantization == name


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lstm", "gru", "bidirectional", "attention"])
def test_recurrent_layers_and_attention_become_integer(kind: str, tmp_path: Path) -> None:
    x = keras.Input((8, 6))
    y = {
        "lstm": lambda: layers.LSTM(8)(x),
        "gru": lambda: layers.GRU(8)(layers.GRU(8, return_sequences=True)(x)),
        "bidirectional": lambda: layers.Bidirectional(layers.LSTM(4))(x),
        "attention": lambda: layers.Flatten()(
            layers.LayerNormalization()(layers.MultiHeadAttention(2, 4)(layers.LayerNormalization()(x), x))
        ),
    }[kind]()
    samples = np.random.default_rng(0).normal(size=(32, 8, 6)).astype(np.float32)
    artifact = export_tflite(keras.Model(x, layers.Dense(3)(y)), tmp_path / "model.tflite", "int8", calibration=samples)
    assert artifact.verification["full_integer"] is True
    assert artifact.verification["sqnr_db"] > 20
