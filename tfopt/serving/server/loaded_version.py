"""A SavedModel in memory: the signatures that it has, what they take, and running them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from tfopt.errors import first_line
from tfopt.serving.server.examples import EXAMPLES, serialized_examples
from tfopt.serving.server.model_signature import Signature, TensorInfo, check_inputs
from tfopt.serving.server.request_error import Code, RequestError
from tfopt.serving.warmup import WARMUP_FILE

__all__ = ["LoadedVersion"]


class LoadedVersion:
    """One version of a model, in memory.

    Args:
        name: the model's name.
        version: its number.
        folder: the SavedModel.
        metadata: the model's signatures as protobuf, for clients that ask for them.
        functions: what runs each of them, by name.
    """

    def __init__(
        self,
        name: str,
        version: int,
        folder: Path,
        *,
        metadata: SignatureDefMap,
        functions: Mapping[str, Callable[..., Mapping[str, Any]]],
    ) -> None:
        self.name = name
        self.version = version
        self.folder = folder
        self.metadata = metadata
        self.signatures: Mapping[str, Signature] = {
            key: _signature(key, metadata.signature_def[key]) for key in functions
        }
        self._functions = functions

    @classmethod
    def load(cls, name: str, version: int, folder: Path) -> LoadedVersion:
        """Loads a SavedModel and replays its warm-up requests, as TF Serving does.

        Raises:
            RequestError: if it cannot be loaded, or a warm-up request fails.

        Example:
            >>> import tempfile
            >>> module = tf.Module()
            >>> def double(x):
            ...     return {"y": 2 * x}
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     tf.saved_model.save(module, folder, tf.function(double, [tf.TensorSpec([None], name="x")]))
            ...     loaded = LoadedVersion.load("double", 1, Path(folder))
            >>> loaded.run("serving_default", {"x": np.float32([1, 2])})
            {'y': array([2., 4.], dtype=float32)}
        """
        file = folder / "saved_model.pb"
        if not file.is_file():
            raise RequestError(
                Code.NOT_FOUND, f"Could not find SavedModel .pb at supplied export directory path: {folder}"
            )
        try:
            functions = dict(tf.saved_model.load(str(folder), tags=[tf.saved_model.SERVING]).signatures)
            metadata = _metadata(SavedModel.FromString(file.read_bytes()))
            loaded = cls(name, version, folder, metadata=metadata, functions=functions)
        except Exception as error:  # whatever a damaged or half-copied folder makes of TensorFlow
            raise RequestError(_code(error), f"{folder} cannot be loaded. TensorFlow says: {_words(error)}") from error
        loaded._warm_up()
        return loaded

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs a signature and waits for its outputs; several threads may do so at once.

        Args:
            signature: one of `signatures`.
            inputs: as `check_inputs` returns them.

        Raises:
            RequestError: if TensorFlow cannot run them, with its code and words.
        """
        try:
            tensors = {name: tf.constant(array) for name, array in inputs.items()}
            outputs = self._functions[signature](**tensors)
        except (tf.errors.OpError, TypeError, ValueError) as error:
            raise RequestError(_code(error), _words(error)) from error
        return {name: np.asarray(tensor.numpy()) for name, tensor in outputs.items()}

    def _warm_up(self) -> None:
        path = self.folder / WARMUP_FILE
        if not path.is_file():
            return
        replayed = 0
        try:
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                self._replay(PredictionLog.FromString(record))
                replayed += 1
        except Exception as error:  # a damaged record, an unknown signature, inputs that do not fit
            raise RequestError(
                _code(error), f"Warm-up request {replayed + 1} of {self.folder} failed: {_words(error)}"
            ) from error

    def _replay(self, log: PredictionLog) -> None:
        kind = log.WhichOneof("log_type")
        if kind == "predict_log":
            request = log.predict_log.request
            arrays = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        elif kind in ("classify_log", "regress_log"):
            request = getattr(log, kind).request
            arrays = {EXAMPLES: serialized_examples(request.input)}
        else:
            raise RequestError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
        key = request.model_spec.signature_name or tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
        if key not in self.signatures:
            raise RequestError(Code.FAILED_PRECONDITION, f'Serving signature key "{key}" not found.')
        self.run(key, check_inputs(self.signatures[key], arrays))


def _signature(key: str, definition: Any) -> Signature:
    return Signature(
        name=key,
        method=definition.method_name,
        inputs={name: _tensor_info(name, definition.inputs[name]) for name in sorted(definition.inputs)},
        outputs={name: _tensor_info(name, definition.outputs[name]) for name in sorted(definition.outputs)},
    )


def _tensor_info(name: str, info: Any) -> TensorInfo:
    shape = info.tensor_shape
    sizes = tuple(None if axis.size < 0 else axis.size for axis in shape.dim)
    return TensorInfo(name, np.dtype(tf.as_dtype(info.dtype).as_numpy_dtype), None if shape.unknown_rank else sizes)


def _metadata(saved_model: Any) -> SignatureDefMap:
    metadata = SignatureDefMap()
    for graph in saved_model.meta_graphs:
        if tf.saved_model.SERVING in graph.meta_info_def.tags:
            for key, definition in graph.signature_def.items():
                metadata.signature_def[key].CopyFrom(definition)
            break
    return metadata


def _code(error: Exception) -> Code:
    if isinstance(error, RequestError):
        return error.code
    return Code(error.error_code) if isinstance(error, tf.errors.OpError) else Code.INVALID_ARGUMENT


def _words(error: Exception) -> str:
    return str(error.message) if isinstance(error, tf.errors.OpError) and error.message else first_line(error)
