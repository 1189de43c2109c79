"""gRPC: TF Serving's PredictionService, and the services that are served with it, in one event loop."""

from __future__ import annotations

import asyncio

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from tfopt.serving.server.grpc_calls import answered, counted, deadline_of
from tfopt.serving.server.grpc_messages import (
    CLASSIFY,
    REGRESS,
    checked_tasks,
    classifications,
    model_spec,
    named_by,
    regressions,
    wanted_outputs,
)
from tfopt.serving.server.grpc_model_service import ModelService
from tfopt.serving.server.model_store import ModelStore
from tfopt.serving.server.prediction import Predictor
from tfopt.serving.server.request_error import Code, RequestError
from tfopt.serving.server.server_metrics import ServerMetrics
from tfopt.serving.server.tensor_protos import read_tensor, write_tensor

__all__ = ["PredictionService", "add_services"]

SIGNATURE_DEF = "signature_def"
"""The one kind of metadata that models have."""
SERVICES = ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")
"""Under which the health service is asked; "" is the server as a whole."""


async def add_services(
    server: grpc.aio.Server,
    predictor: Predictor,
    store: ModelStore,
    metrics: ServerMetrics,
    *,
    max_request_bytes: int | None = None,
) -> health.HealthServicer:
    """Adds PredictionService, ModelService and grpc.health.v1.Health to a server that has not started.

    Args:
        server: from `grpc.aio.server()`.
        predictor: answers Predict, Classify, Regress and MultiInference.
        store: answers for metadata and status, and takes new configurations.
        metrics: counts requests and their latency.
        max_request_bytes: of a tensor that its message describes with fewer bytes, by repeated values.

    Returns:
        The health service, to tell it when the server drains.
    """
    prediction = PredictionService(predictor, store, metrics, max_request_bytes=max_request_bytes)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(prediction, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(store), server)
    healthy = health.HealthServicer()
    for service in SERVICES:
        await healthy.set(service, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    return healthy


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """tensorflow.serving.PredictionService over a `Predictor`, with TF Serving's codes and words.

    The arguments are those of `add_services`.

    References: tensorflow_serving/apis/prediction_service.proto; servables/tensorflow/predict_util.cc,
    classifier.cc, regressor.cc, multi_inference.cc, get_model_metadata_impl.cc.
    """

    def __init__(
        self, predictor: Predictor, store: ModelStore, metrics: ServerMetrics, *, max_request_bytes: int | None = None
    ) -> None:
        self.predictor = predictor
        self.store = store
        self.metrics = metrics
        self.max_request_bytes = max_request_bytes

    @answered
    @counted
    async def Predict(  # noqa: N802 - the names of the methods are the proto's
        self, request: predict_pb2.PredictRequest, context: grpc.aio.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Runs a signature on tensors."""
        inputs = {
            name: read_tensor(tensor, name, max_bytes=self.max_request_bytes) for name, tensor in request.inputs.items()
        }
        prediction = await self.predictor.predict(inputs=inputs, **named_by(request), deadline=deadline_of(context))
        response = predict_pb2.PredictResponse(model_spec=model_spec(prediction))
        for name in wanted_outputs(request.output_filter, prediction.outputs):
            write_tensor(response.outputs[name], prediction.outputs[name])
        return response

    @answered
    @counted
    async def Classify(  # noqa: N802
        self, request: classification_pb2.ClassificationRequest, context: grpc.aio.ServicerContext
    ) -> classification_pb2.ClassificationResponse:
        """Runs a classification signature on tf.train.Examples."""
        prediction = await self.predictor.classify(
            examples=request.input, **named_by(request), deadline=deadline_of(context)
        )
        return classification_pb2.ClassificationResponse(
            model_spec=model_spec(prediction), result=classifications(prediction)
        )

    @answered
    @counted
    async def Regress(  # noqa: N802
        self, request: regression_pb2.RegressionRequest, context: grpc.aio.ServicerContext
    ) -> regression_pb2.RegressionResponse:
        """Runs a regression signature on tf.train.Examples."""
        prediction = await self.predictor.regress(
            examples=request.input, **named_by(request), deadline=deadline_of(context)
        )
        return regression_pb2.RegressionResponse(model_spec=model_spec(prediction), result=regressions(prediction))

    @answered
    async def MultiInference(  # noqa: N802
        self, request: inference_pb2.MultiInferenceRequest, context: grpc.aio.ServicerContext
    ) -> inference_pb2.MultiInferenceResponse:
        """Runs several classification and regression signatures of one model on the same tf.train.Examples."""
        asked = checked_tasks(request.tasks)
        first = asked[0]
        # All tasks run on the version that the first one names, even where a newer one comes up meanwhile.
        version = self.store.get(first["name"], version=first["version"], label=first["label"]).version.version
        methods = {CLASSIFY: self.predictor.classify, REGRESS: self.predictor.regress}
        deadline = deadline_of(context)
        predictions = await asyncio.gather(
            *(
                methods[task.method_name](
                    first["name"], request.input, version=version, signature=each["signature"], deadline=deadline
                )
                for task, each in zip(request.tasks, asked, strict=True)
            )
        )
        response = inference_pb2.MultiInferenceResponse()
        for task, prediction in zip(request.tasks, predictions, strict=True):
            result = response.results.add(model_spec=model_spec(prediction))
            if task.method_name == CLASSIFY:
                result.classification_result.CopyFrom(classifications(prediction))
            else:
                result.regression_result.CopyFrom(regressions(prediction))
        return response

    @answered
    async def GetModelMetadata(  # noqa: N802
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: grpc.aio.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Tells the signatures of a model."""
        which = named_by(request)
        if not request.metadata_field:
            raise RequestError(
                Code.INVALID_ARGUMENT, "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for field in request.metadata_field:
            if field != SIGNATURE_DEF:
                raise RequestError(Code.INVALID_ARGUMENT, f"Metadata field {field} is not supported")
        model = self.store.get(which["name"], version=which["version"], label=which["label"]).version
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = model.name
        response.model_spec.version.value = model.version
        response.metadata[SIGNATURE_DEF].Pack(model.metadata)
        return response
