"""Whole measurements of a stand-in server, by real client processes."""

import json
import socket
from concurrent import futures
from typing import Any

import numpy as np
import pytest

from tfopt.errors import BenchmarkError, ConfigError
from tfopt.load.endpoint import Endpoint
from tfopt.load.load import Load
from tfopt.load.measurement import measure_load, request_bodies
from tfopt.load.model_inputs import InputTensor, read_inputs

pytestmark = pytest.mark.slow

STALL_SECONDS = 0.3


def test_requests_are_made_from_the_model_s_metadata(stand_in: Any) -> None:
    endpoint = Endpoint.of(stand_in.url)
    assert read_inputs(endpoint) == [InputTensor("x", "float32", (None, 3))]
    bodies = request_bodies(endpoint, batch_size=2, distinct=5)
    assert len(set(bodies)) == 5
    assert np.shape(json.loads(bodies[0])["instances"]) == (2, 3)
    data = np.arange(9).reshape(3, 3)
    given = [json.loads(body)["instances"] for body in request_bodies(endpoint, data, batch_size=2)]
    assert given == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [0, 1, 2]]]


@pytest.mark.parametrize(
    ("signature", "options", "error", "message"),
    [
        ("absent", {}, ConfigError, "expected one of the signatures serving_default. Received: 'absent'"),
        ("serving_default", {"batch_size": 0}, ConfigError, "batch_size must be an integer of at least 1"),
        ("serving_default", {"distinct": 0}, ConfigError, "distinct must be an integer of at least 1"),
    ],
)
def test_requests_that_cannot_be_made_are_refused(
    stand_in: Any, signature: str, options: dict[str, int], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        request_bodies(Endpoint.of(stand_in.url, signature=signature), **options)


def test_a_stalled_server_is_not_flattered_by_an_open_loop(stand_in: Any) -> None:
    endpoint = Endpoint.of(stand_in.url)
    bodies = request_bodies(endpoint)
    stalled: list[int] = []

    def stall_once(index: int) -> Any:
        if index == 200:
            stalled.append(index)
            return stand_in.make(stall_seconds=STALL_SECONDS)
        return stand_in.make(wait_seconds=0.002)

    stand_in.answer = stall_once
    # Long enough for a busy machine to reach the stall with one request at a time.
    closed = measure_load(endpoint, bodies, Load(clients=1, seconds=8, warmup_seconds=0.2))
    stand_in.bodies.clear()
    opened = measure_load(endpoint, bodies, Load(rate_per_second=200, seconds=2, warmup_seconds=0.2))
    assert stalled == [200, 200]
    # One request of hundreds met the stall in the closed loop; in the open one all that were due in it did.
    assert closed.requests > 200
    assert closed.p99_ms is not None
    assert opened.p99_ms is not None
    assert closed.p99_ms < 0.6 * STALL_SECONDS * 1000 < opened.p99_ms
    assert max(closed.latencies_ms) > 0.9 * STALL_SECONDS * 1000
    late = (opened.latencies_ms > 0.5 * STALL_SECONDS * 1000).sum()
    assert late >= 10, "about 200 a second × half of the stall"
    assert (opened.errors, closed.errors) == ({}, {})
    assert 300 <= opened.requests <= 500


def test_a_closed_loop_finds_the_throughput(stand_in: Any) -> None:
    stand_in.answer = lambda index: stand_in.make(wait_seconds=0.05)
    endpoint = Endpoint.of(stand_in.url + "/versions/2")
    load = Load(clients=8, seconds=1.5, warmup_seconds=0.2, processes=2)
    measured = measure_load(endpoint, request_bodies(endpoint), load)
    assert 80 < measured.throughput_per_second <= 8 / 0.05 * 1.05
    assert measured.p50_ms is not None
    assert measured.p50_ms >= 49
    assert measured.goodput_per_second(40) == 0
    assert measured.goodput_per_second(10_000) == measured.throughput_per_second
    assert stand_in.paths[0] == "/v1/models/m/versions/2:predict"
    assert len(set(stand_in.bodies)) > 1
    # Connections are kept: one for metadata, the first request of each process, every client, two readings of metrics.
    assert stand_in.connections == 1 + 2 + 8 + 2


def test_errors_are_told_by_code(stand_in: Any) -> None:
    def answer(index: int) -> Any:
        if index and index % 5 == 0:
            return stand_in.make(status=503, body=b'{"error": "queue is full"}')
        if index and index % 7 == 0:
            return stand_in.make(hang_up=True)
        if index and index % 11 == 0:
            return stand_in.make(wait_seconds=5.0)
        return stand_in.make(wait_seconds=0.005)

    stand_in.answer = answer
    endpoint = Endpoint.of(stand_in.url)
    load = Load(rate_per_second=100, seconds=1, warmup_seconds=0, timeout_seconds=0.5)
    measured = measure_load(endpoint, request_bodies(endpoint), load)
    assert set(measured.errors) == {"503", "connection error", "time-out"}
    assert measured.messages["503"] == '{"error": "queue is full"}'
    assert sum(measured.errors.values()) < measured.requests
    assert max(measured.latencies_ms) >= 500
    assert "queue is full" in str(measured)


def test_batches_and_queue_are_read_from_the_server(stand_in: Any) -> None:
    page = (
        ':tensorflow:serving:batching_session:queuing_latency_bucket{{thread_pool_name="b",le="2000"}} {0}\n'
        ':tensorflow:serving:batching_session:queuing_latency_bucket{{thread_pool_name="b",le="+Inf"}} {0}\n'
        ':tensorflow:serving:batching_session:queuing_latency_sum{{thread_pool_name="b"}} {1}\n'
        ':tensorflow:serving:batching:processed_batch_size_v2{{model_name="m",batch_size="4"}} {0}\n'
    )
    stand_in.metrics = page.format(7, 7e6).encode()

    def answer(index: int) -> Any:
        if index == 40:
            stand_in.metrics = page.format(17, 7e6 + 12_000).encode()
        return stand_in.make(wait_seconds=0.02)

    stand_in.answer = answer
    endpoint = Endpoint.of(stand_in.url)
    told = measure_load(endpoint, request_bodies(endpoint), Load(clients=1, seconds=2, warmup_seconds=0.1)).server
    assert told.batch_sizes == {"4": 10}
    assert told.queue_mean_ms == pytest.approx(1.2)
    assert told.queue_p50_ms == pytest.approx(1.0)


def test_a_first_request_that_fails_ends_it_with_the_server_s_words(stand_in: Any) -> None:
    stand_in.answer = lambda index: stand_in.make(status=400, body=b'{ "error": "wrong shape" }')
    with pytest.raises(BenchmarkError, match=r'the first request failed with 400\. .*"wrong shape"'):
        measure_load(Endpoint.of(stand_in.url), [b"{}"], Load(clients=4))
    assert len(stand_in.bodies) == 1


def test_what_cannot_be_measured_is_told(stand_in: Any) -> None:
    endpoint = Endpoint.of(stand_in.url)
    with pytest.raises(ConfigError, match="expected at least one body"):
        measure_load(endpoint, [], Load(clients=1))
    page = f"http://127.0.0.1:{stand_in.port}/monitoring/prometheus/metrics"
    with pytest.raises(BenchmarkError, match=r"metrics at .* cannot be read: HTTP Error 404"):
        measure_load(endpoint, [b"{}"], Load(clients=1, seconds=0.1, warmup_seconds=0), metrics_url=page)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = Endpoint.of(f"http://127.0.0.1:{unused.getsockname()[1]}/v1/models/m")
        with pytest.raises(BenchmarkError, match=r"does not answer: .* Is the server running"):
            request_bodies(nobody)
        with pytest.raises(BenchmarkError, match="the first request failed with connection error"):
            measure_load(nobody, [b"{}"], Load(clients=1))


def test_grpc_is_measured_with_the_stubs_of_tf_serving() -> None:
    import grpc
    import tensorflow as tf
    from google.protobuf.any_pb2 import Any as AnyMessage
    from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        requests = 0

        def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's
            signatures = get_model_metadata_pb2.SignatureDefMap()
            told = signatures.signature_def["serving_default"].inputs["x"]
            told.dtype = tf.float32.as_datatype_enum
            for size in (-1, 3):
                told.tensor_shape.dim.add(size=size)
            answer = get_model_metadata_pb2.GetModelMetadataResponse()
            packed = AnyMessage()
            packed.Pack(signatures)
            answer.metadata["signature_def"].CopyFrom(packed)
            return answer

        def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's
            assert request.model_spec.name == "m"
            assert tf.make_ndarray(request.inputs["x"]).shape == (1, 3)
            self.requests += 1
            if self.requests % 10 == 0:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
            return predict_pb2.PredictResponse()

    server, service = grpc.server(futures.ThreadPoolExecutor(4)), Service()
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        endpoint = Endpoint.of(f"grpc://127.0.0.1:{port}/m")
        bodies = request_bodies(endpoint, distinct=4)
        closed = measure_load(endpoint, bodies, Load(clients=3, seconds=0.5, warmup_seconds=0.1))
        service.requests = 0  # a first request that is refused ends the measurement
        opened = measure_load(endpoint, bodies, Load(rate_per_second=100, seconds=0.5, warmup_seconds=0.1))
        for measured in (closed, opened):
            assert measured.throughput_per_second > 10
            assert set(measured.errors) == {"RESOURCE_EXHAUSTED"}
            assert measured.messages["RESOURCE_EXHAUSTED"] == "full"
            assert measured.server.batch_sizes is None
    finally:
        server.stop(None).wait()
    with pytest.raises(BenchmarkError, match="UNAVAILABLE"):
        request_bodies(endpoint)
    with pytest.raises(BenchmarkError, match="the first request failed with connection error"):
        measure_load(endpoint, bodies, Load(clients=1))
