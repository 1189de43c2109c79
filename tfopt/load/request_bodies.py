"""Requests for a model, made up or from given samples, as the bytes that are sent."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfopt.errors import DataError
from tfopt.load.endpoint import Endpoint
from tfopt.load.model_inputs import InputTensor, fill_model_spec

__all__ = ["grpc_body", "made_up", "rest_body", "samples_of"]

UNKNOWN_SIZE = 32
"""That an axis of unknown size gets in made-up samples."""


def made_up(inputs: list[InputTensor], count: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Samples for a load where there are no real ones: floats within [0, 1), integers 0 or 1.

    Args:
        inputs: the inputs of a model; the first axis of each is the batch.
        count: how many samples.
        seed: of the random numbers.

    Returns:
        Arrays of shape `(count, ...)` by name of the input; axes of unknown size get 32.

    Raises:
        DataError: if an input takes strings, which cannot be made up, or its rank is unknown.

    Example:
        >>> made_up([InputTensor("x", "float32", (None, 3))], 2)["x"].shape
        (2, 3)
    """
    generator, made = np.random.default_rng(seed), {}
    for given in inputs:
        if given.dtype == "object" or not given.shape:
            kind = "strings" if given.dtype == "object" else "a tensor without a batch axis"
            raise DataError(f"A load on the input {given.name}, which takes {kind}, needs samples. Give data=...")
        shape = (count, *(UNKNOWN_SIZE if size is None else size for size in given.shape[1:]))
        dtype = _numpy_dtype(given.dtype)
        if np.issubdtype(dtype, np.integer) or dtype == np.bool_:
            made[given.name] = generator.integers(0, 2, shape).astype(dtype)
        else:
            made[given.name] = generator.random(shape, np.float32).astype(dtype)
    return made


def samples_of(data: object, inputs: list[InputTensor]) -> dict[str, np.ndarray]:
    """Checks given samples against a model's inputs.

    Args:
        data: an array of shape `(n, ...)` for a model of one input, or a mapping of names to such arrays.
        inputs: the model's.

    Raises:
        DataError: if names, numbers of samples or shapes do not fit.
    """
    names = [given.name for given in inputs]
    if not isinstance(data, Mapping):
        if len(names) != 1:
            raise DataError(f"The load's data: expected a mapping with arrays for {', '.join(names)}. Received: one.")
        data = {names[0]: data}
    if sorted(data) != names:
        raise DataError(f"The load's data: expected arrays for {', '.join(names)}. Received: {', '.join(data)}.")
    arrays = {given.name: np.asarray(data[given.name]).astype(_numpy_dtype(given.dtype)) for given in inputs}
    if len({len(array) if array.ndim else 0 for array in arrays.values()} - {0}) != 1:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise DataError(f"The load's data: expected as many samples for each input, at least one. Received: {shapes}.")
    for given in inputs:
        shape = arrays[given.name].shape
        if given.shape is not None and (
            len(shape) != len(given.shape)
            or any(size not in (None, got) for size, got in zip(given.shape[1:], shape[1:], strict=True))
        ):
            expected = tuple("n" if size is None else size for size in given.shape)
            raise DataError(f"The load's data: expected shape {expected} for {given.name}. Received: {shape}.")
    return arrays


def rest_body(samples: Mapping[str, np.ndarray], *, signature: str = "serving_default") -> bytes:
    """A request in JSON, one instance for each sample.

    Floats are written with as few digits as give the same value back; strings that are not UTF-8 as base64.

    Example:
        >>> rest_body({"x": np.array([[0.1, 2.0]], np.float32)})
        b'{"instances":[[0.1,2.0]]}'
    """
    columns = {name: _json_rows(array) for name, array in samples.items()}
    if len(columns) == 1:
        instances: list[Any] = next(iter(columns.values()))
    else:
        instances = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    body: dict[str, Any] = {} if signature == "serving_default" else {"signature_name": signature}
    return json.dumps({**body, "instances": instances}, separators=(",", ":")).encode()


def grpc_body(samples: Mapping[str, np.ndarray], endpoint: Endpoint) -> bytes:
    """A serialized PredictRequest. It loads TensorFlow, which the protos of TF Serving need."""
    import tensorflow as tf
    from tensorflow_serving.apis.predict_pb2 import PredictRequest

    request = PredictRequest()
    fill_model_spec(request.model_spec, endpoint)
    request.model_spec.signature_name = endpoint.signature
    for name, array in samples.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    content: bytes = request.SerializeToString()
    return content


def _json_rows(array: np.ndarray) -> list[Any]:
    if array.dtype.hasobject:
        array = np.frompyfunc(_json_text, 1, 1)(array)
    elif array.dtype.kind in "fV" and array.dtype != np.float64:
        array = array.astype(np.float32).astype("U").astype(np.float64)  # NumPy writes the fewest digits
    rows: list[Any] = array.tolist()
    return rows


def _json_text(text: str | bytes) -> str | dict[str, str]:
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(text).decode()}


def _numpy_dtype(name: str) -> np.dtype:
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)
