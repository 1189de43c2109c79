"""Bodies are read up to a limit, and work ends with the connection of who asked for it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tfopt.serving.server.request_error import Code, RequestError
from tfopt.serving.server.rest_body import BodyTooLargeError, ClientGoneError, read_body, unless_gone

Message = dict[str, Any]
GONE: Message = {"type": "http.disconnect"}


def chunks(*parts: bytes) -> list[Message]:
    last = len(parts) - 1
    return [{"type": "http.request", "body": part, "more_body": index < last} for index, part in enumerate(parts)]


def receive_from(messages: list[Message]) -> Callable[[], Awaitable[Message]]:
    """ASGI's receive; what is left in the list was not asked for."""

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    return receive


def read(messages: list[Message], *, limit: int = 100, headers: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    return asyncio.run(read_body(headers, receive_from(messages), max_request_bytes=limit))


@pytest.mark.parametrize("parts", [[b""], [b"abc"], [b"ab", b"", b"c"]])
def test_a_body_is_put_together(parts: list[bytes]) -> None:
    assert read(chunks(*parts), limit=3) == b"".join(parts)


def test_a_long_body_is_refused_by_its_length_before_any_of_it_is_read() -> None:
    messages = chunks(b"a" * 101)
    with pytest.raises(BodyTooLargeError, match="takes up to 100 bytes"):
        read(messages, headers=((b"content-length", b"101"),))
    assert len(messages) == 1


def test_a_long_body_without_a_length_is_refused_while_it_arrives() -> None:
    messages = chunks(*[b"a" * 40] * 50)
    with pytest.raises(BodyTooLargeError) as refused:
        read(messages)
    assert refused.value.code is Code.RESOURCE_EXHAUSTED
    assert len(messages) == 47


GZIPPED = (b"content-encoding", b"gzip")


def test_a_gzipped_body_is_unpacked() -> None:
    packed = gzip.compress(b"abc" * 30)
    assert read(chunks(packed[:10], packed[10:]), headers=(GZIPPED,)) == b"abc" * 30


def test_a_small_body_that_unpacks_to_a_large_one_is_refused() -> None:
    bomb = gzip.compress(bytes(10_000_000))
    assert len(bomb) < 20_000
    with pytest.raises(BodyTooLargeError):
        read(chunks(bomb), limit=100_000, headers=(GZIPPED,))


@pytest.mark.parametrize("packed", [b"no gzip", gzip.compress(b"abc", mtime=0)[:-4]], ids=["text", "cut"])
def test_what_is_no_gzip_is_refused(packed: bytes) -> None:
    with pytest.raises(RequestError, match="The body is not gzip") as refused:
        read(chunks(packed), headers=(GZIPPED,))
    assert refused.value.code is Code.INVALID_ARGUMENT


def test_a_client_that_leaves_while_it_sends_is_noticed() -> None:
    with pytest.raises(ClientGoneError):
        read([{"type": "http.request", "body": b"a", "more_body": True}, GONE])


def test_work_is_cancelled_when_the_client_leaves() -> None:
    cancelled = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def main() -> None:
        with pytest.raises(ClientGoneError):
            await unless_gone(receive_from([*chunks(b""), GONE]), work())
        # The task that handled it is as good as new.
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    asyncio.run(main())
    assert cancelled == [True]


def test_work_that_ends_first_has_its_result_and_its_errors() -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 7

    async def fail() -> int:
        raise RequestError(Code.NOT_FOUND, "no")

    async def main() -> None:
        assert await unless_gone(receive_from([]), answer()) == 7
        with pytest.raises(RequestError):
            await unless_gone(receive_from([]), fail())
        # Nothing is left waiting for a client.
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_client_that_leaves_as_work_ends_disturbs_nothing() -> None:
    async def main() -> None:
        leave = asyncio.Event()

        async def receive() -> Message:
            await leave.wait()
            return GONE

        async def work() -> int:
            leave.set()
            await asyncio.sleep(0)
            return 7

        assert await unless_gone(receive, work()) == 7
        for _ in range(3):
            await asyncio.sleep(0)

    asyncio.run(main())


def test_a_cancelled_server_stops_working() -> None:
    async def main() -> None:
        task = asyncio.ensure_future(unless_gone(receive_from([]), asyncio.Event().wait()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
