"""Warm-up requests: PredictionLog records that run against the signature they are for."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from tfopt.artifact import TensorSpec
from tfopt.errors import ConfigError, ExportError
from tfopt.export.saved_model import write_saved_model
from tfopt.serving.warmup import WARMUP_FILE, WarmupSignature, replay_warmup_requests, write_warmup_requests

X = TensorSpec(name="x", shape=(None, 2), dtype="float32")
TOKENS = TensorSpec(name="tokens", shape=(None, None), dtype="int32")


def write(folder: Path, *, inputs=(X,), batch_sizes=(1, 4), samples=None) -> Path:
    signature = WarmupSignature("serving_default", inputs, samples or {})
    return write_warmup_requests(folder, model="m", signatures=[signature], batch_sizes=batch_sizes)


def requests(folder: Path) -> list:
    records = tf.data.TFRecordDataset(str(folder / WARMUP_FILE)).as_numpy_iterator()
    return [PredictionLog.FromString(record).predict_log.request for record in records]


def test_one_small_request_for_each_batch_size(tmp_path: Path) -> None:
    image = TensorSpec(name="image", shape=(None, 224, 224, 3), dtype="float32")
    path = write(tmp_path, inputs=[image, TOKENS], batch_sizes=(1, 8, 32))
    assert path == tmp_path / "assets.extra" / "tf_serving_warmup_requests"
    assert path.stat().st_size < 1000
    written = requests(tmp_path)
    assert [tf.make_ndarray(request.inputs["image"]).shape[0] for request in written] == [1, 8, 32]
    assert written[0].model_spec.name == "m"
    assert written[0].model_spec.signature_name == "serving_default"
    largest = tf.make_ndarray(written[-1].inputs["image"])
    assert largest.shape == (32, 224, 224, 3)
    assert np.all(largest == 0.5)
    assert tf.make_ndarray(written[-1].inputs["tokens"]).tolist() == [[0] * 32] * 32


def test_samples_are_repeated_and_cut(tmp_path: Path) -> None:
    samples = np.array([[1.0, 2.0], [3.0, 4.0]])
    write(tmp_path, batch_sizes=(1, 3), samples={"x": samples})
    first, second = (tf.make_ndarray(request.inputs["x"]) for request in requests(tmp_path))
    assert first.dtype == np.float32
    assert first.tolist() == [[1.0, 2.0]]
    assert second.tolist() == [[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]


@pytest.mark.parametrize("count", [0, 1001])
def test_the_server_reads_at_most_a_thousand(tmp_path: Path, count: int) -> None:
    with pytest.raises(ConfigError, match=f"1 to 1000 requests. Received: {count}"):
        write(tmp_path, batch_sizes=range(1, count + 1))
    assert list(tmp_path.iterdir()) == []


def test_each_signature_has_each_size(tmp_path: Path) -> None:
    encoded = TensorSpec(name="image_bytes", shape=(None,), dtype="string")
    signatures = [
        WarmupSignature("serving_default", [X], {}),
        WarmupSignature("serving_bytes", [encoded, X], {"image_bytes": np.array([b"a", b"b\0"], object)}),
    ]
    write_warmup_requests(tmp_path, model="m", signatures=signatures, batch_sizes=(1, 3))
    written = requests(tmp_path)
    assert [(request.model_spec.signature_name, len(tf.make_ndarray(request.inputs["x"]))) for request in written] == [
        ("serving_default", 1),
        ("serving_default", 3),
        ("serving_bytes", 1),
        ("serving_bytes", 3),
    ]
    assert tf.make_ndarray(written[-1].inputs["image_bytes"]).tolist() == [b"a", b"b\0", b"a"]
    with pytest.raises(ConfigError, match=r"Received: 1002, for 501 batch sizes and 2 signatures"):
        write_warmup_requests(tmp_path, model="m", signatures=signatures, batch_sizes=range(1, 502))


def test_requests_are_replayed_as_the_server_does(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(1)])
    write_saved_model(model, tmp_path / "1")
    write(tmp_path / "1")
    assert replay_warmup_requests(tmp_path / "1") == 2
    write(tmp_path / "1", inputs=[X, TOKENS])
    with pytest.raises(ExportError, match=r"request 1 of .* TF Serving would not load the model"):
        replay_warmup_requests(tmp_path / "1")
    (tmp_path / "1" / WARMUP_FILE).write_bytes(b"this is no TFRecord at all")
    with pytest.raises(ExportError, match="request 1 of"):
        replay_warmup_requests(tmp_path / "1")


def test_more_requests_than_the_server_reads_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(1)])
    write_saved_model(model, tmp_path / "1")
    write(tmp_path / "1", batch_sizes=(1, 2, 3))
    monkeypatch.setattr("tfopt.serving.warmup.MAX_RECORDS", 2)
    with pytest.raises(ExportError, match="has 3 requests; expected at most 2"):
        replay_warmup_requests(tmp_path / "1")
