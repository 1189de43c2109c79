"""gRPC: TF Serving's ModelService, which tells what is loaded and takes new configurations."""

from __future__ import annotations

import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2, model_service_pb2_grpc

from tfopt.errors import TfoptError
from tfopt.serving.server.grpc_calls import answered
from tfopt.serving.server.grpc_messages import named_by
from tfopt.serving.server.model_store import ModelStore
from tfopt.serving.server.request_error import Code, RequestError

__all__ = ["ModelService"]


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """tensorflow.serving.ModelService over a `ModelStore`.

    Args:
        store: what is asked and configured.

    References: tensorflow_serving/apis/model_service.proto; model_servers/get_model_status_impl.cc,
    model_service_impl.cc.
    """

    def __init__(self, store: ModelStore) -> None:
        self.store = store

    @answered
    async def GetModelStatus(  # noqa: N802
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.aio.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Tells the state of one version of a model, or of all."""
        which = named_by(request)
        version = which["version"]
        if which["label"] is not None:
            version = self.store.get(which["name"], label=which["label"]).version.version
        response = get_model_status_pb2.GetModelStatusResponse()
        for each in self.store.status(which["name"], version):
            status = response.model_version_status.add(version=each.version)
            status.state = get_model_status_pb2.ModelVersionStatus.State.Value(each.state.name)
            status.status.error_code = 0 if each.error_code == "OK" else Code[each.error_code].value
            status.status.error_message = each.error_message
        return response

    @answered
    async def HandleReloadConfigRequest(  # noqa: N802
        self, request: model_management_pb2.ReloadConfigRequest, context: grpc.aio.ServicerContext
    ) -> model_management_pb2.ReloadConfigResponse:
        """Replaces the server's models.config, and answers when its models are loaded."""
        if request.config.WhichOneof("config") != "model_config_list":
            raise RequestError(
                Code.INVALID_ARGUMENT,
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
                "supported",
            )
        try:
            await self.store.reload(request.config)
        except TfoptError as error:
            raise RequestError(Code.INVALID_ARGUMENT, str(error)) from error
        response = model_management_pb2.ReloadConfigResponse()
        response.status.error_code = 0  # sets the field, which clients look for
        return response
