"""The gRPC services, asked over a real channel with tensorflow-serving-api's stubs; what they stand on is made up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_management_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from tfopt.errors import ConfigError
from tfopt.serving.server.grpc_services import add_services
from tfopt.serving.server.model_store import State, VersionStatus
from tfopt.serving.server.request_error import Code, RequestError
from tfopt.serving.server.server_metrics import ServerMetrics

METADATA = get_model_metadata_pb2.SignatureDefMap()
METADATA.signature_def["serving_default"].method_name = "tensorflow/serving/predict"
MODEL = SimpleNamespace(name="toy", version=7, metadata=METADATA)


class MadeUp:
    """A predictor and a store that remember what they were asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.configs: list[Any] = []
        self.cancelled = asyncio.Event()

    async def predict(self, name: str, inputs: dict[str, np.ndarray], **which: Any) -> SimpleNamespace:
        self.asked.append({"name": name, **which})
        if name == "absent":
            raise RequestError(Code.NOT_FOUND, "Servable not found for request: Latest(absent)")
        if name == "broken":
            raise ZeroDivisionError("x" * 5000)
        if name == "slow":
            try:
                await asyncio.sleep(60)
            finally:
                self.cancelled.set()
        outputs = {"double": 2 * inputs["x"], "names": np.array([b"a", b"bc"], object)}
        return SimpleNamespace(outputs=outputs, model=MODEL, signature=SimpleNamespace(name=which["signature"]))

    async def classify(self, name: str, examples: input_pb2.Input, **which: Any) -> SimpleNamespace:
        self.asked.append({"name": name, **which})
        count = len(examples.example_list.examples)
        outputs = {
            "classes": np.array([[b"cat", b"d\xffg"]] * count, object),
            "scores": np.array([[0.25, 0.75]] * count, np.float32),
        }
        if which["signature"] == "scores_only":
            del outputs["classes"]
        return SimpleNamespace(outputs=outputs, model=MODEL, signature=SimpleNamespace(name=which["signature"]))

    async def regress(self, name: str, examples: input_pb2.Input, **which: Any) -> SimpleNamespace:
        self.asked.append({"name": name, **which})
        outputs = {"outputs": np.arange(len(examples.example_list.examples), dtype=np.float32)}
        return SimpleNamespace(outputs=outputs, model=MODEL, signature=SimpleNamespace(name=which["signature"]))

    def get(self, name: str, *, version: int | None = None, label: str | None = None) -> SimpleNamespace:
        if name != "toy":
            raise RequestError(Code.NOT_FOUND, f"Servable not found for request: Latest({name})")
        return SimpleNamespace(version=MODEL)

    def names(self) -> list[str]:
        return ["toy", "broken"]

    def status(self, name: str, version: int | None = None) -> list[VersionStatus]:
        known = [VersionStatus(7, State.AVAILABLE), VersionStatus(8, State.END, "INTERNAL", "no weights")]
        found = [each for each in known if version in (None, each.version)]
        if not found:
            raise RequestError(Code.NOT_FOUND, f"Could not find version {version} of model {name}")
        return found

    async def reload(self, config: Any) -> None:
        if config.model_config_list.config[0].base_path == "relative":
            raise ConfigError("models.config: base_path must be absolute.")
        self.configs.append(config)


@asynccontextmanager
async def services(**options: Any) -> Any:
    made_up, metrics = MadeUp(), ServerMetrics()
    server = grpc.aio.server()
    health = await add_services(server, made_up, made_up, metrics, **options)  # type: ignore[arg-type]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield SimpleNamespace(
                predict=prediction_service_pb2_grpc.PredictionServiceStub(channel),
                models=model_service_pb2_grpc.ModelServiceStub(channel),
                health=health_pb2_grpc.HealthStub(channel),
                servicer=health,
                made_up=made_up,
                metrics=metrics,
            )
    finally:
        await server.stop(None)


def asked(ask: Callable[[Any], Awaitable[Any]], **options: Any) -> Any:
    """Runs one conversation with the services."""

    async def conversation() -> Any:
        async with services(**options) as served:
            return await asyncio.wait_for(ask(served), 20)

    return asyncio.run(conversation())


def refused(ask: Callable[[Any], Awaitable[Any]], code: grpc.StatusCode, words: str, **options: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        asked(ask, **options)
    assert error.value.code() is code
    assert words in error.value.details()


def predict_request(name: str = "toy", *, filters: tuple[str, ...] = (), **spec: Any) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest(model_spec=model_pb2.ModelSpec(name=name, **spec), output_filter=filters)
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.array([[1.5, 2]], np.float32)))
    return request


def examples(count: int) -> input_pb2.Input:
    request = input_pb2.Input()
    for _ in range(count):
        request.example_list.examples.add()
    return request


def test_predict_answers_in_typed_fields_and_says_which_version_did() -> None:
    response = asked(lambda served: served.predict.Predict(predict_request()))
    assert list(response.outputs["double"].float_val) == [3, 4]
    assert list(response.outputs["names"].string_val) == [b"a", b"bc"]
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("toy", 7, "serving_default")


def test_versions_labels_signatures_and_deadlines_reach_the_predictor() -> None:
    labelled = predict_request(version_label="stable", signature_name="other")
    versioned = predict_request()
    versioned.model_spec.version.value = 3

    async def ask(served: Any) -> list[dict[str, Any]]:
        await served.predict.Predict(labelled)
        await served.predict.Predict(versioned, timeout=30)
        return [{**each, "now": asyncio.get_running_loop().time()} for each in served.made_up.asked]

    first, second = asked(ask)
    assert (first["label"], first["version"], first["signature"], first["deadline"]) == ("stable", None, "other", None)
    assert (second["label"], second["version"], second["signature"]) == (None, 3, "serving_default")
    assert 20 < second["deadline"] - second["now"] < 31


def test_only_the_outputs_of_the_filter_are_sent() -> None:
    response = asked(lambda served: served.predict.Predict(predict_request(filters=("names",))))
    assert list(response.outputs) == ["names"]


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (predict_request("absent"), "NOT_FOUND", "Servable not found for request: Latest(absent)"),
        (predict_pb2.PredictRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (predict_request(filters=("scores",)), "INVALID_ARGUMENT", "alias not found in signature: scores Outputs exp"),
        (predict_request(filters=("names", "names")), "INVALID_ARGUMENT", "duplicate output tensor alias: names"),
    ],
)
def test_refusals_have_tf_servings_codes_and_words(request_: Any, code: str, words: str) -> None:
    refused(lambda served: served.predict.Predict(request_), grpc.StatusCode[code], words)


def test_a_malformed_tensor_is_an_invalid_argument() -> None:
    request = predict_request()
    request.inputs["x"].tensor_content = b"123"
    refused(lambda served: served.predict.Predict(request), grpc.StatusCode.INVALID_ARGUMENT, "parsing error: x")


def test_a_tensor_that_would_grow_beyond_the_limit_is_refused() -> None:
    request = predict_request()
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(1.0, shape=[1000, 1000]))
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    refused(lambda served: served.predict.Predict(request), code, "4000000 bytes", max_request_bytes=1000)


def test_an_unexpected_error_is_told_briefly_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    refused(lambda served: served.predict.Predict(predict_request("broken")), grpc.StatusCode.INTERNAL, "...TRUNCATED")
    assert any("Predict failed" in record.message and record.exc_info for record in caplog.records)


def test_a_client_that_goes_takes_its_request_along() -> None:
    async def ask(served: Any) -> bool:
        call = served.predict.Predict(predict_request("slow"))
        while not served.made_up.asked:
            await asyncio.sleep(0.01)
        call.cancel()
        await served.made_up.cancelled.wait()
        return True

    assert asked(ask)


def test_a_deadline_that_passes_is_told() -> None:
    request = predict_request("slow")
    refused(lambda served: served.predict.Predict(request, timeout=0.2), grpc.StatusCode.DEADLINE_EXCEEDED, "")


def test_classify_and_regress() -> None:
    spec = model_pb2.ModelSpec(name="toy", signature_name="s")

    async def ask(served: Any) -> tuple[Any, Any]:
        return (
            await served.predict.Classify(classification_pb2.ClassificationRequest(model_spec=spec, input=examples(2))),
            await served.predict.Regress(regression_pb2.RegressionRequest(model_spec=spec, input=examples(3))),
        )

    classified, regressed = asked(ask)
    assert len(classified.result.classifications) == 2
    assert [(one.label, one.score) for one in classified.result.classifications[1].classes] == [
        ("cat", 0.25),
        ("d�g", 0.75),
    ]
    assert [one.value for one in regressed.result.regressions] == [0, 1, 2]
    assert regressed.model_spec.signature_name == "s"


def test_a_classification_may_have_scores_alone() -> None:
    spec = model_pb2.ModelSpec(name="toy", signature_name="scores_only")
    request = classification_pb2.ClassificationRequest(model_spec=spec, input=examples(1))
    response = asked(lambda served: served.predict.Classify(request))
    assert [(one.label, one.score) for one in response.result.classifications[0].classes] == [("", 0.25), ("", 0.75)]


def tasks(*asked_for: tuple[str, str, str]) -> inference_pb2.MultiInferenceRequest:
    request = inference_pb2.MultiInferenceRequest(input=examples(2))
    for name, signature, method in asked_for:
        spec = model_pb2.ModelSpec(name=name, signature_name=signature)
        request.tasks.add(model_spec=spec, method_name=f"tensorflow/serving/{method}")
    return request


def test_multi_inference_runs_its_tasks_on_one_version() -> None:
    async def ask(served: Any) -> tuple[Any, list[dict[str, Any]]]:
        response = await served.predict.MultiInference(tasks(("toy", "c", "classify"), ("toy", "r", "regress")))
        return response, served.made_up.asked

    response, seen = asked(ask)
    first, second = response.results
    assert first.classification_result.classifications[0].classes[0].label == "cat"
    assert [one.value for one in second.regression_result.regressions] == [0, 1]
    assert [each["version"] for each in seen] == [7, 7]


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (tasks(), "INVALID_ARGUMENT", "at least one inference task"),
        (tasks(("toy", "a", "classify"), ("toy", "a", "regress")), "INVALID_ARGUMENT", "Duplicate evaluation of"),
        (tasks(("toy", "a", "classify"), ("b", "b", "regress")), "INVALID_ARGUMENT", "must access the same model"),
        (tasks(("", "a", "classify")), "INVALID_ARGUMENT", "empty model name"),
        (tasks(("toy", "a", "predict")), "UNIMPLEMENTED", "method_name: tensorflow/serving/predict"),
    ],
)
def test_tasks_that_do_not_go_together_are_refused(request_: Any, code: str, words: str) -> None:
    refused(lambda served: served.predict.MultiInference(request_), grpc.StatusCode[code], words)


def metadata_request(*fields: str) -> get_model_metadata_pb2.GetModelMetadataRequest:
    spec = model_pb2.ModelSpec(name="toy")
    return get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=fields)


def test_metadata_holds_the_signatures() -> None:
    response = asked(lambda served: served.predict.GetModelMetadata(metadata_request("signature_def")))
    told = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(told)
    assert told == METADATA
    assert response.model_spec.version.value == 7


@pytest.mark.parametrize(
    ("fields", "words"), [((), "at least one metadata_field"), (("weights",), "Metadata field weights is not")]
)
def test_other_metadata_is_refused(fields: tuple[str, ...], words: str) -> None:
    code = grpc.StatusCode.INVALID_ARGUMENT
    refused(lambda served: served.predict.GetModelMetadata(metadata_request(*fields)), code, words)


def status_request(**spec: Any) -> get_model_status_pb2.GetModelStatusRequest:
    return get_model_status_pb2.GetModelStatusRequest(model_spec=model_pb2.ModelSpec(name="toy", **spec))


def test_status_tells_of_every_version_or_of_one() -> None:
    one = status_request()
    one.model_spec.version.value = 8

    async def ask(served: Any) -> tuple[Any, ...]:
        requests = (status_request(), one, status_request(version_label="stable"))
        return tuple([await served.models.GetModelStatus(request) for request in requests])

    everything, second, labelled = asked(ask)
    states = get_model_status_pb2.ModelVersionStatus.State
    available, ended = everything.model_version_status
    assert (available.version, available.state, available.status.error_code) == (7, states.AVAILABLE, 0)
    assert (ended.version, ended.state) == (8, states.END)
    assert (ended.status.error_code, ended.status.error_message) == (grpc.StatusCode.INTERNAL.value[0], "no weights")
    assert [status.version for status in second.model_version_status] == [8]
    assert [status.version for status in labelled.model_version_status] == [7]


def reload_request(base_path: str) -> model_management_pb2.ReloadConfigRequest:
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.config.add(name="toy", base_path=base_path)
    return request


def test_a_configuration_is_taken_or_refused() -> None:
    async def ask(served: Any) -> tuple[Any, list[Any]]:
        return await served.models.HandleReloadConfigRequest(reload_request("/models/toy")), served.made_up.configs

    response, configs = asked(ask)
    assert response.HasField("status")
    assert response.status.error_code == 0
    assert [config.model_config_list.config[0].base_path for config in configs] == ["/models/toy"]
    code = grpc.StatusCode.INVALID_ARGUMENT
    relative = reload_request("relative")
    refused(lambda served: served.models.HandleReloadConfigRequest(relative), code, "must be absolute")
    empty = model_management_pb2.ReloadConfigRequest()
    refused(lambda served: served.models.HandleReloadConfigRequest(empty), code, "Only ModelConfigList is")


def test_health_is_told_and_ends_with_the_server() -> None:
    async def ask(served: Any) -> list[int]:
        names = ("", "tensorflow.serving.PredictionService")
        before = [(await served.health.Check(health_pb2.HealthCheckRequest(service=name))).status for name in names]
        await served.servicer.enter_graceful_shutdown()
        return [*before, (await served.health.Check(health_pb2.HealthCheckRequest())).status]

    states = health_pb2.HealthCheckResponse
    assert asked(ask) == [states.SERVING, states.SERVING, states.NOT_SERVING]


def test_requests_are_counted() -> None:
    async def ask(served: Any) -> str:
        await served.predict.Predict(predict_request())
        with pytest.raises(grpc.aio.AioRpcError):
            await served.predict.Predict(predict_request("absent"))
        return served.metrics.render().decode()

    page = asked(ask)
    assert ':tensorflow:serving:request_count{model_name="toy",status="OK"} 1' in page
    assert ':tensorflow:serving:request_count{model_name="",status="NOT_FOUND"} 1' in page
    assert "absent" not in page
    assert 'API="Predict",entrypoint="GRPC"' in page
