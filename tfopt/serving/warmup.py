"""Warm-up requests: what TF Serving runs on a model before clients see it, so that none meets a cold one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from tfopt.artifact import TensorSpec
from tfopt.errors import ConfigError, ExportError
from tfopt.export.saved_model import UNKNOWN_SIZE

__all__ = ["WARMUP_FILE", "replay_warmup_requests", "write_warmup_requests"]

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
MAX_RECORDS = 1000


def write_warmup_requests(
    version_folder: str | Path,
    *,
    name: str,
    signature_name: str,
    inputs: Sequence[TensorSpec],
    batch_sizes: Sequence[int],
    samples: Sequence[np.ndarray] | None = None,
) -> Path:
    """Writes one request per batch size into a version folder, as a TFRecord of PredictionLog.

    Args:
        version_folder: the folder that holds saved_model.pb.
        name: the model's name.
        signature_name: the signature that the requests call.
        inputs: its inputs; the first axis is the batch.
        batch_sizes: the sizes to warm up; at most 1000, the server's limit.
        samples: an array of shape `(n, ...)` per input, repeated or cut to each size. Default: every float is
            0.5 and everything else 0, which takes a few bytes a request (unknown sizes are 32).

    Raises:
        ConfigError: if there are no batch sizes, or more than the server reads.

    Example:
        >>> import tempfile
        >>> x = TensorSpec(name="x", shape=(None, 2), dtype="float32")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_warmup_requests(
        ...         folder, name="m", signature_name="serving_default", inputs=[x], batch_sizes=(1, 8))
        ...     sum(1 for _ in tf.data.TFRecordDataset(str(path)))
        2

    References: tensorflow.org/tfx/serving/saved_model_warmup.
    """
    if not 1 <= len(batch_sizes) <= MAX_RECORDS:
        raise ConfigError(
            f"Warm-up: TF Serving reads 1 to {MAX_RECORDS} requests. Received: {len(batch_sizes)}. "
            "Give fewer allowed_batch_sizes."
        )
    path = Path(version_folder, WARMUP_FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for batch_size in batch_sizes:
            log = PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = name
            request.model_spec.signature_name = signature_name
            for index, spec in enumerate(inputs):
                array = None if samples is None else samples[index]
                request.inputs[spec.name].CopyFrom(_tensor(spec, batch_size, array))
            writer.write(log.SerializeToString())
    return path


def replay_warmup_requests(version_folder: str | Path) -> int:
    """Runs every warm-up request of a version folder, as the server will, and returns how many there are.

    A server refuses to load a version of which one warm-up request fails.

    Raises:
        ExportError: if a request cannot be read or does not run.
    """
    signatures = tf.saved_model.load(str(version_folder)).signatures
    replayed = 0
    try:
        for record in tf.data.TFRecordDataset(str(Path(version_folder, WARMUP_FILE))).as_numpy_iterator():
            request = PredictionLog.FromString(record).predict_log.request
            tensors = {name: tf.constant(tf.make_ndarray(tensor)) for name, tensor in request.inputs.items()}
            signatures[request.model_spec.signature_name](**tensors)
            replayed += 1
    except Exception as error:  # whatever a request runs into: a damaged record, a signature, an operation
        raise ExportError(
            f"Warm-up: request {replayed + 1} of {version_folder} does not run, so TF Serving would not load "
            f"the model. TensorFlow says: {error}. Give real samples with data=."
        ) from error
    return replayed


def _tensor(spec: TensorSpec, batch_size: int, samples: np.ndarray | None) -> Any:
    dtype = tf.as_dtype(spec.dtype)
    if samples is not None:
        batch = np.take(samples, range(batch_size), axis=0, mode="wrap")
        return tf.make_tensor_proto(batch.astype(dtype.as_numpy_dtype))
    sizes = [UNKNOWN_SIZE if size is None else size for size in spec.shape[1:]]
    value = np.array(0.5 if dtype.is_floating else 0, dtype.as_numpy_dtype)
    # One value stands for all of them in a TensorProto.
    return tf.make_tensor_proto(value, shape=[batch_size, *sizes])
