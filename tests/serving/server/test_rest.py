"""The REST application: paths, statuses and bodies of TF Serving, before stand-ins for the models."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap
from tensorflow_serving.apis.input_pb2 import Input

from tfopt.serving.server.loaded_version import Signature, TensorInfo
from tfopt.serving.server.model_store import State, VersionStatus
from tfopt.serving.server.request_error import Code, RequestError
from tfopt.serving.server.rest import rest_app
from tfopt.serving.server.server_metrics import METRICS_PATH, ServerMetrics

FLOAT = np.dtype(np.float32)


def half_plus_two(version: int) -> Any:
    """Version N of a model that gives x / 2 + N."""
    signature = Signature(
        "serving_default",
        "tensorflow/serving/predict",
        {"x": TensorInfo("x", FLOAT, (None, 2))},
        {"y": TensorInfo("y", FLOAT, (None, 2))},
    )
    metadata = SignatureDefMap()
    metadata.signature_def["serving_default"].inputs["x"].dtype = 1
    return SimpleNamespace(
        name="half plus/two",
        version=version,
        folder=Path(str(version)),
        signatures={"serving_default": signature},
        metadata=metadata,
    )


class Store:
    """Versions 2 and 3 of one model, 2 being stable."""

    def get(self, name: str, *, version: int | None = None, label: str | None = None) -> Any:
        versions = {None: 3, 2: 2, 3: 3}
        if name != "half plus/two" or version not in versions or label not in (None, "stable"):
            what = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise RequestError(Code.NOT_FOUND, f"Servable not found for request: {what}")
        return SimpleNamespace(version=half_plus_two(2 if label else versions[version]))

    def names(self) -> list[str]:
        return ["half plus/two"]

    def status(self, name: str, version: int | None = None) -> list[VersionStatus]:
        if name != "half plus/two":
            raise RequestError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        listed = [VersionStatus(3, State.AVAILABLE), VersionStatus(2, State.END, "NOT_FOUND", "gone")]
        return [status for status in listed if version in (None, status.version)]


@dataclass
class Predictor:
    """Answers at once, or fails, or waits until it is cancelled."""

    store: Store
    failure: Exception | None = None
    waits: bool = False
    cancelled: list[bool] = field(default_factory=list)

    async def _answer(self, name: str, outputs: Any, version: int | None, label: str | None) -> Any:
        model = self.store.get(name, version=version, label=label).version
        if self.failure:
            raise self.failure
        if self.waits:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.append(True)
                raise
        return SimpleNamespace(outputs=outputs(model.version), model=model)

    async def predict(
        self, name: str, inputs: Mapping[str, np.ndarray], *, version: Any, label: Any, signature: str
    ) -> Any:
        return await self._answer(name, lambda number: {"y": inputs["x"] / 2 + number}, version, label)

    async def classify(self, name: str, examples: Input, *, version: Any, label: Any, signature: str) -> Any:
        classes = np.array([[signature.encode()]] * len(examples.example_list.examples), object)
        return await self._answer(name, lambda number: {"classes": classes}, version, label)

    async def regress(self, name: str, examples: Input, *, version: Any, label: Any, signature: str) -> Any:
        values = [example.features.feature["x"].float_list.value[0] for example in examples.example_list.examples]
        return await self._answer(name, lambda number: {"outputs": np.array(values, np.float32)}, version, label)


@dataclass
class Server:
    """An application and its client, in one event loop per request."""

    predictor: Predictor = field(default_factory=lambda: Predictor(Store()))
    metrics: ServerMetrics = field(default_factory=ServerMetrics)

    def messages(self, method: str, path: str, body: bytes = b"", *, leaves: bool = False) -> list[dict[str, Any]]:
        app: Any = rest_app(self.predictor, self.predictor.store, self.metrics, max_request_bytes=10_000)  # type: ignore[arg-type]
        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": []}
        received = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if received:
                return received.pop()
            if not leaves:
                await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        asyncio.run(app(scope, receive, send))
        return sent

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        start, end = self.messages(method, path, content)
        headers = dict(start["headers"])
        assert headers[b"content-type"] == b"application/json"
        assert int(headers[b"content-length"]) == len(end["body"])
        return start["status"], json.loads(end["body"])


@pytest.fixture
def server() -> Server:
    return Server()


MODEL = "/v1/models/half%20plus%2Ftwo"


@pytest.mark.parametrize(
    ("path", "number"),
    [("", 3), ("/versions/3", 3), ("/versions/2", 2), ("/labels/stable", 2)],
)
def test_a_prediction_by_version_and_label(server: Server, path: str, number: int) -> None:
    assert server.ask("POST", f"{MODEL}{path}:predict", {"instances": [[1, 2], [3, 4]]}) == (
        200,
        {"predictions": [[0.5 + number, 1.0 + number], [1.5 + number, 2.0 + number]]},
    )
    assert server.ask("POST", f"{MODEL}{path}:predict", {"inputs": {"x": [[1, 2]]}}) == (
        200,
        {"outputs": [[0.5 + number, 1.0 + number]]},
    )


def test_classify_and_regress(server: Server) -> None:
    body = {"signature_name": "s", "examples": [{"x": 1.5}, {"x": 2.5}]}
    assert server.ask("POST", f"{MODEL}:classify", body) == (200, {"results": [[["s", 0.0]], [["s", 0.0]]]})
    assert server.ask("POST", f"{MODEL}:regress", body) == (200, {"results": [1.5, 2.5]})


def test_the_status_of_all_versions_or_one(server: Server) -> None:
    available = {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ended = {"version": "2", "state": "END", "status": {"error_code": "NOT_FOUND", "error_message": "gone"}}
    assert server.ask("GET", MODEL) == (200, {"model_version_status": [available, ended]})
    assert server.ask("GET", f"{MODEL}/versions/3") == (200, {"model_version_status": [available]})
    assert server.ask("GET", f"{MODEL}/labels/stable") == (200, {"model_version_status": [ended]})


def test_the_metadata_is_that_of_tf_serving(server: Server) -> None:
    status, document = server.ask("GET", f"{MODEL}/versions/2/metadata")
    assert status == 200
    assert document["model_spec"] == {"name": "half plus/two", "signature_name": "", "version": "2"}
    signature = document["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert signature["method_name"] == ""  # fields without a value are written too


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", f"{MODEL}:predict", 400, f"Malformed request: GET {MODEL}:predict"),
        ("POST", MODEL, 400, f"Malformed request: POST {MODEL}"),
        ("POST", f"{MODEL}:explain", 400, f"Malformed request: POST {MODEL}:explain"),
        ("DELETE", MODEL, 400, f"Malformed request: DELETE {MODEL}"),
        ("GET", "/v1/models/m/versions/x", 400, "Malformed request: GET /v1/models/m/versions/x"),
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", f"{MODEL}/versions/{2**63}", 400, f"Failed to convert version: {2**63} to numeric."),
        ("GET", "/", 404, "Not found: GET /"),
        ("POST", "/v2/models/m/infer", 404, "Not found: POST /v2/models/m/infer"),
        ("GET", "/v1/models/other", 404, "Could not find any versions of model other"),
        ("GET", "/v1/models/other/metadata", 404, "Servable not found for request: Latest(other)"),
        ("POST", "/v1/models/other:predict", 404, "Servable not found for request: Latest(other)"),
        ("POST", f"{MODEL}/versions/9:predict", 404, "Servable not found for request: Specific(half plus/two, 9)"),
        ("POST", f"{MODEL}/labels/canary:predict", 404, "Servable not found for request: Latest(half plus/two)"),
    ],
)
def test_what_is_not_there(server: Server, method: str, path: str, status: int, message: str) -> None:
    assert server.ask(method, path, {"instances": [[1, 2]]}) == (status, {"error": message})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"instances": [[1, 2]', "JSON Parse error: Expecting ',' delimiter at offset: 21"),
        ({"instances": [[1, 2]], "signature_name": "s"}, 'Serving signature name: "s" not found in signature def'),
        ({"inputs": {"z": [[1, 2]]}}, "Missing named input: x in 'inputs' object."),
        ({"inputs": [["a", "b"]]}, 'JSON Value: "a" Type: String is not of expected type: float'),
    ],
)
def test_a_wrong_body_is_400(server: Server, body: Any, message: str) -> None:
    assert server.ask("POST", f"{MODEL}:predict", body) == (400, {"error": message})


def test_nan_goes_in_and_comes_out(server: Server) -> None:
    end = server.messages("POST", f"{MODEL}:predict", b'{"instances": [[NaN, -Infinity]]}')[1]
    assert end["body"] == b'{"predictions":[[NaN,-Infinity]]}'


@pytest.mark.parametrize(
    ("code", "status"),
    [(Code.RESOURCE_EXHAUSTED, 429), (Code.UNAVAILABLE, 503), (Code.DEADLINE_EXCEEDED, 504), (Code.UNIMPLEMENTED, 501)],
)
def test_refusals_have_tf_servings_statuses(code: Code, status: int) -> None:
    server = Server(Predictor(Store(), failure=RequestError(code, "no")))
    assert server.ask("POST", f"{MODEL}:predict", {"instances": [[1, 2]]}) == (status, {"error": "no"})


def test_a_body_over_the_limit_is_413(server: Server) -> None:
    status, document = server.ask("POST", f"{MODEL}:predict", b" " * 10_001)
    assert status == 413
    assert "the server takes up to 10000 bytes" in document["error"]


def test_a_failure_of_the_server_is_500_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(Predictor(Store(), failure=ZeroDivisionError("oh")))
    assert server.ask("POST", f"{MODEL}:predict", {"instances": [[1, 2]]}) == (
        500,
        {"error": "ZeroDivisionError: oh"},
    )
    assert caplog.records[0].exc_info is not None


def test_a_prediction_whose_client_leaves_is_cancelled() -> None:
    server = Server(Predictor(Store(), waits=True))
    assert server.messages("POST", f"{MODEL}:predict", b'{"instances": [[1, 2]]}', leaves=True) == []
    assert server.predictor.cancelled == [True]
    assert b'request_count{model_name="half plus/two",status="CANCELLED"} 1\n' in server.metrics.render()


def test_requests_are_counted(server: Server) -> None:
    server.ask("POST", f"{MODEL}:predict", {"instances": [[1, 2]]})
    server.ask("POST", f"{MODEL}:predict", b"{")
    server.ask("GET", f"{MODEL}/metadata")
    for name in ("made-up-1", "made-up-2"):
        server.ask("POST", f"/v1/models/{name}:predict", {"instances": [[1, 2]]})

    start, end = server.messages("GET", METRICS_PATH)

    assert start["status"] == 200
    assert dict(start["headers"])[b"content-type"] == b"text/plain"
    counts = [
        line for line in end["body"].decode().splitlines() if line.startswith(":tensorflow:serving:request_count{")
    ]
    assert counts == [
        ':tensorflow:serving:request_count{model_name="half plus/two",status="OK"} 2',
        ':tensorflow:serving:request_count{model_name="half plus/two",status="INVALID_ARGUMENT"} 1',
        ':tensorflow:serving:request_count{model_name="",status="NOT_FOUND"} 2',
    ]
    assert b'API="predict",entrypoint="REST",status="OK",le="+Inf"} 1\n' in end["body"]
    assert b'API="",entrypoint="REST",status="OK",le="+Inf"} 1\n' in end["body"]


def test_other_protocols_are_refused() -> None:
    app: Any = rest_app(None, None, ServerMetrics(), max_request_bytes=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="speaks HTTP alone"):
        asyncio.run(app({"type": "websocket"}, None, None))
