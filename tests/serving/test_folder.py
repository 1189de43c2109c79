"""export_serving: a folder that TF Serving loads, whole or not at all."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from keras import layers
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tfopt.artifact import Artifact
from tfopt.errors import ConfigError, DataError, ExportError, ModelError
from tfopt.export.image_bytes import ImageBytes
from tfopt.serving import folder as folder_module
from tfopt.serving.batching import BatchingParameters
from tfopt.serving.folder import export_serving
from tfopt.serving.warmup import read_warmup_requests

SMALL = BatchingParameters(max_batch_size=4, allowed_batch_sizes=(1, 4), num_batch_threads=2, max_enqueued_batches=2)


@pytest.fixture
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    image, age = keras.Input((4, 4, 1), name="image"), keras.Input((1,), name="age")
    features = layers.Concatenate()([layers.Flatten()(image), age])
    return keras.Model([image, age], [layers.Dense(3, name="kind")(features), layers.Dense(1, name="risk")(features)])


def test_everything_lies_where_the_server_looks(model: keras.Model, tmp_path: Path) -> None:
    artifact = export_serving(model, tmp_path, name="clinic", version=7, batching=SMALL)
    assert artifact.path == tmp_path / "clinic" / "7"
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == [
        "batching_parameters.txt",
        "clinic/7/artifact.json",
        "clinic/7/assets.extra/tf_serving_warmup_requests",
        "clinic/7/batching_params.pbtxt",
        "clinic/7/fingerprint.pb",
        "clinic/7/saved_model.pb",
        "clinic/7/variables/variables.data-00000-of-00001",
        "clinic/7/variables/variables.index",
        "docker-compose.yaml",
        "kubernetes.yaml",
        "models.config",
        "monitoring.config",
        "tensorflow_model_server.sh",
    ]
    assert (artifact.path / "batching_params.pbtxt").read_text() == SMALL.to_text(thread_pool=False)
    assert os.access(tmp_path / "tensorflow_model_server.sh", os.X_OK)
    assert (tmp_path / "batching_parameters.txt").read_text() == SMALL.to_text()
    config = text_format.Parse((tmp_path / "models.config").read_text(), ModelServerConfig())
    assert [(entry.name, entry.base_path) for entry in config.model_config_list.config] == [
        ("clinic", "/models/clinic")
    ]


def test_the_folder_answers_as_keras_does_and_its_requests_run(model: keras.Model, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = [rng.random((6, 4, 4, 1), np.float32), rng.random((6, 1), np.float32)]
    artifact = export_serving(model, tmp_path, name="clinic", batching=SMALL, data=data)
    signature = tf.saved_model.load(str(artifact.path)).signatures["serving_default"]
    for batch_size in (1, 3):
        image, age = (array[:batch_size] for array in data)
        answer = signature(image=tf.constant(image), age=tf.constant(age))
        for name, expected in zip(("kind", "risk"), model([image, age]), strict=True):
            np.testing.assert_allclose(answer[name], expected, atol=1e-6)
    sizes = []
    warmup = artifact.path / "assets.extra" / "tf_serving_warmup_requests"
    for record in tf.data.TFRecordDataset(str(warmup)).as_numpy_iterator():
        tensors = PredictionLog.FromString(record).predict_log.request.inputs
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in tensors.items()}
        assert all(any(np.array_equal(row, sample) for sample in data[1]) for row in inputs["age"])
        sizes.append(len(signature(**{name: tf.constant(array) for name, array in inputs.items()})["kind"]))
    assert sizes == [1, 4]


def test_the_record_describes_the_version(model: keras.Model, tmp_path: Path) -> None:
    artifact = export_serving(model, tmp_path, name="clinic", batching=SMALL)
    export_serving(model, tmp_path, name="clinic", version=2)
    assert Artifact.load(artifact.path) == artifact
    assert [spec.name for spec in (*artifact.inputs, *artifact.outputs)] == ["image", "age", "kind", "risk"]
    assert artifact.verification["relative_error"] < 1e-6
    assert artifact.verification["warmup_requests"] == 2
    assert artifact.size_bytes == sum(
        path.stat().st_size for path in artifact.path.rglob("*") if path.is_file() and path.name != "artifact.json"
    )


def test_a_second_model_joins_the_first(model: keras.Model, tmp_path: Path) -> None:
    export_serving(model, tmp_path, name="a", batching=SMALL)
    (tmp_path / "batching_parameters.txt").write_text("# tuned by hand\n" + SMALL.to_text())
    second = export_serving(model, tmp_path, name="b", base_path="gs://bucket/")
    config = text_format.Parse((tmp_path / "models.config").read_text(), ModelServerConfig())
    assert [entry.base_path for entry in config.model_config_list.config] == ["/models/a", "gs://bucket/b"]
    assert (tmp_path / "batching_parameters.txt").read_text().startswith("# tuned by hand")
    assert second.verification["warmup_requests"] == 2  # as many as the file that is there allows


@pytest.mark.slow
def test_each_version_has_its_own_batching_and_the_server_that_of_the_largest(
    model: keras.Model, tmp_path: Path
) -> None:
    def batching(text: str) -> BatchingParameters:
        return BatchingParameters.from_text((tmp_path / text).read_text())

    export_serving(model, tmp_path, name="a", batching=SMALL)
    smaller = BatchingParameters(max_batch_size=2, allowed_batch_sizes=(2,), num_batch_threads=3)
    artifact = export_serving(model, tmp_path, name="b", batching=smaller)
    assert batching("a/1/batching_params.pbtxt").allowed_batch_sizes == (1, 4)
    assert batching("b/1/batching_params.pbtxt").allowed_batch_sizes == (2,)
    assert artifact.verification["warmup_requests"] == 1
    server = batching("batching_parameters.txt")
    assert (server.max_batch_size, server.allowed_batch_sizes, server.num_batch_threads) == (4, (1, 4), 3)
    grown = BatchingParameters()
    export_serving(model, tmp_path, name="c", batching=grown)
    assert (tmp_path / "batching_parameters.txt").read_text() == grown.to_text()


def test_versions_and_labels_are_in_models_config(model: keras.Model, tmp_path: Path) -> None:
    export_serving(model, tmp_path, name="a", batching=SMALL, labels={"stable": 1})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"label 'stable' .* served: \[2\]\. Received: 1\. Move it"):
        export_serving(model, tmp_path, name="a", version=2)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    export_serving(model, tmp_path, name="a", version=2, served_versions=2, labels={"canary": 2})
    (config,) = text_format.Parse(
        (tmp_path / "models.config").read_text(), ModelServerConfig()
    ).model_config_list.config
    assert config.model_version_policy.latest.num_versions == 2
    assert dict(config.version_labels) == {"stable": 1, "canary": 2}


def test_files_that_start_a_server_are_the_users_once_they_are_there(model: keras.Model, tmp_path: Path) -> None:
    export_serving(model, tmp_path, name="a", batching=SMALL)
    started = ("docker-compose.yaml", "kubernetes.yaml", "monitoring.config", "tensorflow_model_server.sh")
    for name in started[:3]:
        (tmp_path / name).write_text(f"# mine: {name}\n")
    (tmp_path / started[3]).unlink()
    export_serving(model, tmp_path, name="b")
    for name in started[:3]:
        assert (tmp_path / name).read_text() == f"# mine: {name}\n"
    assert "--model_config_file=/models/models.config" in (tmp_path / started[3]).read_text()


def test_images_are_taken_as_files_too(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    image, age = keras.Input((4, 6, 3), name="image"), keras.Input((1,), name="age")
    features = layers.Concatenate()([layers.Flatten()(image), age])
    pixels_model = keras.Model([image, age], layers.Dense(2, name="kind")(features))
    artifact = export_serving(pixels_model, tmp_path, name="photos", batching=SMALL, image_bytes=ImageBytes())
    assert artifact.verification["warmup_requests"] == 4  # two signatures, two sizes
    asked = [
        (request.model_spec.signature_name, sorted(request.inputs)) for request in read_warmup_requests(artifact.path)
    ]
    assert asked[1] == ("serving_default", ["age", "image"])
    assert asked[3] == ("serving_bytes", ["age", "image_bytes"])
    signatures = tf.saved_model.load(str(artifact.path)).signatures
    picture = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    from_file = signatures["serving_bytes"](age=tf.constant([[3.0]]), image_bytes=[tf.io.encode_png(picture)])
    from_pixels = signatures["serving_default"](
        age=tf.constant([[3.0]]), image=tf.constant(picture[None] / 255, "float32")
    )
    np.testing.assert_allclose(from_file["kind"], from_pixels["kind"], atol=1e-5)


def test_an_existing_version_is_refused(model: keras.Model, tmp_path: Path) -> None:
    artifact = export_serving(model, tmp_path, name="clinic", version=9, batching=SMALL)
    with pytest.raises(ConfigError, match=r"version 9 of 'clinic' exists .* Choose version=10\."):
        export_serving(model, tmp_path, name="clinic", version=9)
    assert Artifact.load(artifact.path) == artifact


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "two words"}, r"name must consist of letters, .* Received: 'two words'"),
        ({"name": "../up"}, "name must consist of letters"),
        ({"name": ""}, "name must consist of letters"),
        ({"version": 0}, r"version must be an integer of at least 1\. Received: 0"),
        ({"version": "1"}, "Received: '1'"),
        ({"version": True}, "Received: True"),
        ({"version": 2**63}, "version must be an integer"),
        ({"base_path": "models"}, "base_path must be absolute"),
        ({"served_versions": 0}, r"versions must be an integer of at least 1 .* Received: 0"),
        ({"labels": {"stable": 2}}, r"label 'stable' .* served: \[1\]\. Received: 2"),
        ({"image_bytes": ImageBytes(input="x")}, r"input must be one of image, age\. Received: 'x'"),
    ],
)
def test_bad_arguments_are_refused(model: keras.Model, tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        export_serving(model, tmp_path / "new", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_under_a_file_is_refused(model: keras.Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ConfigError, match=r"Cannot write .* Choose another place"):
        export_serving(model, tmp_path / "file" / "serving")
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_an_unwritable_directory_is_refused(model: keras.Model, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="Cannot write"):
        export_serving(model, tmp_path / "serving")


def test_bad_models_and_data_are_refused(model: keras.Model, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="image"):
        export_serving(model, tmp_path / "new", data={"image": np.zeros((1, 5, 5, 1)), "age": np.zeros((1, 1))})
    with pytest.raises(ModelError, match="Expected a Keras 3 model"):
        export_serving("model.keras", tmp_path / "new")
    model.layers[-1].kernel.assign(np.full((17, 1), np.nan))
    with pytest.raises(ModelError, match="NaN or infinite"):
        export_serving(model, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["write_saved_model", "write_warmup_requests", "replay_warmup_requests"])
@pytest.mark.parametrize("error", [ExportError, KeyboardInterrupt])
def test_a_failure_leaves_nothing_behind(
    model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: type
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error("stopped in the middle")

    monkeypatch.setattr(folder_module, step, fail)
    with pytest.raises(error, match="stopped in the middle"):
        export_serving(model, tmp_path / "new" / "serving", batching=SMALL)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_disagrees_leaves_the_earlier_version_alone(
    model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_serving(model, tmp_path, name="clinic", batching=SMALL)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr("tfopt.export.saved_model_check.FLOAT32_TOLERANCE", -1.0)
    with pytest.raises(ExportError, match="must agree with Keras"):
        export_serving(model, tmp_path, name="clinic", version=2)
    assert sorted(tmp_path.rglob("*")) == before
