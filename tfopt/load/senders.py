"""What sends one request and says how it ended: over REST, or over gRPC."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any, Protocol

from tfopt.load.endpoint import Endpoint
from tfopt.load.http_connection import HttpConnection, http_request

__all__ = ["CONNECTION_ERROR", "SUCCESS", "TIMEOUT", "GrpcSender", "RestSender", "Sender"]

SUCCESS = {"200", "OK"}
CONNECTION_ERROR = "connection error"
TIMEOUT = "time-out"
PREDICT = "/tensorflow.serving.PredictionService/Predict"
LARGEST_MESSAGE_BYTES = 1 << 30


class Sender(Protocol):
    """A client's connection, which carries one request at a time."""

    async def send(self, index: int) -> tuple[str, bytes]:
        """Sends the request of an index and returns its code, and what the server said where it failed.

        The code is an HTTP status such as "200", the name of a gRPC status such as "OK", `CONNECTION_ERROR`
        or `TIMEOUT`.
        """

    async def close(self) -> None:
        """Closes the connection."""


class RestSender:
    """Requests in JSON on one connection, which is opened anew where it has broken."""

    def __init__(self, endpoint: Endpoint, bodies: Sequence[bytes], *, timeout_seconds: float) -> None:
        path = f"{endpoint.path}:predict"
        self._requests = [http_request("POST", path, endpoint.address, body) for body in bodies]
        self._endpoint, self._timeout_seconds = endpoint, timeout_seconds
        self._tls = ssl.create_default_context() if endpoint.tls else None
        self._connection: HttpConnection | None = None

    def another(self) -> RestSender:
        """A sender of the same requests on a connection of its own."""
        sender = object.__new__(RestSender)
        sender.__dict__.update(self.__dict__, _connection=None)
        return sender

    async def send(self, index: int) -> tuple[str, bytes]:
        """Sends the request of an index; see `Sender`."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                if self._connection is None or not self._connection.is_open:
                    _, self._connection = await asyncio.get_running_loop().create_connection(
                        HttpConnection, self._endpoint.host, self._endpoint.port, ssl=self._tls
                    )
                status, said = await self._connection.send(self._requests[index % len(self._requests)])
        except TimeoutError:
            return TIMEOUT, b""
        except (OSError, ValueError) as error:
            return CONNECTION_ERROR, str(error).encode()
        return str(status), b"" if status == 200 else said

    async def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            self._connection.close()


class GrpcSender:
    """Requests as serialized messages on one channel."""

    def __init__(self, endpoint: Endpoint, bodies: Sequence[bytes], *, timeout_seconds: float) -> None:
        self._endpoint, self._bodies, self._timeout_seconds = endpoint, bodies, timeout_seconds
        self._channel: Any = None

    def another(self) -> GrpcSender:
        """A sender of the same requests on a channel of its own."""
        return GrpcSender(self._endpoint, self._bodies, timeout_seconds=self._timeout_seconds)

    async def send(self, index: int) -> tuple[str, bytes]:
        """Sends the request of an index; see `Sender`."""
        import grpc

        if self._channel is None:
            options = [
                ("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES),
                ("grpc.use_local_subchannel_pool", 1),  # or channels to one address share a connection
            ]
            self._channel = grpc.aio.insecure_channel(self._endpoint.address, options)
            self._predict = self._channel.unary_unary(PREDICT)
        try:
            await self._predict(self._bodies[index % len(self._bodies)], timeout=self._timeout_seconds)
        except grpc.aio.AioRpcError as error:
            code, said = error.code().name, (error.details() or "").encode()
            # UNAVAILABLE is both a server that is full and one that is not there; the latter has no peer to tell it.
            if code == "DEADLINE_EXCEEDED":
                code = TIMEOUT
            elif code == "UNAVAILABLE" and said.startswith(b"failed to connect"):
                code = CONNECTION_ERROR
            return code, said
        return "OK", b""

    async def close(self) -> None:
        """Closes the channel."""
        if self._channel is not None:
            await self._channel.close()
