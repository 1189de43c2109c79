"""Codes of refusals: gRPC's numbers, and the HTTP statuses of TF Serving."""

import grpc
import pytest

from tfopt.serving.server.request_error import Code, RequestError


def test_the_codes_are_those_of_grpc() -> None:
    assert {code.name: code.value for code in Code} == {
        status.name: status.value[0] for status in grpc.StatusCode if status.name != "OK"
    }


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (Code.INVALID_ARGUMENT, 400),
        (Code.FAILED_PRECONDITION, 400),
        (Code.NOT_FOUND, 404),
        (Code.RESOURCE_EXHAUSTED, 429),
        (Code.INTERNAL, 500),
        (Code.UNKNOWN, 500),
        (Code.UNIMPLEMENTED, 501),
        (Code.UNAVAILABLE, 503),
        (Code.DEADLINE_EXCEEDED, 504),
    ],
)
def test_the_http_statuses_are_those_of_tf_serving(code: Code, status: int) -> None:
    assert code.http == status


def test_an_error_keeps_its_code_and_message() -> None:
    error = RequestError(Code.NOT_FOUND, "gone")
    assert (error.code, error.message, str(error)) == (Code.NOT_FOUND, "gone", "gone")
