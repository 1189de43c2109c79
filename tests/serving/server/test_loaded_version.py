"""LoadedVersion: real SavedModels in memory, their signatures and their warm-up requests."""

import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from tfopt.serving.server.loaded_version import LoadedVersion
from tfopt.serving.server.model_signature import Signature, TensorInfo, check_inputs
from tfopt.serving.server.request_error import Code, RequestError

WARMUP = "assets.extra/tf_serving_warmup_requests"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_affine: Callable[..., None]) -> Path:
    folder = tmp_path_factory.mktemp("affine") / "1"
    write_affine(folder, factor=2, offset=1)
    return folder


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> LoadedVersion:
    """Several tensors of several types, and signatures that cannot be batched."""
    folder = tmp_path_factory.mktemp("mixed")

    def words(text, count):
        return {"loud": tf.strings.upper(text), "twice": 2 * count}

    def scaled(x, scale):
        return {"y": x * scale}

    text, count = tf.TensorSpec([None], tf.string, "text"), tf.TensorSpec([None, 2], tf.int64, "count")
    x, scale = tf.TensorSpec([None], tf.float32, "x"), tf.TensorSpec([], tf.float32, "scale")
    free = tf.TensorSpec(None, tf.float32, "x")
    tf.saved_model.save(
        tf.Module(),
        str(folder),
        {
            "words": tf.function(words, [text, count]).get_concrete_function(),
            "scaled": tf.function(scaled, [x, scale]).get_concrete_function(),
            "free": tf.function(lambda x: {"y": x}, [free]).get_concrete_function(),
            "total": tf.function(lambda x: {"y": tf.reduce_sum(x)}, [x]).get_concrete_function(),
        },
    )
    return LoadedVersion.load("mixed", 3, folder)


def test_the_signatures_are_those_of_the_file(folder: Path) -> None:
    loaded = LoadedVersion.load("affine", 1, folder)
    x, y = (TensorInfo(name, np.dtype("float32"), (None, 3)) for name in "xy")
    assert loaded.signatures == {
        key: Signature(key, "tensorflow/serving/predict", {"x": x}, {"y": y}) for key in ("serving_default", "negated")
    }
    assert (loaded.name, loaded.version, loaded.folder) == ("affine", 1, folder)
    assert loaded.metadata.signature_def["negated"].inputs["x"].dtype == tf.float32.as_datatype_enum


def test_types_and_batches_of_tensors(mixed: LoadedVersion) -> None:
    words = mixed.signatures["words"]
    assert words.inputs["text"] == TensorInfo("text", np.dtype(object), (None,))
    assert words.inputs["count"] == TensorInfo("count", np.dtype("int64"), (None, 2))
    assert mixed.signatures["free"].inputs["x"].shape is None
    batched = {name for name, signature in mixed.signatures.items() if signature.batched}
    assert batched == {"words", "free"}


def test_it_runs_as_tensorflow_does(folder: Path, mixed: LoadedVersion) -> None:
    loaded = LoadedVersion.load("affine", 1, folder)
    x = np.random.default_rng(0).random((5, 3), np.float32)
    np.testing.assert_allclose(loaded.run("serving_default", {"x": x})["y"], 2 * x + 1, rtol=1e-6)
    np.testing.assert_allclose(loaded.run("negated", {"x": x})["y"], -2 * x - 1, rtol=1e-6)
    answer = mixed.run("words", {"text": np.array([b"a", "ß".encode()], object), "count": np.int64([[1, 2], [3, 4]])})
    assert answer["loud"].tolist() == [b"A", "ß".encode()]
    assert answer["twice"].tolist() == [[2, 4], [6, 8]]
    assert mixed.run("total", {"x": np.float32([1, 2])})["y"] == 3


def test_threads_do_not_disturb_each_other(folder: Path) -> None:
    loaded = LoadedVersion.load("affine", 1, folder)

    def run(value: int) -> bool:
        key, sign = ("negated", -1) if value % 2 else ("serving_default", 1)
        answer = loaded.run(key, {"x": np.full((2, 3), value, np.float32)})["y"]
        return bool(np.all(answer == sign * (2 * value + 1)))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(run, range(200)))


def test_what_tensorflow_refuses_has_its_code_and_words(mixed: LoadedVersion) -> None:
    with pytest.raises(RequestError, match=r"Incompatible shapes|required broadcastable") as caught:
        mixed.run("scaled", {"x": np.ones(2, np.float32), "scale": np.ones(3, np.float32)})
    assert caught.value.code == Code.INVALID_ARGUMENT
    with pytest.raises(RequestError) as caught:
        mixed.run("words", {"text": np.array([b"a"], object)})
    assert caught.value.code == Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda folder: (folder / "saved_model.pb").unlink(), Code.NOT_FOUND),
        (lambda folder: (folder / "saved_model.pb").write_bytes(b"no model"), Code.INVALID_ARGUMENT),
        (lambda folder: shutil.rmtree(folder / "variables"), Code.INVALID_ARGUMENT),
        (lambda folder: (folder / "variables" / "variables.data-00000-of-00001").write_bytes(b""), None),
    ],
)
def test_a_damaged_folder_is_refused(
    folder: Path, tmp_path: Path, damage: Callable[[Path], None], code: Code | None
) -> None:
    copy = tmp_path / "7"
    shutil.copytree(folder, copy)
    damage(copy)
    with pytest.raises(RequestError, match=re.escape(str(copy))) as caught:
        LoadedVersion.load("affine", 7, copy)
    assert code is None or caught.value.code == code


def write_warmup(folder: Path, *logs: PredictionLog | bytes) -> None:
    (folder / WARMUP).parent.mkdir()
    with tf.io.TFRecordWriter(str(folder / WARMUP)) as writer:
        for log in logs:
            writer.write(log if isinstance(log, bytes) else log.SerializeToString())


def predict_log(signature: str, x: np.ndarray) -> PredictionLog:
    log = PredictionLog()
    log.predict_log.request.model_spec.signature_name = signature
    log.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto(x))
    return log


def test_warm_up_requests_are_replayed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "1"
    shutil.copytree(folder, copy)
    write_warmup(
        copy, predict_log("", np.zeros((1, 3), np.float32)), predict_log("negated", np.zeros((4, 3), np.float32))
    )
    ran = []
    run = LoadedVersion.run
    monkeypatch.setattr(
        LoadedVersion, "run", lambda self, key, inputs: ran.append((key, inputs["x"].shape)) or run(self, key, inputs)
    )
    LoadedVersion.load("affine", 1, copy)
    assert ran == [("serving_default", (1, 3)), ("negated", (4, 3))]


def multi_inference_log() -> PredictionLog:
    log = PredictionLog()
    log.multi_inference_log.SetInParent()
    return log


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (b"\xff", "request 2 of .* failed"),
        (
            predict_log("other", np.zeros((1, 3), np.float32)),
            "request 2 of .* failed: Serving signature key .other. not found",
        ),
        (predict_log("", np.zeros((1, 4), np.float32)), "request 2 of .* must have the shape"),
        (multi_inference_log(), "request 2 of .* Unsupported log_type for warmup: multi_inference_log"),
    ],
)
def test_a_failing_warm_up_request_refuses_the_version(
    folder: Path, tmp_path: Path, log: PredictionLog | bytes, message: str
) -> None:
    copy = tmp_path / "1"
    shutil.copytree(folder, copy)
    write_warmup(copy, predict_log("", np.zeros((1, 3), np.float32)), log)
    with pytest.raises(RequestError, match=message):
        LoadedVersion.load("affine", 1, copy)


def test_inputs_without_a_batch_need_no_common_size(mixed: LoadedVersion) -> None:
    inputs = {"x": np.ones(3, np.float32), "scale": np.float32(2)}
    checked = check_inputs(mixed.signatures["scaled"], inputs)
    assert mixed.run("scaled", checked)["y"].tolist() == [2, 2, 2]
