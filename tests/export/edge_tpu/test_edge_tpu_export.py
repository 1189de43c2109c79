"""Files for the Edge TPU: equal layers that it has, and a verdict that is predicted or the compiler's own."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import tfopt
from tfopt.artifact import Artifact
from tfopt.errors import ConfigError, DataError, ExportError, ModelError
from tfopt.export.edge_tpu import predict
from tfopt.export.edge_tpu.compiler import Compilation, OperatorStatus
from tfopt.export.edge_tpu.rewrites import rewrite_for_edge_tpu
from tfopt.export.tflite_file import read_tflite
from tfopt.export.tflite_runtime import run_tflite

pytestmark = pytest.mark.usefixtures("conversion_in_this_process")

IMAGES = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype(np.float32)


def leaky() -> keras.Model:
    """Leaky ReLUs of three kinds."""
    x = keras.Input((8, 8, 3))
    h = layers.Conv2D(4, 3, activation="leaky_relu", name="first")(x)
    h = layers.LeakyReLU(0.1, name="second")(layers.Conv2D(4, 3)(h))
    h = layers.Flatten()(keras.ops.leaky_relu(h, 0.3))
    return keras.Model(x, layers.Dense(3, name="scores")(h))


def on_sequence() -> keras.Model:
    """A Dense layer used twice on sequences, and one that is not on a sequence."""
    x = keras.Input((6, 8))
    shared = layers.Dense(8, "relu", name="shared")
    h = layers.Dense(4, "leaky_relu", name="last")(shared(shared(x)))
    h = layers.Flatten()(h)
    return keras.Model(x, layers.Dense(3, name="scores")(h))


@pytest.fixture(scope="module")
def artifact(conversion_in_this_process: None, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    path = tmp_path_factory.mktemp("edge_tpu") / "model.tflite"
    return tfopt.export_edge_tpu(leaky(), path, calibration=IMAGES)


@pytest.mark.parametrize("build", [leaky, on_sequence])
def test_rewritten_layers_compute_the_same(build: Any) -> None:
    model = build()
    rewritten = rewrite_for_edge_tpu(model)
    x = np.random.default_rng(1).normal(size=(5, *model.input_shape[1:])).astype(np.float32)
    np.testing.assert_allclose(rewritten(x), model(x), rtol=1e-5, atol=1e-6)
    kinds = [type(layer) for layer in rewritten.layers]
    assert layers.LeakyReLU not in kinds
    assert kinds.count(layers.PReLU) == (3 if build is leaky else 1)
    assert kinds.count(layers.Conv1D) == (0 if build is leaky else 2)  # one is shared as the Dense layer was


def test_a_model_that_needs_nothing_stays_as_it_is() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu")])
    assert rewrite_for_edge_tpu(model) is model


@pytest.mark.slow
def test_the_file_maps_whole_where_the_plain_one_does_not(artifact: Artifact, tmp_path: Path) -> None:
    plain = tfopt.export_tflite(leaky(), tmp_path / "plain.tflite", "int8", calibration=IMAGES)
    assert not predict(plain).is_fully_mapped
    assert predict(artifact).is_fully_mapped
    found = artifact.verification["edge_tpu"]
    assert (found["source"], found["on_cpu"]) == ("predicted", {})
    assert found["mapped_operators"] == found["operators"] == len(read_tflite(artifact.path).operators)
    assert artifact.verification["full_integer"] is True
    assert Artifact.load(artifact.path) == artifact


def test_what_stays_on_the_cpu_is_recorded_by_layer(tmp_path: Path) -> None:
    x = keras.Input((8, 8, 3))
    model = keras.Model(
        x, layers.Dense(2)(layers.Flatten()(layers.Activation("hard_silu", name="bend")(layers.Conv2D(4, 3)(x))))
    )
    artifact = tfopt.export_edge_tpu(model, tmp_path / "model.tflite", calibration=IMAGES)
    found = artifact.verification["edge_tpu"]
    assert found["mapped_operators"] < found["operators"]
    assert any("layer `bend" in reason for reason in found["on_cpu"].values())


@pytest.mark.slow
def test_a_quantize_aware_model_keeps_its_layers_and_dense_kernels_may_have_one_scale(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(4, name="scores")])
    aware = tfopt.quantize_aware(model, calibration=IMAGES)
    assert tfopt.export_edge_tpu(aware, tmp_path / "aware.tflite").verification["edge_tpu"]["on_cpu"] == {}
    one = tfopt.export_edge_tpu(model, tmp_path / "one.tflite", calibration=IMAGES, per_channel_dense=False)
    [dense] = [one for one in read_tflite(one.path).operators if one.name == "FULLY_CONNECTED"]
    assert len(dense.inputs[1].scales) == 1


@pytest.mark.slow
@pytest.mark.parametrize("trained_for_it", [False, True])
def test_uint8_tensors_hold_the_same_values_and_the_edge_tpu_converts_them(
    trained_for_it: bool, tmp_path: Path
) -> None:
    model = keras.Sequential(
        [keras.Input((8, 8, 3), name="image"), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3, name="scores")]
    )
    given = tfopt.quantize_aware(model, calibration=IMAGES) if trained_for_it else model
    calibration = None if trained_for_it else IMAGES
    signed, unsigned = (
        tfopt.export_edge_tpu(given, tmp_path / f"{io_dtype}.tflite", calibration=calibration, io_dtype=io_dtype)
        for io_dtype in ("int8", "uint8")
    )
    for one, other in ((signed.inputs, unsigned.inputs), (signed.outputs, unsigned.outputs)):
        assert (one[0].dtype, other[0].dtype, one[0].scale) == ("int8", "uint8", other[0].scale)
        assert other[0].zero_point == one[0].zero_point + 128  # type: ignore[operator]
    assert unsigned.verification["full_integer"] is True
    for xnnpack in (True, False):
        received = [run_tflite(one.path, {"image": IMAGES}, xnnpack=xnnpack) for one in (signed, unsigned)]
        np.testing.assert_array_equal(received[0]["scores"], received[1]["scores"])
    prediction = predict(unsigned)
    kinds = [operator.name for operator in prediction.operators]
    assert kinds[0] == kinds[-1] == "QUANTIZE"
    assert prediction.is_fully_mapped


def test_the_compilers_verdict_counts_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_beside(path: Path, compiled: Path) -> Compilation:
        compiled.write_bytes(b"compiled")
        operators = (OperatorStatus("CONV_2D", 2, "Mapped to Edge TPU"), OperatorStatus("PRELU", 1, "Too new"))
        return Compilation("16.0", compiled, operators, 1, cached_bytes=9, remaining_bytes=7, streamed_bytes=0)

    monkeypatch.setattr("tfopt.export.edge_tpu.exporter.compile_for_edge_tpu", compile_beside)
    artifact = tfopt.export_edge_tpu(leaky(), tmp_path / "model.tflite", calibration=IMAGES)
    assert artifact.verification["edge_tpu"] == {
        "source": "edgetpu_compiler 16.0",
        "operators": 3,
        "mapped_operators": 2,
        "subgraphs": 1,
        "cached_bytes": 9,
        "streamed_bytes": 0,
        "on_cpu": {"PRELU": "Too new"},
    }
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["model.artifact.json", "model.tflite", "model_edgetpu.tflite"]
    assert (tmp_path / "model_edgetpu.tflite").read_bytes() == b"compiled"


@pytest.mark.slow
def test_a_compiler_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, compiled: Path) -> None:
        raise ExportError("edgetpu_compiler crashed (SIGSEGV)")

    monkeypatch.setattr("tfopt.export.edge_tpu.exporter.compile_for_edge_tpu", fail)
    with pytest.raises(ExportError, match="SIGSEGV"):
        tfopt.export_edge_tpu(leaky(), tmp_path / "model.tflite", calibration=IMAGES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"path": "model.bin"}, ConfigError, r"ending in \.tflite\. Received: .*model\.bin"),
        ({"calibration": None}, ConfigError, "int8 needs calibration"),
        ({"calibration": IMAGES[:0]}, DataError, "is empty"),
        ({"io_dtype": "float32"}, ConfigError, "must be 'int8' for int8; 'uint8' .* Received: 'float32'"),
        ({"io_dtype": "uint8", "engine": "best"}, ConfigError, "by the converter. Received: 'uint8', engine='best'"),
        ({"model": "model.keras"}, ModelError, "Expected a Keras 3 model"),
    ],
)
def test_unusable_arguments_are_told(
    change: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    call = {"model": leaky(), "path": "model.tflite", "calibration": IMAGES} | change
    with pytest.raises(error, match=message):
        tfopt.export_edge_tpu(**call | {"path": tmp_path / call["path"]})
    assert list(tmp_path.iterdir()) == []
