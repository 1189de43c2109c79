"""A real `tfopt serve` in a process of its own, asked by plain HTTP and by tensorflow-serving-api's stubs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import keras
import numpy as np
import pytest
import requests
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

import tfopt
from tfopt.errors import ConfigError, MissingExtraError
from tfopt.serving.folder import export_serving
from tfopt.serving.models_config import with_model
from tfopt.serving.server import serve as server_module

LONGEST_BYTES = 1_000_000
TIME_LIMIT_SECONDS = 120


class Scale(tf.Module):
    """Multiplies; one signature takes as long as it is told to."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = tf.Variable(factor)

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x * self.factor}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x"), tf.TensorSpec([None], tf.int32, "rounds")])
    def slow(self, x: tf.Tensor, rounds: tf.Tensor) -> dict[str, tf.Tensor]:
        product = tf.eye(300)
        for _ in tf.range(tf.reduce_max(rounds)):
            product = product @ product
        return {"y": x * self.factor * product[0, 0]}


def write_version(folder: Path, version: int, factor: float) -> None:
    """Puts a version in place at once, as a deployment does."""
    model = Scale(factor)
    partial = folder / f".{version}.partial"
    tf.saved_model.save(model, str(partial), signatures={"serving_default": model.__call__, "slow": model.slow})
    partial.rename(folder / str(version))


@dataclass(frozen=True)
class Started:
    """A server that runs."""

    process: subprocess.Popen[bytes]
    log: Path
    rest: str
    grpc: str

    @property
    def told(self) -> str:
        return self.log.read_text()

    def predict(self, model: str, body: Any, **options: Any) -> requests.Response:
        data = body if isinstance(body, (str, bytes)) else json.dumps(body)
        return requests.post(f"http://{self.rest}/v1/models/{model}:predict", data=data, timeout=60, **options)


def start(folder: Path, log: Path, *options: str) -> Started:
    command = [sys.executable, "-m", "tfopt", "serve", str(folder), "--rest-port", "0", "--grpc-port", "0", *options]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"})
    found = None

    def ready() -> bool:
        nonlocal found
        found = re.search(r"REST: http://(\S+?)/.*?gRPC: (\S+)", log.read_text(), re.DOTALL)
        return found is not None or process.poll() is not None

    wait_until(ready)
    assert found, log.read_text()
    return Started(process, log, *found.groups())


def wait_until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + TIME_LIMIT_SECONDS
    while not true():
        assert time.monotonic() < limit, "timed out"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve") / "models"
    write_version(folder / "scale", 1, 2.0)
    write_version(folder / "other", 3, 10.0)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Started]:
    options = ("--poll-seconds", "0.1", "--max-request-bytes", str(LONGEST_BYTES))
    started = start(folder, folder.parent / "log", *options)
    yield started
    started.process.send_signal(signal.SIGINT)
    assert started.process.wait(60) == 0, started.told
    assert "Traceback" not in started.told


@pytest.fixture
def channel(server: Started) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


def grpc_request(x: Any, *, model: str = "scale", **spec: Any) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest(model_spec=model_pb2.ModelSpec(name=model, **spec))
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(x))
    return request


ROW = np.array([[1, 2]], np.float32)


@pytest.mark.slow
def test_it_says_what_it_serves_and_what_it_is_not(server: Started) -> None:
    lines = server.told.splitlines()
    assert lines[0] == "tfopt serve: TF Serving compatible, for development and tests; not TF Serving"
    assert lines[1:3] == ["other  version 3  AVAILABLE", "scale  version 1  AVAILABLE"]
    assert server.rest.startswith("127.0.0.1:")


def test_a_plain_http_client(server: Started) -> None:
    assert server.predict("scale", {"instances": [[1, 2], [3, 4]]}).json() == {"predictions": [[2, 4], [6, 8]]}
    assert server.predict("other", {"inputs": {"x": [[1, 2]]}}).json() == {"outputs": [[10, 20]]}
    answer = server.predict("scale", {"instances": [{"x": [1, 2], "rounds": 1}], "signature_name": "slow"})
    assert answer.json() == {"predictions": [[2, 4]]}
    assert answer.headers["content-type"] == "application/json"
    root = f"http://{server.rest}/v1/models/scale"
    (status,) = requests.get(root, timeout=60).json()["model_version_status"]
    assert (status["version"], status["state"], status["status"]["error_code"]) == ("1", "AVAILABLE", "OK")
    signatures = requests.get(f"{root}/metadata", timeout=60).json()["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", "slow"} <= signatures.keys()
    page = requests.get(f"http://{server.rest}/monitoring/prometheus/metrics", timeout=60).text
    assert re.search(r':tensorflow:serving:request_count\{model_name="other",status="OK"\} [1-9]', page)


def test_a_client_with_tensorflow_serving_apis_stubs(server: Started, channel: grpc.Channel) -> None:
    predictor = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    response = predictor.Predict(grpc_request(ROW), timeout=60)
    assert list(response.outputs["y"].float_val) == [2, 4]
    np.testing.assert_array_equal(tf.make_ndarray(response.outputs["y"]), 2 * ROW)
    assert response.model_spec.version.value == 1
    spec = model_pb2.ModelSpec(name="other")
    metadata = predictor.GetModelMetadata(
        get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"]), timeout=60
    )
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert metadata.metadata["signature_def"].Unpack(signatures)
    assert signatures.signature_def["serving_default"].inputs["x"].dtype == tf.float32.as_datatype_enum
    status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(
        get_model_status_pb2.GetModelStatusRequest(model_spec=spec), timeout=60
    )
    assert [(each.version, each.state) for each in status.model_version_status] == [(3, 30)]
    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
    assert health.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    ("model", "body", "status", "words"),
    [
        ("scale", '{"instances": [[1, 2]', 400, ""),
        ("scale", b"\xff\xfe", 400, ""),
        ("scale", {"instances": [[1, 2], [3]]}, 400, ""),
        ("scale", {"instances": [["a", "b"]]}, 400, ""),
        ("scale", {"instances": [[1, 2, 3]]}, 400, ""),
        ("scale", {"rows": [[1, 2]]}, 400, "instances"),
        ("absent", {"instances": [[1, 2]]}, 404, "Servable not found for request: Latest(absent)"),
        ("scale/versions/9", {"instances": [[1, 2]]}, 404, "Servable not found for request: Specific(scale, 9)"),
        ("scale", {"instances": [[1, 2]], "signature_name": "absent"}, 400, "absent"),
    ],
)
def test_malformed_http_requests_are_told(server: Started, model: str, body: Any, status: int, words: str) -> None:
    answer = server.predict(model, body)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]
    assert server.predict("scale", {"instances": [[1, 2]]}).ok


def test_a_body_beyond_the_limit_is_refused(server: Started, channel: grpc.Channel) -> None:
    answer = server.predict("scale", b"[" + b" " * LONGEST_BYTES)
    assert answer.status_code == 413
    assert "1000000 bytes" in answer.json()["error"]
    with pytest.raises(grpc.RpcError) as error:
        prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(
            grpc_request(np.zeros((LONGEST_BYTES // 8, 2), np.float32)), timeout=60
        )
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_what_is_no_http_at_all_ends_one_connection_only(server: Started) -> None:
    host, port = server.rest.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(b"\x16\x03\x01\x00\xff not http\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 400")
    assert server.predict("scale", {"instances": [[1, 2]]}).ok


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (grpc_request(ROW, model="absent"), "NOT_FOUND", "Servable not found for request: Latest(absent)"),
        (grpc_request(ROW, signature_name="absent"), "FAILED_PRECONDITION", 'key "absent" not found'),
        (grpc_request(np.ones((1, 3), np.float32)), "INVALID_ARGUMENT", "x"),
        (grpc_request(np.array([["a", "b"]])), "INVALID_ARGUMENT", "x"),
        (predict_pb2.PredictRequest(model_spec=model_pb2.ModelSpec(name="scale")), "INVALID_ARGUMENT", "{x}"),
    ],
)
def test_malformed_messages_are_told(channel: grpc.Channel, request_: Any, code: str, words: str) -> None:
    predictor = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    with pytest.raises(grpc.RpcError) as error:
        predictor.Predict(request_, timeout=60)
    assert error.value.code() is grpc.StatusCode[code]
    assert words in error.value.details()
    assert predictor.Predict(grpc_request(ROW), timeout=60)


def test_bytes_that_are_no_message_end_one_call_only(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError):
        channel.unary_unary("/tensorflow.serving.PredictionService/Predict")(b"\xff\xff\xff", timeout=60)
    assert prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(grpc_request(ROW), timeout=60)


def ask_at_once(server: Started, count: int) -> list[tuple[int, Any]]:
    """Status and answer of so many requests, each on a connection of its own; all are open before the first one."""
    host, port = server.rest.split(":")

    async def ask(number: int, everyone: asyncio.Barrier, dialling: asyncio.Semaphore) -> tuple[int, Any]:
        model = ("scale", "other")[number % 2]
        body = json.dumps({"instances": [[number, -number]]}).encode()
        async with dialling:  # fewer at a time than the server's backlog
            reader, writer = await asyncio.open_connection(host, int(port))
        await everyone.wait()
        writer.write(b"POST /v1/models/%b:predict HTTP/1.1\r\nHost: x\r\n" % model.encode())
        writer.write(b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        return int(head.split()[1]), json.loads(answer)

    async def ask_all() -> list[tuple[int, Any]]:
        everyone, dialling = asyncio.Barrier(count), asyncio.Semaphore(200)
        asked = asyncio.gather(*(ask(number, everyone, dialling) for number in range(count)))
        return await asyncio.wait_for(asked, TIME_LIMIT_SECONDS)

    return asyncio.run(ask_all())


def scaled(number: int) -> dict[str, list[list[float]]]:
    factor = (2, 10)[number % 2]
    return {"predictions": [[number * factor, -number * factor]]}


def test_two_hundred_connections_at_once_get_each_their_own_answer(server: Started) -> None:
    assert ask_at_once(server, 200) == [(200, scaled(number)) for number in range(200)]


@pytest.mark.slow
def test_ten_thousand_open_connections_are_answered_or_refused_in_words(server: Started) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 10_500:
        pytest.skip(f"10,000 connections need as many open files; the limit here is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 10_500), hard))
    try:
        answers = ask_at_once(server, 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for number, (status, answer) in enumerate(answers):
        if status == 200:
            assert answer == scaled(number)
        else:
            assert status == 503
            assert "The batch scheduling queue to which this task was submitted is full" in answer["error"]
    assert sum(status == 200 for status, _ in answers) > 200
    assert server.predict("scale", {"instances": [[1.0, 2.0]]}).json() == {"predictions": [[2.0, 4.0]]}


@pytest.mark.slow
def test_a_new_version_takes_over_without_a_lost_request(server: Started, folder: Path) -> None:
    write_version(folder / "swapped", 1, 1.0)
    url = f"http://{server.rest}/v1/models/swapped"

    def states() -> dict[str, str]:
        answer = requests.get(url, timeout=60).json()
        return {status["version"]: status["state"] for status in answer.get("model_version_status", [])}

    wait_until(lambda: states() == {"1": "AVAILABLE"})
    ended, answers, failures = threading.Event(), [], []

    def ask_on() -> None:
        with requests.Session() as session:
            while not ended.is_set():
                answer = session.post(f"{url}:predict", json={"instances": [[1, 2]]}, timeout=60)
                (answers if answer.ok else failures).append(answer.text)

    with ThreadPoolExecutor(4) as clients:
        for _ in range(4):
            clients.submit(ask_on)
        wait_until(lambda: bool(answers))
        write_version(folder / "swapped", 2, 5.0)
        wait_until(lambda: states() == {"2": "AVAILABLE", "1": "END"})
        count = len(answers)
        wait_until(lambda: len(answers) > count + 8)
        ended.set()
    assert failures == []
    predictions = [json.loads(answer)["predictions"][0] for answer in answers]
    assert predictions[0] == [1, 2]
    assert predictions[-1] == [5, 10]
    assert all(each in ([1, 2], [5, 10]) for each in predictions)


def test_a_version_that_cannot_be_loaded_leaves_the_old_one(server: Started, folder: Path) -> None:
    broken = folder / "other" / ".4"
    broken.mkdir()
    (broken / "saved_model.pb").write_bytes(b"not a model")
    broken.rename(folder / "other" / "4")
    url = f"http://{server.rest}/v1/models/other/versions/4"
    wait_until(lambda: "END" in requests.get(url, timeout=60).text)
    (status,) = requests.get(url, timeout=60).json()["model_version_status"]
    assert status["status"]["error_code"] != "OK"
    assert status["status"]["error_message"]
    assert server.predict("other", {"instances": [[1, 2]]}).json() == {"predictions": [[10, 20]]}
    shutil.rmtree(folder / "other" / "4")


@pytest.mark.parametrize("argument", ["rest_port", "grpc_port"])
def test_a_port_in_use_is_told_before_anything_is_loaded(server: Started, folder: Path, argument: str) -> None:
    taken = int((server.rest if argument == "rest_port" else server.grpc).split(":")[1])
    ports: dict[str, Any] = {"rest_port": None, "grpc_port": None, argument: taken}
    with pytest.raises(ConfigError, match=rf"port {taken}: Address already in use\. Choose another {argument}, or 0"):
        tfopt.serve(folder, **ports)


@pytest.mark.slow  # a server of its own
def test_a_signal_lets_requests_end_and_no_more_begin(tmp_path: Path) -> None:
    models, model = tmp_path / "models", keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(1)])
    export_serving(model, models, name="ranker")  # models.config names /models, as in a container
    write_version(models / "scale", 1, 2.0)
    config = models / "models.config"
    config.write_text(with_model(config.read_text(), name="scale", base_path="/models/scale"))
    server = start(models, tmp_path / "log", "--drain-seconds", "60")
    host, port = server.rest.split(":")
    body = json.dumps({"instances": ROW.tolist()}).encode()
    slow = grpc_request(ROW, signature_name="slow")
    slow.inputs["rounds"].CopyFrom(tf.make_tensor_proto([1000]))
    with (
        socket.create_connection((host, int(port)), timeout=60) as client,
        grpc.insecure_channel(server.grpc) as channel,
    ):
        predictor = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        in_flight = predictor.Predict.future(slow, timeout=60)
        assert predictor.Predict(grpc_request(ROW), timeout=60)  # sent after it on one connection: it has arrived too
        # The server says "continue" when it waits for the body: the request is in flight.
        client.sendall(b"POST /v1/models/ranker:predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n")
        client.sendall(b"Content-Length: %d\r\n\r\n" % len(body))
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses_connections(host, int(port)))
        wait_until(lambda: refuses_connections(host, int(server.grpc.split(":")[1])))
        assert server.process.poll() is None
        client.sendall(body)
        head, _, answer = read_all(client).partition(b"\r\n\r\n")
        np.testing.assert_array_equal(tf.make_ndarray(in_flight.result().outputs["y"]), 2 * ROW)
    assert head.startswith(b"HTTP/1.1 200")
    expected = keras.ops.convert_to_numpy(model(ROW))
    np.testing.assert_allclose(json.loads(answer)["predictions"], expected, rtol=1e-5)
    assert server.process.wait(60) == 0, server.told
    assert "Traceback" not in server.told


def refuses_connections(host: str, port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((host, port)) != 0


def read_all(client: socket.socket) -> bytes:
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_a_folder_without_a_model_that_loads_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a folder of models"):
        tfopt.serve(tmp_path, rest_port=0, grpc_port=None)
    (tmp_path / "broken" / "1").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"a model that can be served .*Received: broken  version 1  END "):
        tfopt.serve(tmp_path, rest_port=0, grpc_port=None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rest_port": 70000}, r"rest_port must be from 0 to 65535, or None\. Received: 70000"),
        ({"grpc_port": True}, r"grpc_port must be .*Received: True"),
        ({"rest_port": None, "grpc_port": None}, r"a rest_port, a grpc_port or both\. Received: None for both"),
        ({"rest_port": 9000, "grpc_port": 9000}, r"must differ\. Received: 9000 for both"),
        ({"host": "192.0.2.1"}, r"cannot listen at 192\.0\.2\.1, port 0: "),
        ({"poll_seconds": -1}, r"poll_seconds must be at least 0\. Received: -1"),
        ({"max_request_bytes": 0}, r"max_request_bytes must be above 0\. Received: 0"),
        ({"deadline_seconds": 0}, r"deadline_seconds must be above 0\. Received: 0"),
        ({"batching": 32}, r"batching must be BatchingParameters, .*Received: 32"),
        ({"batching": "absent.txt"}, r"cannot read absent\.txt"),
        ({"cache_bytes": 1, "cache_url": "redis://x"}, r"cache_bytes or cache_url\. Received: 1 and redis://x"),
    ],
)
def test_arguments_are_checked(folder: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tfopt.serve(folder, **{"rest_port": 0, "grpc_port": 0, **arguments})


def test_it_asks_for_a_main_thread_without_an_event_loop(folder: Path) -> None:
    async def serve() -> None:
        tfopt.serve(folder, rest_port=0, grpc_port=None)

    with pytest.raises(ConfigError, match="main thread of a process, without a running event loop"):
        asyncio.run(serve())


def test_the_extra_is_named_where_it_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"needs the extra 'serving'.*pip install 'tfopt\[serving\]'"):
        tfopt.serve(folder, rest_port=0, grpc_port=0)


def test_the_command_explains_itself_without_tensorflow() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tfopt", "serve", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert "--rest-port" in done.stdout
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "tfopt" in loaded
    assert not loaded & {"tensorflow", "keras", "grpc", "uvicorn", "uvloop", "redis"}


def test_wrong_options_are_one_message(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tfopt", "serve", str(tmp_path / "absent")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "absent, which does not exist" in done.stderr
    assert done.stderr.count("\n") == 1
