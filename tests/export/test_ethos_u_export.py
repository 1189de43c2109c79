"""What Vela makes of an exported file: compiled whole or not at all, its estimates told in the user's layers."""

import json
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from tfopt import vela
from tfopt.artifact import Artifact
from tfopt.errors import ConfigError, DataError, ExportError, MissingExtraError, ModelError
from tfopt.export.ethos_u import export_ethos_u
from tfopt.export.ethos_u_estimate import CpuOperator, EthosUEstimate
from tfopt.export.tflite import export_tflite
from tfopt.export.tflite_file import read_tflite

pytestmark = [
    pytest.mark.usefixtures("conversion_in_this_process"),
    pytest.mark.skipif(find_spec("ethosu") is None, reason="the extra 'edge' (ethos-u-vela) is not installed"),
]

X = np.random.default_rng(0).random((32, 8, 8, 3), np.float32)


def convolutional() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3), name="image"),
            layers.Conv2D(64, 3, activation="relu", name="conv"),
            layers.Conv2D(64, 3, activation="relu", name="wide"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(3, name="scores"),
        ]
    )


@pytest.fixture(scope="module")
def int8(conversion_in_this_process: None, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return export_tflite(convolutional(), tmp_path_factory.mktemp("int8") / "m.tflite", calibration=X)


@pytest.fixture(scope="module")
def compiled(int8: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return export_ethos_u(int8, tmp_path_factory.mktemp("ethos") / "m.tflite", target="ethos_u55_128")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_an_artifact_is_compiled_and_recorded(int8: Artifact, compiled: Artifact) -> None:
    assert Artifact.load(compiled.path) == compiled
    assert read_tflite(compiled.path).operator_counts == {"CUSTOM ethos-u": 1}
    assert (compiled.inputs, compiled.outputs, compiled.recipe) == (int8.inputs, int8.outputs, int8.recipe)
    assert compiled.verification["compiled_from"] == int8.sha256
    assert compiled.verification["sqnr_db"] == int8.verification["sqnr_db"]
    record = json.loads(compiled.record_path.read_text())["verification"]["estimated"]
    assert (record["target"], record["accelerator_share"], record["cpu_operators"]) == ("ethos-u55-128", 1.0, [])


def test_the_estimate_is_read_back_and_says_that_it_is_one(int8: Artifact, compiled: Artifact) -> None:
    estimate = EthosUEstimate.of(Artifact.load(compiled.path))
    assert estimate.accelerator_share == 1.0
    assert estimate.operators == len(int8.layers)
    assert estimate.latency_ms == pytest.approx(estimate.cycles / 500e6 * 1e3)  # the system runs at 500 MHz
    assert 0 < estimate.sram_bytes < 10**6
    assert "ethos-u55-128, estimated by ethos-u-vela" in str(estimate)
    assert f"{len(int8.layers)} of {len(int8.layers)} operators (100 %)" in str(estimate)
    with pytest.raises(DataError, match="expected an artifact of export_ethos_u"):
        EthosUEstimate.of(int8)


@pytest.mark.slow
def test_zeros_shorten_the_estimate(compiled: Artifact, tmp_path: Path) -> None:
    model = convolutional()
    for name in ("conv", "wide"):
        kernel = model.get_layer(name).kernel
        values = kernel.numpy()
        kernel.assign(np.where(np.abs(values) < np.quantile(np.abs(values), 0.9), 0, values))
    pruned = export_ethos_u(model, tmp_path / "pruned.tflite", target="ethos-u55-128", calibration=X)
    assert EthosUEstimate.of(pruned).latency_ms < 0.8 * EthosUEstimate.of(compiled).latency_ms
    assert pruned.size_bytes < 0.8 * compiled.size_bytes
    assert sorted(content(tmp_path)) == ["pruned.artifact.json", "pruned.tflite"]


@pytest.mark.slow
def test_what_stays_on_the_cpu_is_told_by_layer_with_the_reason(tmp_path: Path) -> None:
    x = keras.Input((6, 8))
    h = layers.Activation(keras.ops.floor, name="whole")(layers.Dense(8, name="first")(x))
    model = keras.Model(x, layers.Dense(2, name="last")(h))
    samples = np.random.default_rng(0).normal(size=(32, 6, 8)).astype(np.float32)
    estimate = EthosUEstimate.of(export_ethos_u(model, tmp_path / "m.tflite", calibration=samples, allow_float=True))
    assert {one.layers for one in estimate.cpu_operators} == {("whole",)}
    floor = next(one for one in estimate.cpu_operators if one.operator == "FLOOR")
    assert floor.reason
    assert estimate.accelerator_share == 1 - len(estimate.cpu_operators) / estimate.operators
    assert f"FLOOR       whole   {floor.reason}" in str(estimate)


@pytest.mark.slow
def test_a_float_file_is_refused(tmp_path: Path) -> None:
    source = export_tflite(convolutional(), tmp_path / "float.tflite", "none", verify=False)
    with pytest.raises(ExportError, match=r"No operator of float\.tflite can run on ethos-u55-256: .*Float32") as error:
        export_ethos_u(source, tmp_path / "new" / "m.tflite", target="ethos-u55-256")
    assert "such as CONV_2D of conv (" in str(error.value)
    assert not (tmp_path / "new").exists()


def test_a_crash_leaves_the_folder_as_it_was(int8: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crashing = tmp_path / "vela"
    crashing.write_text("#!/bin/sh\nkill -FPE $$\n")
    crashing.chmod(0o755)
    monkeypatch.setattr(vela, "_vela", lambda: crashing)
    (tmp_path / "m.tflite").write_bytes(b"an older file")
    before = content(tmp_path)
    with pytest.raises(ExportError, match=r"Vela cannot compile .* it crashed \(SIGFPE\)"):
        export_ethos_u(int8, tmp_path / "m.tflite")
    assert content(tmp_path) == before


def test_other_inputs_and_outputs_are_refused(int8: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = export_tflite(convolutional(), tmp_path / "other.tflite", "none", verify=False)

    def compile_another(path: Path, accelerator: vela.Accelerator, folder: Path) -> vela.Compilation:
        return vela.Compilation(other.path, "vela", 1.0, 1, 1, 1, 0, {})

    monkeypatch.setattr("tfopt.export.ethos_u.compile_with_vela", compile_another)
    with pytest.raises(ExportError, match="Vela changed the inputs and outputs"):
        export_ethos_u(int8, tmp_path / "new" / "m.tflite")
    assert not (tmp_path / "new").exists()


def test_unusable_arguments_are_told(int8: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"export_ethos_u: target must be one of ethos-u55-32, .*Received: 'tpu'"):
        export_ethos_u(int8, tmp_path / "m.tflite", target="tpu")
    with pytest.raises(ConfigError, match=r"file ending in \.tflite\. Received: .*m\.bin"):
        export_ethos_u(int8, tmp_path / "m.bin")
    with pytest.raises(ConfigError, match=r"needs calibration="):
        export_ethos_u(convolutional(), tmp_path / "m.tflite")
    with pytest.raises(ModelError, match=r"Expected a Keras 3 model .*Received: str"):
        export_ethos_u("m.keras", tmp_path / "m.tflite")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="expected the record"):
        export_ethos_u(int8.model_copy(update={"path": tmp_path / "absent.tflite"}), tmp_path / "m.tflite")
    monkeypatch.setattr(vela.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(MissingExtraError, match="extra 'edge'"):
        export_ethos_u(int8, tmp_path / "m.tflite")
    assert content(tmp_path) == {}


def test_a_reason_reads_well_without_a_layer() -> None:
    assert str(CpuOperator("QUANTIZE", (), "Unsupported opType")) == "QUANTIZE of no layer (Unsupported opType)"
