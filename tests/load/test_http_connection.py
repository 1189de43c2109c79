"""HTTP answers in whatever pieces they come."""

import asyncio
import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tfopt.load.http_connection import HttpConnection, http_request


class Wire(asyncio.Transport):
    """What the connection writes to, and whether it closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.closed = b"", False

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


async def connected() -> tuple[HttpConnection, Wire]:
    connection, wire = HttpConnection(), Wire()
    connection.connection_made(wire)
    return connection, wire


def pieces(content: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({cut % (len(content) + 1) for cut in cuts} | {0, len(content)})
    return [content[begin:end] for begin, end in itertools.pairwise(ends)]


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, int, bytes]:
    status, body = draw(st.sampled_from([200, 404, 503])), draw(st.binary(max_size=50))
    before = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n"]))
    head = b"HTTP/1.1 %d Some Words: here\r\nX-Other: a:b\r\n" % status
    if draw(st.booleans()):
        return before + head + b"content-length:%d\r\n\r\n" % len(body) + body, status, body
    chunks, rest = b"", body
    while rest:
        size = draw(st.integers(1, len(rest)))
        chunks += b"%x;note=1\r\n" % size + rest[:size] + b"\r\n"
        rest = rest[size:]
    trailer = draw(st.sampled_from([b"", b"X-Sum: 1\r\n"]))
    return before + head + b"Transfer-Encoding: Chunked\r\n\r\n" + chunks + b"0\r\n" + trailer + b"\r\n", status, body


@given(st.lists(answers(), min_size=1, max_size=3), st.lists(st.integers(0, 300), max_size=6))
def test_answers_one_after_the_other_in_any_pieces(sent: list[tuple[bytes, int, bytes]], cuts: list[int]) -> None:
    async def main() -> None:
        connection, wire = await connected()
        for content, status, body in sent:
            answer = asyncio.create_task(connection.send(b"request"))
            await asyncio.sleep(0)
            for piece in pieces(content, cuts):
                assert not answer.done()
                connection.data_received(piece)
            assert await answer == (status, body)
        assert connection.is_open
        assert wire.written == b"request" * len(sent)

    asyncio.run(main())


def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    async def main() -> None:
        connection, _ = await connected()
        answer = asyncio.create_task(connection.send(b""))
        await asyncio.sleep(0)
        connection.data_received(b"HTTP/1.1 200 OK\r\n\r\nall of ")
        connection.data_received(b"this")
        connection.connection_lost(None)
        assert await answer == (200, b"all of this")

    asyncio.run(main())


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nConnection: Close", b"HTTP/1.0 200 OK"])
def test_a_server_that_ends_the_connection_is_obeyed(head: bytes) -> None:
    async def main() -> None:
        connection, wire = await connected()
        answer = asyncio.create_task(connection.send(b""))
        await asyncio.sleep(0)
        connection.data_received(head + b"\r\nContent-Length: 1\r\n\r\nx")
        assert await answer == (200, b"x")
        assert wire.closed
        with pytest.raises(ConnectionResetError):
            await connection.send(b"more")

    asyncio.run(main())


@pytest.mark.parametrize(
    "content", [b"SMTP ready\r\n\r\n", b"HTTP/1.1 what\r\n\r\n", b"HTTP/1.1 200\r\nContent-Length: x\r\n\r\n"]
)
def test_what_is_not_http_is_an_error(content: bytes) -> None:
    async def main() -> None:
        connection, wire = await connected()
        answer = asyncio.create_task(connection.send(b""))
        await asyncio.sleep(0)
        connection.data_received(content)
        with pytest.raises(ValueError, match=r"the answer is not HTTP/1\.1"):
            await answer
        assert wire.closed

    asyncio.run(main())


def test_a_connection_that_breaks_fails_its_request() -> None:
    async def main() -> None:
        connection, _ = await connected()
        answer = asyncio.create_task(connection.send(b""))
        await asyncio.sleep(0)
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        connection.connection_lost(None)
        with pytest.raises(ConnectionResetError, match="the server closed the connection"):
            await answer

    asyncio.run(main())


def test_a_late_answer_is_not_taken_for_that_of_the_next_request() -> None:
    async def main() -> None:
        connection, wire = await connected()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await connection.send(b"")
        assert wire.closed
        assert not connection.is_open

    asyncio.run(main())


def test_a_request_has_what_a_server_asks_for() -> None:
    request = http_request("POST", "/v1/models/m:predict", "host:1", b"{}")
    assert request.startswith(b"POST /v1/models/m:predict HTTP/1.1\r\nHost: host:1\r\n")
    assert request.endswith(b"Content-Length: 2\r\n\r\n{}")
