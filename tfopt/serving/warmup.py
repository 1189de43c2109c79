"""Warm-up requests: what TF Serving runs on a model before clients see it, so that none meets a cold one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from tfopt.artifact import TensorSpec
from tfopt.errors import ConfigError, ExportError
from tfopt.export.saved_model import UNKNOWN_SIZE
from tfopt.export.signature import SIGNATURE

__all__ = [
    "MAX_RECORDS",
    "WARMUP_FILE",
    "WarmupSignature",
    "read_warmup_requests",
    "replay_warmup_requests",
    "write_warmup_requests",
]

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
MAX_RECORDS = 1000
"""That the server reads; it refuses a version with more."""


@dataclass(frozen=True)
class WarmupSignature:
    """A signature to warm up.

    Args:
        name: as requests call it.
        inputs: its inputs; the first axis is the batch.
        samples: for inputs by name, an array of shape `(n, ...)`, repeated or cut to each batch size. What is left
            out is 0.5 for floats and 0 for everything else, which takes a few bytes a request (unknown sizes are 32);
            an input of strings cannot be left out.
    """

    name: str
    inputs: Sequence[TensorSpec]
    samples: Mapping[str, np.ndarray]


def write_warmup_requests(
    version_folder: str | Path, *, model: str, signatures: Sequence[WarmupSignature], batch_sizes: Sequence[int]
) -> Path:
    """Writes one request for each signature and batch size into a version folder, as a TFRecord of PredictionLog.

    Args:
        version_folder: the folder that holds saved_model.pb.
        model: the model's name.
        signatures: what the requests call.
        batch_sizes: the sizes to warm up.

    Raises:
        ConfigError: if there are no requests, or more than the 1000 that the server reads.

    Example:
        >>> import tempfile
        >>> x = TensorSpec(name="x", shape=(None, 2), dtype="float32")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_warmup_requests(
        ...         folder, model="m", signatures=[WarmupSignature("serving_default", [x], {})], batch_sizes=(1, 8))
        ...     sum(1 for _ in tf.data.TFRecordDataset(str(path)))
        2

    References: tensorflow.org/tfx/serving/saved_model_warmup.
    """
    count = len(signatures) * len(batch_sizes)
    if not 1 <= count <= MAX_RECORDS:
        raise ConfigError(
            f"Warm-up: TF Serving reads 1 to {MAX_RECORDS} requests. Received: {count}, for {len(batch_sizes)} batch "
            f"sizes and {len(signatures)} signatures. Give fewer allowed_batch_sizes."
        )
    path = Path(version_folder, WARMUP_FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature in signatures:
            for batch_size in batch_sizes:
                log = PredictionLog()
                request = log.predict_log.request
                request.model_spec.name = model
                request.model_spec.signature_name = signature.name
                for spec in signature.inputs:
                    tensor = _tensor(spec, batch_size, signature.samples.get(spec.name))
                    request.inputs[spec.name].CopyFrom(tensor)
                writer.write(log.SerializeToString())
    return path


def read_warmup_requests(version_folder: str | Path) -> Iterator[Any]:
    """The PredictRequests of a version folder, in order."""
    for record in tf.data.TFRecordDataset(str(Path(version_folder, WARMUP_FILE))).as_numpy_iterator():
        yield PredictionLog.FromString(record).predict_log.request


def replay_warmup_requests(version_folder: str | Path) -> int:
    """Runs every warm-up request of a version folder, as the server will, and returns how many there are.

    A server refuses to load a version of which one warm-up request fails.

    Raises:
        ExportError: if a request cannot be read or does not run, or there are more than the server reads.
    """
    signatures = tf.saved_model.load(str(version_folder)).signatures
    replayed = 0
    try:
        for request in read_warmup_requests(version_folder):
            tensors = {name: tf.constant(tf.make_ndarray(tensor)) for name, tensor in request.inputs.items()}
            signatures[request.model_spec.signature_name or SIGNATURE](**tensors)
            replayed += 1
    except Exception as error:  # whatever a request runs into: a damaged record, a signature, an operation
        raise ExportError(
            f"Warm-up: request {replayed + 1} of {version_folder} does not run, so TF Serving would not load "
            f"the model. TensorFlow says: {error}. Give real samples with data=."
        ) from error
    if replayed > MAX_RECORDS:
        raise ExportError(
            f"Warm-up: {version_folder} has {replayed} requests; expected at most {MAX_RECORDS}, or TF Serving does "
            "not load the model."
        )
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
