"""What all gRPC methods of the server share: errors as statuses, counts, and deadlines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import wraps
from time import perf_counter
from typing import Any

import grpc

from tfopt.serving.server.request_error import Code, RequestError

__all__ = ["answered", "counted", "deadline_of"]

LONGEST_MESSAGE = 1024
"""Of an error, in characters: it travels in a header, and gRPC bounds those."""

logger = logging.getLogger(__name__)
Method = Callable[[Any, Any, grpc.aio.ServicerContext], Awaitable[Any]]


def answered(method: Method) -> Method:
    """Makes a method's refusals gRPC statuses; whatever else goes wrong is INTERNAL, and logged.

    References: tensorflow_serving/model_servers/grpc_status_util.cc.
    """

    @wraps(method)
    async def answer(service: Any, request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            return await method(service, request, context)
        except RequestError as error:
            code, message = error.code, error.message
        except Exception as error:
            logger.exception("%s failed", method.__name__)
            code, message = Code.INTERNAL, f"{type(error).__name__}: {error}"
        if len(message) > LONGEST_MESSAGE:
            message = f"{message[:LONGEST_MESSAGE]}...TRUNCATED"
        return await context.abort(grpc.StatusCode[code.name], message)

    return answer


def counted(method: Method) -> Method:
    """Counts a method's requests by model and status, and times them, in the `metrics` of its service.

    Models that are not there are counted under "", or clients could fill the memory with names.
    """

    @wraps(method)
    async def count(service: Any, request: Any, context: grpc.aio.ServicerContext) -> Any:
        start, code = perf_counter(), Code.INTERNAL.name
        try:
            response = await method(service, request, context)
            code = "OK"
        except RequestError as error:
            code = error.code.name
            raise
        except asyncio.CancelledError:
            code = Code.CANCELLED.name
            raise
        finally:
            seconds, name = perf_counter() - start, request.model_spec.name
            if code != "OK" and name not in service.store.names():
                name = ""
            service.metrics.on_request(name, api=method.__name__, entrypoint="GRPC", status=code, seconds=seconds)
        return response

    return count


def deadline_of(context: grpc.aio.ServicerContext) -> float | None:
    """When the client gives up, by the event loop's clock; None where it never does."""
    remaining = context.time_remaining()
    return None if remaining is None else asyncio.get_running_loop().time() + remaining
