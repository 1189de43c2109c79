"""Every mode of a quantize-aware model, to the file: it computes there what it computes in Keras."""

from pathlib import Path
from typing import get_args

import keras
import numpy as np
import pytest
from keras import layers

from tfopt.errors import ConfigError, ExportError
from tfopt.export.tflite import export_tflite
from tfopt.export.tflite_file import Operator, read_tflite
from tfopt.quantization import coverage, quantize_aware, settings_of
from tfopt.quantization.layers import FakeQuantize, LearnedFakeQuantize, QuantizeAware
from tfopt.quantization.spec import activation_grid
from tfopt.recipe import Quantization, QuantizationConfig

pytestmark = [
    pytest.mark.usefixtures("conversion_in_this_process"),
    pytest.mark.filterwarnings("ignore:export_tflite. int16x8 is slow on CPUs:UserWarning"),
]

SAMPLES = np.random.default_rng(1).normal(0.3, 1.0, (48, 16, 16, 3)).astype(np.float32)


def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    x = keras.Input((16, 16, 3), name="x")
    y = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(x)
    y = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_norm")(y))
    y = layers.ReLU(6.0)(layers.DepthwiseConv2D(3, padding="same", name="depthwise")(y))
    scale = layers.Dense(16, "sigmoid", name="squeeze")(layers.GlobalAveragePooling2D(keepdims=True)(y))
    y = layers.Multiply(name="excite")([y, scale])
    y = layers.Add(name="residual")([y, layers.Conv2D(16, 1, name="pointwise")(y)])
    y = layers.Flatten()(layers.MaxPooling2D(4)(y))
    return keras.Model(x, layers.Dense(20, "softmax", name="scores")(y))


def operators(path: Path, name: str) -> list[Operator]:
    return [operator for operator in read_tflite(path).operators if operator.name == name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "minimum_sqnr_db", "weights", "activations"),
    [
        ("int8", 40, "INT8", "INT8"),
        ("int16x8", 70, "INT8", "INT16"),
        ("dynamic", 40, "INT8", "FLOAT32"),
        ("weight_only_int8", 110, "FLOAT32", "FLOAT32"),
        ("float16", 80, "FLOAT32", "FLOAT32"),
        ("none", 110, "FLOAT32", "FLOAT32"),
    ],
)
def test_the_file_computes_what_keras_computes(
    mode: str, minimum_sqnr_db: float, weights: str, activations: str, tmp_path: Path
) -> None:
    aware = quantize_aware(model(), calibration=SAMPLES, config=mode, strict=True)
    artifact = export_tflite(aware, tmp_path / "model.tflite", calibration=SAMPLES)
    assert artifact.recipe["quantization"] == mode
    assert artifact.verification["sqnr_db"] > minimum_sqnr_db
    assert artifact.verification["full_integer"] == (mode in {"int8", "int16x8"})
    scores = operators(artifact.path, "FULLY_CONNECTED")[-1]
    assert (scores.inputs[0].dtype, scores.inputs[1].dtype) == (activations, weights)
    if mode in {"int8", "int16x8"}:
        assert artifact.verification["max_lsb"] <= 1.001


def test_every_mode_is_tested_above() -> None:
    [mark] = [mark for mark in test_the_file_computes_what_keras_computes.pytestmark if mark.name == "parametrize"]
    assert {case[0] for case in mark.args[1]} == set(get_args(Quantization))


@pytest.mark.slow
def test_dense_kernels_have_one_scale_on_request(tmp_path: Path) -> None:
    for per_channel, count in ((True, 20), (False, 1)):
        aware = quantize_aware(
            model(), calibration=SAMPLES, config=QuantizationConfig(per_channel_dense=per_channel), strict=True
        )
        artifact = export_tflite(aware, tmp_path / f"{count}.tflite", calibration=SAMPLES)
        assert len(operators(artifact.path, "FULLY_CONNECTED")[-1].inputs[1].scales) == count
        assert len(operators(artifact.path, "DEPTHWISE_CONV_2D")[0].inputs[1].scales) == 16
        assert artifact.verification["max_lsb"] <= 1.001


@pytest.mark.slow
def test_layers_kept_in_float_are_float_in_the_file(tmp_path: Path) -> None:
    aware = quantize_aware(model(), calibration=SAMPLES, layers={"depthwise": "none", "sco.*": "none"}, strict=True)
    kept = {row.layer for row in coverage(aware).in_float}
    assert kept == {"depthwise", "scores", "scores_activation"}
    artifact = export_tflite(aware, tmp_path / "model.tflite", calibration=SAMPLES)
    assert [operator.is_float for operator in operators(artifact.path, "DEPTHWISE_CONV_2D")] == [True]
    assert [operator.is_float for operator in operators(artifact.path, "CONV_2D")] == [False, False]
    assert [operator.is_float for operator in operators(artifact.path, "FULLY_CONNECTED")] == [False, True]
    assert artifact.verification["max_lsb"] <= 1.001
    assert artifact.verification["float_operators"]["DEPTHWISE_CONV_2D"] == ["depthwise"]
    assert (artifact.inputs[0].dtype, artifact.outputs[0].dtype) == ("int8", "int8")


@pytest.mark.slow
def test_a_layer_without_an_integer_operator_may_compute_in_float_on_request(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    float_model = keras.Sequential([keras.Input((4,)), layers.Dense(8, "squareplus", name="hidden"), layers.Dense(2)])
    for candidate in (float_model, quantize_aware(float_model, calibration=x)):
        with pytest.raises(ExportError, match="allow_float=True"):
            export_tflite(candidate, tmp_path / "model.tflite", calibration=x)
        artifact = export_tflite(candidate, tmp_path / "model.tflite", calibration=x, allow_float=True)
        assert artifact.verification["float_operators"]
        assert not artifact.verification["full_integer"]


@pytest.mark.slow
def test_another_quantization_takes_the_float_model_within(tmp_path: Path) -> None:
    aware = quantize_aware(model(), calibration=SAMPLES, config="dynamic")
    artifact = export_tflite(aware, tmp_path / "model.tflite", "int8", calibration=SAMPLES)
    assert artifact.verification["full_integer"]
    with pytest.raises(ConfigError, match="int8 needs calibration"):
        export_tflite(aware, tmp_path / "model.tflite", "int8")
    with pytest.raises(ConfigError, match="int16x8 needs calibration"):
        export_tflite(quantize_aware(model(), config="int16x8"), tmp_path / "model.tflite")


@pytest.mark.thorough
def test_learned_ranges_start_at_the_data_and_follow_the_loss(tmp_path: Path) -> None:
    config = QuantizationConfig(learn_ranges=True)
    aware = quantize_aware(model(), calibration=SAMPLES, config=config)
    learned = [layer for layer in aware.layers if isinstance(layer, LearnedFakeQuantize)]
    assert learned
    assert not [layer for layer in aware.layers if isinstance(layer, FakeQuantize)]
    np.testing.assert_allclose([float(end) for end in learned[0].range()], [SAMPLES.min(), SAMPLES.max()], rtol=1e-6)
    before = [float(layer.maximum) for layer in learned]
    labels = np.arange(len(SAMPLES)) % 20
    aware.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    losses = aware.fit(SAMPLES, labels, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert [float(layer.maximum) for layer in learned] != before
    aware.save(tmp_path / "aware.keras")
    loaded = keras.models.load_model(tmp_path / "aware.keras")
    assert settings_of(loaded)[0] == config
    artifact = export_tflite(loaded, tmp_path / "model.tflite", calibration=SAMPLES)
    assert artifact.verification["max_lsb"] <= 1.001


@pytest.mark.slow
@pytest.mark.parametrize("method", ["percentile", "mse", "entropy"])
def test_searched_ranges_lie_within_what_was_reached(method: str) -> None:
    widest = quantize_aware(model(), calibration=SAMPLES)
    searched = quantize_aware(model(), calibration=SAMPLES, config=QuantizationConfig(ranges=method))
    for wide, narrow in zip(widest.layers, searched.layers, strict=True):
        if isinstance(wide, FakeQuantize):
            outer, inner = ([float(end) for end in layer.range()] for layer in (wide, narrow))
            assert outer[0] <= inner[0] + 1e-6
            assert inner[1] <= outer[1] + 1e-6


def test_the_models_own_layers_name_what_is_kept_in_float() -> None:
    aware = quantize_aware(model(), layers={"squeeze|stem_norm": "weight_only_int8"})
    rows = {row.layer: row for row in coverage(aware).rows}
    assert rows["squeeze"].remark == "int8 weights; mode weight_only_int8"
    assert rows["squeeze_activation"].remark == "mode weight_only_int8"
    assert rows["stem_norm"].arithmetic == "float"
    assert rows["stem"].arithmetic == "int8"
    wrapped = {layer.name for layer in aware.layers if isinstance(layer, QuantizeAware)}
    assert {"squeeze_int8", "stem_int8"} <= wrapped


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": {"absent": "none"}}, r"layers='absent' matches no layer .* Its layers: .*depthwise"),
        ({"layers": {"[": "none"}}, "must be regular expressions"),
        ({"layers": {"stem": "int4"}}, r"mode: .*Received: 'int4'"),
        ({"config": "int3"}, r"mode: .*Received: 'int3'"),
        ({"config": {"mode": "int8", "bits": 4}}, r"bits: .*Received: 4"),
        ({"config": QuantizationConfig(learn_ranges=True)}, r"start from calibration=\.\.\."),
        ({"config": QuantizationConfig(ranges="mse")}, r"start from calibration=\.\.\."),
        ({"layers": {"stem": "int16x8"}}, "int16x8 is for a whole model"),
        ({"config": "int16x8", "layers": {"stem": "none"}}, "int16x8 is for a whole model"),
    ],
)
def test_what_cannot_be_is_told(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        quantize_aware(model(), **options)


def test_int16_grids_are_symmetric_around_zero() -> None:
    grid = activation_grid(-1.0, 3.0, bits=16)
    assert grid.zero_point == 0
    assert grid.maximum == pytest.approx(3.0)
    assert grid.quantize(np.array([-9.0, -1.0, 0.0, 3.0])).tolist() == [-32768, -10922, 0, 32767]
    fixed = activation_grid(-1.0, 32767 / 32768, bits=16)
    assert fixed.scale == pytest.approx(1 / 32768)
