"""What every exporter of the public API keeps to: verified, recorded, whole or nothing, clear about bad input."""

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfopt
from tfopt.artifact import Artifact, content_sha256, content_size_bytes
from tfopt.errors import ConfigError, DataError, ExportError, ModelError

pytestmark = pytest.mark.usefixtures("conversion_in_this_process")

X = np.random.default_rng(0).normal(size=(48, 6)).astype(np.float32)


@dataclass(frozen=True)
class Exporter:
    """One way of the public API to write a model.

    Args:
        write: takes a model, a folder, and calibration samples.
        converter: what does the writing, to be made to fail.
        must_calibrate: whether it refuses to work without samples.
    """

    write: Callable[[keras.Model, Path, Any], Artifact]
    converter: str
    must_calibrate: bool = False


def tflite(quantization: str, *, aware: bool = False) -> Exporter:
    def write(model: keras.Model, folder: Path, calibration: Any) -> Artifact:
        if aware:
            model = tfopt.quantize_aware(model, calibration=X if calibration is None else calibration)
        return tfopt.export_tflite(model, folder / "model.tflite", quantization, calibration=calibration)

    return Exporter(
        write, "tfopt.export.tflite.convert_saved_model", must_calibrate=quantization == "int8" and not aware
    )


def onnx(quantization: str) -> Exporter:
    def write(model: keras.Model, folder: Path, calibration: Any) -> Artifact:
        return tfopt.export_onnx(model, folder / "model.onnx", quantization, calibration=calibration)

    return Exporter(write, "tfopt.export.onnx.convert_to_onnx", must_calibrate=quantization == "int8")


def accelerator(export: str) -> Exporter:
    def write(model: keras.Model, folder: Path, calibration: Any) -> Artifact:
        return getattr(tfopt, export)(model, folder / "model.tflite", calibration=calibration)

    return Exporter(write, "tfopt.export.tflite.convert_saved_model", must_calibrate=True)


EXPORTERS = {
    "tflite none": tflite("none"),
    "tflite float16": tflite("float16"),
    "tflite dynamic": tflite("dynamic"),
    "tflite int8": tflite("int8"),
    "tflite int8 quantization-aware": tflite("int8", aware=True),
    "edge tpu": accelerator("export_edge_tpu"),
    "ethos-u": accelerator("export_ethos_u"),
    "onnx none": onnx("none"),
    "onnx float16": onnx("float16"),
    "onnx int8": onnx("int8"),
    "serving": Exporter(
        lambda model, folder, calibration: tfopt.export_serving(model, folder, name="model", data=calibration),
        "tfopt.serving.folder.write_saved_model",
    ),
}


@pytest.fixture(params=EXPORTERS.values(), ids=EXPORTERS.keys())
def exporter(request: pytest.FixtureRequest) -> Exporter:
    return request.param


def model(units: int = 3, *, hidden: int = 8) -> keras.Model:
    keras.utils.set_random_seed(units)
    return keras.Sequential(
        [
            keras.Input((6,), name="features"),
            keras.layers.Dense(hidden, "relu", name="hidden"),
            keras.layers.Dense(units, "softmax", name="scores"),
        ],
        name="classifier",
    )


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_artifact_is_verified_and_recorded_and_the_model_left_alone(exporter: Exporter, tmp_path: Path) -> None:
    exported = model()
    exported.compile("sgd", "mse")
    weights = exported.get_weights()
    artifact = exporter.write(exported, tmp_path, X)
    assert artifact.path.exists()
    assert artifact.path.is_relative_to(tmp_path)
    assert Artifact.load(artifact.path) == artifact
    assert (artifact.sha256, artifact.size_bytes) == (
        content_sha256(artifact.path),
        content_size_bytes(artifact.path),
    )
    assert [(spec.name, spec.shape[1:]) for spec in artifact.inputs] == [("features", (6,))]
    assert [(spec.name, spec.shape[1:]) for spec in artifact.outputs] == [("scores", (3,))]
    assert artifact.verification["samples"] >= 3
    assert artifact.verification["max_absolute_error"] < 0.05
    assert artifact.verification["top1_agreement"] > 0.9
    assert artifact.versions["keras"] == keras.__version__
    assert str(artifact.path) in str(artifact)
    assert [name for name in content(tmp_path) if "partial" in name] == []

    for before, after in zip(weights, exported.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert exported.compiled
    assert all(layer.trainable for layer in exported.layers)


@pytest.mark.parametrize("failure", [ExportError("The converter crashed"), KeyboardInterrupt()])
def test_a_failure_in_the_middle_leaves_the_folder_as_it_was(
    exporter: Exporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    (tmp_path / "notes.txt").write_text("the user's own")
    (tmp_path / "model.tflite").write_bytes(b"an older file")
    before = content(tmp_path)

    def fail(source: Any, path: str | Path, **options: Any) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if Path(path).suffix in {".tflite", ".onnx"}:
            Path(path).write_bytes(b"half")
        else:
            Path(path).mkdir()
            Path(path, "saved_model.pb").write_bytes(b"half")
        raise failure

    monkeypatch.setattr(exporter.converter, fail)
    with pytest.raises(type(failure)):
        exporter.write(model(), tmp_path, X)
    assert content(tmp_path) == before


def nan_model() -> keras.Model:
    broken = model()
    broken.get_layer("hidden").bias.assign([0, np.nan, 0, 0, 0, 0, 0, 0])
    return broken


def unbuilt_model() -> keras.Model:
    return keras.Sequential([keras.layers.Dense(3)], name="unbuilt")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (nan_model, "hidden/bias' of the model 'classifier' has NaN or infinite values"),
        (unbuilt_model, "'unbuilt' is not built"),
        (lambda: "model.keras", r"Expected a Keras 3 model \(keras\.Model\)\. Received: str"),
        (lambda: None, r"Expected a Keras 3 model \(keras\.Model\)\. Received: NoneType"),
    ],
    ids=["nan", "unbuilt", "path", "none"],
)
def test_what_is_no_sound_keras_model_is_refused(
    exporter: Exporter, tmp_path: Path, build: Callable[[], Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        exporter.write(build(), tmp_path, X)
    assert content(tmp_path) == {}


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (np.zeros((5, 7)), r"data for input 'features' must have shape \(n, 6\)\. Received: \(5, 7\)"),
        (np.zeros(6), r"must have shape \(n, 6\)\. Received: \(6,\)"),
        (np.zeros((0, 6)), "data for input 'features' is empty: give at least one sample"),
        (np.full((5, 6), np.nan), "must be finite. Received: 30 NaN or infinite values"),
        (np.full((5, 6), "a"), "must be numbers. Received dtype: <U1"),
        ({"pixels": X}, r"data lacks the inputs \['features'\]\. Received: \['pixels'\]"),
    ],
    ids=["shape", "rank", "empty", "nan", "text", "name"],
)
def test_data_that_does_not_fit_is_refused(exporter: Exporter, tmp_path: Path, calibration: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        exporter.write(model(), tmp_path, calibration)
    assert content(tmp_path) == {}


def test_a_place_that_cannot_be_written_is_refused(exporter: Exporter, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigError, match=r"Cannot write .*file.*: expected a folder that can be created"):
        exporter.write(model(), tmp_path / "file" / "below", X)
    assert content(tmp_path) == {"file": b"not a folder"}


MEMORY_BYTES = 64 * 1024
"""Of the disks that are full: what a model of 100,000 weights does not fit into in any precision."""


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system in memory, with the options given."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"mounted {len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("this process may not mount a file system")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def largest_file() -> Iterator[None]:
    """Lets this process write small files only, which needs no rights, unlike a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEMORY_BYTES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
def test_a_full_disk_is_told_and_nothing_is_left_on_it(exporter: Exporter, mount: Callable[[str], Path]) -> None:
    folder = mount(f"size={MEMORY_BYTES}")
    (folder / "model.tflite").write_bytes(b"an older file")
    with pytest.raises((ConfigError, ExportError), match=r"expected free space.*No space left on device"):
        exporter.write(model(hidden=20_000), folder, X)
    assert content(folder) == {"model.tflite": b"an older file"}
    assert [path.name for path in folder.iterdir()] == ["model.tflite"]


def test_a_full_disk_for_temporary_files_is_told(
    exporter: Exporter, mount: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary, folder = mount(f"size={MEMORY_BYTES}"), tmp_path / "out"
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    if "serving" in exporter.converter:  # it writes beside the place itself
        assert exporter.write(model(hidden=20_000), folder, X).path.exists()
        return
    with pytest.raises((ConfigError, ExportError), match=r"expected free space.*No space left on device"):
        exporter.write(model(hidden=20_000), folder, X)
    assert not folder.exists()
    assert list(temporary.iterdir()) == []


@pytest.mark.usefixtures("largest_file")
def test_a_file_larger_than_the_process_may_write_is_told(exporter: Exporter, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, ExportError), match=r"expected free space.*File too large"):
        exporter.write(model(hidden=20_000), tmp_path / "out", X)
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_folder_is_refused(exporter: Exporter, mount: Callable[[str], Path]) -> None:
    folder = mount("ro")
    with pytest.raises(ConfigError, match=r"Cannot write .*expected a folder that can be created and written"):
        exporter.write(model(), folder, X)
    assert list(folder.iterdir()) == []


@keras.saving.register_keras_serializable("tests")
class Gate(keras.layers.Layer):
    """A layer of the user's own, of operations that every format has."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x: Any) -> Any:
        return x * keras.ops.sigmoid(x * self.scale)


@keras.saving.register_keras_serializable("tests")
class PythonFunction(keras.layers.Layer):
    """One that computes in Python, for which no format has an operator."""

    def call(self, x: Any) -> Any:
        return tf.ensure_shape(tf.numpy_function(lambda array: 2 * array, [x], tf.float32), x.shape)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


@keras.saving.register_keras_serializable("tests")
class Untraceable(PythonFunction):
    """One that wants numbers where a graph has none yet."""

    def call(self, x: Any) -> Any:
        return x * float(keras.ops.convert_to_numpy(x).max())


def with_layer(layer: keras.layers.Layer) -> keras.Model:
    keras.utils.set_random_seed(0)
    x = keras.Input((6,), name="features")
    return keras.Model(x, keras.layers.Dense(3, name="scores")(layer(keras.layers.Dense(6, name="hidden")(x))))


@pytest.mark.slow
def test_a_layer_of_the_users_own_is_exported(exporter: Exporter, tmp_path: Path) -> None:
    artifact = exporter.write(with_layer(Gate(name="own")), tmp_path, X)
    assert artifact.verification["max_absolute_error"] < 0.1
    assert not artifact.layers or any("own" in names for names in artifact.layers)


def test_a_layer_that_has_no_operator_is_named(exporter: Exporter, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no operator for Py.*own.*PyFunc.*\. Build the layer of other operations"):
        exporter.write(with_layer(PythonFunction(name="own")), tmp_path, X)
    assert content(tmp_path) == {}


def test_a_layer_that_cannot_be_traced_is_named(exporter: Exporter, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"calling Untraceable\.call\(\)\. .*symbolic.*keras\.ops or TensorFlow"):
        exporter.write(with_layer(Untraceable(name="own")), tmp_path, X)
    assert content(tmp_path) == {}


@pytest.mark.parametrize("shape", [(None, 6), (4, None)], ids=["steps", "features"])
def test_a_size_that_is_open_is_refused_or_stays_open(
    exporter: Exporter, tmp_path: Path, shape: tuple[int | None, ...]
) -> None:
    x = keras.Input(shape, name="sequence")
    open_sized = keras.Model(x, keras.ops.mean(x, axis=(1, 2), keepdims=True))
    samples = np.random.default_rng(0).normal(size=(8, 4, 6)).astype(np.float32)
    if "serving" in exporter.converter:
        assert exporter.write(open_sized, tmp_path, samples).inputs[0].shape == (None, *shape)
        return
    with pytest.raises(ModelError, match=r"'sequence' must have a static shape .*Received: .*None.*keras\.Input"):
        exporter.write(open_sized, tmp_path, samples)
    assert content(tmp_path) == {}


def test_without_samples_it_works_or_says_what_is_missing(exporter: Exporter, tmp_path: Path) -> None:
    if not exporter.must_calibrate:
        assert exporter.write(model(), tmp_path, None).verification["samples"] >= 3
        return
    with pytest.raises(ConfigError, match=r"needs calibration=\.\.\., .*Received: None"):
        exporter.write(model(), tmp_path, None)
    assert content(tmp_path) == {}


def test_the_target_is_a_folder(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    (tmp_path / "m.tflite").mkdir()
    with pytest.raises(ConfigError, match="must be that of a file"):
        tfopt.export_tflite(model, tmp_path / "m.tflite", "none")
    assert list(tmp_path.rglob("*")) == [tmp_path / "m.tflite"]


@pytest.mark.slow
def test_a_failing_rename_keeps_the_old_file_and_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (keras.Sequential([keras.Input((4,)), keras.layers.Dense(units)]) for units in (3, 5))
    tfopt.export_tflite(first, tmp_path / "m.tflite", "none")
    replace = os.replace

    def fail(source: Path, target: Path) -> None:
        if str(target).endswith(".tflite"):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ConfigError, match="No space"):
        tfopt.export_tflite(second, tmp_path / "m.tflite", "none")
    assert Artifact.load(tmp_path / "m.tflite").outputs[0].shape == (1, 3)
