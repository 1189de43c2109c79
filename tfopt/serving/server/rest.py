"""TF Serving's REST API as an ASGI application: paths, errors, and clients that go away."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any
from urllib.parse import unquote

from tfopt.errors import first_line
from tfopt.serving.server.loaded_version import Signature
from tfopt.serving.server.model_store import ModelStore
from tfopt.serving.server.prediction import Predictor
from tfopt.serving.server.request_error import Code, RequestError
from tfopt.serving.server.rest_body import BodyTooLargeError, ClientGoneError, Receive, read_body, unless_gone
from tfopt.serving.server.rest_examples import classify_response, examples_request, regress_response
from tfopt.serving.server.rest_json import dump_json, predict_response
from tfopt.serving.server.rest_model import metadata_response, status_response
from tfopt.serving.server.rest_request import predict_request
from tfopt.serving.server.server_metrics import METRICS_PATH, ServerMetrics

__all__ = ["ASGIApp", "rest_app"]

logger = logging.getLogger(__name__)

Send = Callable[[dict[str, Any]], Awaitable[None]]
ASGIApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

JSON_TYPE = b"application/json"
LARGEST_VERSION = 2**63 - 1
VERSION_OR_LABEL = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
PATHS = {
    "POST": re.compile(rf"(?ai)/v1/models/(?P<name>[^/:]+){VERSION_OR_LABEL}:(?-i:(?P<verb>classify|regress|predict))"),
    "GET": re.compile(rf"(?ai)/v1/models(?:/(?P<name>[^/:]+))?{VERSION_OR_LABEL}(?:/(?P<verb>metadata))?"),
}


def rest_app(predictor: Predictor, store: ModelStore, metrics: ServerMetrics, *, max_request_bytes: int) -> ASGIApp:
    """Makes the application that answers TF Serving's REST requests; a server such as uvicorn runs it.

    `POST /v1/models/NAME[/versions/N|/labels/L]:predict`, `:classify` and `:regress`; `GET` of the same path without
    a verb for the status, with `/metadata` for the signatures; `GET /monitoring/prometheus/metrics`. An error is
    `{"error": MESSAGE}` with TF Serving's status and, where it has one, its message. What it has none for: a body
    that is too large is 413, refused while it arrives. A prediction whose client is gone is cancelled.

    Args:
        predictor: answers predictions.
        store: the models, for their signatures and states.
        metrics: counts requests and their latency.
        max_request_bytes: of a body, unpacked.

    References: tensorflow.org/tfx/serving/api_rest; model_servers/http_rest_api_handler.cc and
    http_rest_api_util.cc of TF Serving; asgi.readthedocs.io.
    """
    return _RestApp(predictor, store, metrics, max_request_bytes)


@dataclass(frozen=True)
class _Target:
    """What a path names."""

    name: str
    version: int | None
    label: str | None
    verb: str
    """`predict`, `classify`, `regress`, `metadata`, or "" for the status."""


@dataclass(frozen=True)
class _RestApp:
    predictor: Predictor
    store: ModelStore
    metrics: ServerMetrics
    max_request_bytes: int

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"The REST API speaks HTTP alone. Received an ASGI scope of type {scope['type']!r}.")
        start = perf_counter()
        # As it was sent, since a model's name may have an escaped slash or colon in it.
        path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        if path == METRICS_PATH:
            await _respond(send, 200, self.metrics.render(), b"text/plain")
            return
        method = scope["method"]
        if not path.lower().startswith("/v1/"):
            await _respond(send, 404, _error(f"Not found: {method} {path}"))
            return
        target = None
        try:
            target = _target(method, path)
            body, status, code = await self._answer(target, scope, receive), 200, "OK"
        except RequestError as error:
            body, code = _error(error.message), error.code.name
            status = 413 if isinstance(error, BodyTooLargeError) else error.code.http
        except ClientGoneError:
            body, code = b"", Code.CANCELLED.name
        except Exception as error:
            logger.exception("%s %s failed", method, path)
            body, status, code = _error(f"{type(error).__name__}: {first_line(error)}"), 500, Code.INTERNAL.name
        self._count(target, code, seconds=perf_counter() - start)
        if body:
            await _respond(send, status, body)

    async def _answer(self, target: _Target, scope: MutableMapping[str, Any], receive: Receive) -> bytes:
        if target.verb == "metadata":
            return metadata_response(self.store.get(target.name, version=target.version, label=target.label).version)
        if not target.verb:
            version = target.version
            if target.label is not None:
                version = self.store.get(target.name, label=target.label).version.version
            return status_response(self.store.status(target.name, version))
        body = await read_body(scope["headers"], receive, max_request_bytes=self.max_request_bytes)
        return await unless_gone(receive, self._predict(target, body))

    async def _predict(self, target: _Target, body: bytes) -> bytes:
        named: dict[str, Any] = {"version": target.version, "label": target.label}
        if target.verb == "predict":
            request = predict_request(body, lambda name: self._signature(target, name))
            prediction = await self.predictor.predict(target.name, request.inputs, signature=request.signature, **named)
            return predict_response(prediction.outputs, request.layout)
        signature, examples = examples_request(body)
        if target.verb == "classify":
            prediction = await self.predictor.classify(target.name, examples, signature=signature, **named)
            return classify_response(prediction.outputs)
        prediction = await self.predictor.regress(target.name, examples, signature=signature, **named)
        return regress_response(prediction.outputs)

    def _signature(self, target: _Target, name: str) -> Signature:
        model = self.store.get(target.name, version=target.version, label=target.label).version
        if name not in model.signatures:
            raise RequestError(Code.INVALID_ARGUMENT, f'Serving signature name: "{name}" not found in signature def')
        return model.signatures[name]

    def _count(self, target: _Target | None, code: str, *, seconds: float) -> None:
        name = target.name if target else ""
        if code != "OK" and name not in self.store.names():
            name = ""  # else clients could fill the server's memory with names that they make up
        api = target.verb if target and target.verb != "metadata" else ""
        self.metrics.on_request(name, api=api, entrypoint="REST", status=code, seconds=seconds)


def _target(method: str, path: str) -> _Target:
    match = PATHS[method].fullmatch(path) if method in PATHS else None
    if match is None:
        raise RequestError(Code.INVALID_ARGUMENT, f"Malformed request: {method} {path}")
    name, version, label, verb = match.group("name", "version", "label", "verb")
    if name is None:
        raise RequestError(Code.INVALID_ARGUMENT, "Missing model name in request.")
    if version is not None and (len(version) > 19 or int(version) > LARGEST_VERSION):
        raise RequestError(Code.INVALID_ARGUMENT, f"Failed to convert version: {version} to numeric.")
    return _Target(
        name=unquote(name),
        version=None if version is None else int(version),
        label=None if label is None else unquote(label),
        verb=(verb or "").lower(),
    )


def _error(message: str) -> bytes:
    return dump_json({"error": message})


async def _respond(send: Send, status: int, body: bytes, content_type: bytes = JSON_TYPE) -> None:
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
