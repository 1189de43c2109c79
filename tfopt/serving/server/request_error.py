"""Why a request was refused: a code of gRPC's, its HTTP status in TF Serving, and what to tell the client."""

from __future__ import annotations

import enum

__all__ = ["Code", "RequestError"]


class Code(enum.Enum):
    """The canonical error codes, by their number in gRPC and TensorFlow.

    Example:
        >>> Code.RESOURCE_EXHAUSTED.http
        429
        >>> Code(3)
        <Code.INVALID_ARGUMENT: 3>

    References: github.com/googleapis/googleapis, google/rpc/code.proto; ToHTTPStatusCode in TF Serving's
    model_servers/http_server.cc.
    """

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @property
    def http(self) -> int:
        """The HTTP status that TF Serving answers with."""
        return _HTTP_STATUS.get(self, 500)


# What is not named here is 500.
_HTTP_STATUS = {
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}


class RequestError(Exception):
    """One request cannot be answered; the server goes on.

    Args:
        code: what kind of refusal it is.
        message: what the client is told, in TF Serving's words where it has some: clients look for them.

    Example:
        >>> raise RequestError(Code.NOT_FOUND, "Servable not found for request: Latest(digits)")
        Traceback (most recent call last):
        ...
        tfopt.serving.server.request_error.RequestError: Servable not found for request: Latest(digits)
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
