"""What a served model takes, as it says itself."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from tfopt.errors import BenchmarkError, ConfigError
from tfopt.load.endpoint import Endpoint

__all__ = ["InputTensor", "fill_model_spec", "read_inputs"]

TIMEOUT_SECONDS = 10.0
# TensorFlow's DataType, as metadata spells it.
DTYPES = {
    "DT_FLOAT": "float32",
    "DT_DOUBLE": "float64",
    "DT_HALF": "float16",
    "DT_BFLOAT16": "bfloat16",
    "DT_UINT8": "uint8",
    "DT_UINT16": "uint16",
    "DT_UINT32": "uint32",
    "DT_UINT64": "uint64",
    "DT_INT8": "int8",
    "DT_INT16": "int16",
    "DT_INT32": "int32",
    "DT_INT64": "int64",
    "DT_BOOL": "bool",
    "DT_STRING": "object",
}


@dataclass(frozen=True)
class InputTensor:
    """An input of a signature.

    Args:
        name: of the input in requests.
        dtype: NumPy's name of its type; "object" for strings.
        shape: its sizes, None where they are free; None if not even their number is known.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


def read_inputs(endpoint: Endpoint) -> list[InputTensor]:
    """Asks a server for the inputs of the signature, by TF Serving's documented API.

    Raises:
        BenchmarkError: if nobody answers, or not as TF Serving does.
        ConfigError: if the model has no such signature.
    """
    metadata = _rest_metadata(endpoint) if endpoint.protocol == "rest" else _grpc_metadata(endpoint)
    try:
        signatures = metadata["signature_def"]
        if endpoint.signature not in signatures:
            raise ConfigError(
                f"{endpoint.url}: expected one of the signatures {', '.join(sorted(signatures))}. "
                f"Received: {endpoint.signature!r}."
            )
        inputs = signatures[endpoint.signature]["inputs"]
        return [_input_tensor(name, inputs[name]) for name in sorted(inputs)]
    except (KeyError, TypeError, AttributeError) as error:
        raise BenchmarkError(
            f"{endpoint.url}: expected metadata with a signature_def, as TF Serving gives it. Received none "
            f"({type(error).__name__}: {error})."
        ) from None


def _input_tensor(name: str, told: dict[str, Any]) -> InputTensor:
    if told["dtype"] not in DTYPES:
        raise BenchmarkError(f"The input {name} has the type {told['dtype']}, of which no request can be made.")
    shape = told.get("tensor_shape", {})
    if shape.get("unknown_rank"):
        return InputTensor(name, DTYPES[told["dtype"]], None)
    sizes = (int(dimension.get("size", 0)) for dimension in shape.get("dim", ()))
    return InputTensor(name, DTYPES[told["dtype"]], tuple(None if size < 0 else size for size in sizes))


def _rest_metadata(endpoint: Endpoint) -> dict[str, Any]:
    url = f"{endpoint.url}/metadata"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
            told = json.load(answer)
        metadata: dict[str, Any] = told["metadata"]["signature_def"]
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(500).decode("utf-8", "replace")
        raise BenchmarkError(f"{url} answered {error.code}: {said.strip()}") from None
    except OSError as error:
        raise BenchmarkError(f"{url} does not answer: {error}. Is the server running?") from None
    except (ValueError, KeyError, TypeError):
        raise BenchmarkError(f"{url}: expected the metadata of a model, as TF Serving gives it.") from None
    return metadata


def _grpc_metadata(endpoint: Endpoint) -> dict[str, Any]:
    import grpc
    from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
    from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

    request = GetModelMetadataRequest(metadata_field=["signature_def"])
    fill_model_spec(request.model_spec, endpoint)
    signatures = SignatureDefMap()
    try:
        with grpc.insecure_channel(endpoint.address) as channel:
            answer = PredictionServiceStub(channel).GetModelMetadata(request, timeout=TIMEOUT_SECONDS)
    except grpc.RpcError as error:
        raise BenchmarkError(f"{endpoint.url} answered {error.code().name}: {error.details()}") from None
    answer.metadata["signature_def"].Unpack(signatures)
    metadata: dict[str, Any] = MessageToDict(signatures, preserving_proto_field_name=True)
    return metadata


def fill_model_spec(spec: Any, endpoint: Endpoint) -> None:
    """Writes the model, and its version or label, into the `model_spec` of a request for gRPC."""
    spec.name = endpoint.model
    if endpoint.version is not None:
        spec.version.value = endpoint.version
    elif endpoint.label is not None:
        spec.version_label = endpoint.label
