"""The body of an HTTP request, read up to a limit, and work that ends when its client is gone."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from tfopt.serving.server.request_error import Code, RequestError

__all__ = ["BodyTooLargeError", "ClientGoneError", "Receive", "read_body", "unless_gone"]

Receive = Callable[[], Awaitable[dict[str, Any]]]
Result = TypeVar("Result")
GZIP_WINDOW = 16 + zlib.MAX_WBITS


class BodyTooLargeError(RequestError):
    """A body has more bytes than the server takes, which HTTP has a status of its own for: 413."""

    def __init__(self, max_request_bytes: int) -> None:
        super().__init__(
            Code.RESOURCE_EXHAUSTED,
            f"Request body too large: the server takes up to {max_request_bytes} bytes. Send fewer instances per "
            "request, or start the server with a larger max_request_bytes.",
        )


class ClientGoneError(Exception):
    """The client closed its connection: nobody waits for the answer."""


async def read_body(headers: Iterable[tuple[bytes, bytes]], receive: Receive, *, max_request_bytes: int) -> bytes:
    """Reads a request's body; a gzipped one is unpacked.

    Args:
        headers: of the request, names in lower case, as ASGI gives them.
        receive: ASGI's.
        max_request_bytes: that are kept of it at most; with gzip, after unpacking.

    Raises:
        BodyTooLargeError: as soon as it is known, by the Content-Length or while reading.
        ClientGoneError: if the client leaves before all is sent.
        RequestError: INVALID_ARGUMENT if it is no gzip although it should be.
    """
    unpack = None
    for name, value in headers:
        if name == b"content-length" and int(value) > max_request_bytes:
            raise BodyTooLargeError(max_request_bytes)
        if name == b"content-encoding" and b"gzip" in value.lower():
            unpack = zlib.decompressobj(GZIP_WINDOW)
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk = message.get("body", b"")
        if unpack is not None:
            try:
                # One byte more than fits shows that it does not fit; a small body can unpack to gigabytes.
                chunk = unpack.decompress(chunk, max_request_bytes - size + 1)
            except zlib.error as error:
                raise RequestError(Code.INVALID_ARGUMENT, f"The body is not gzip: {error}") from None
        size += len(chunk)
        if size > max_request_bytes:
            raise BodyTooLargeError(max_request_bytes)
        chunks.append(chunk)
        more = message.get("more_body", False)
    if unpack is not None and not unpack.eof:
        raise RequestError(Code.INVALID_ARGUMENT, "The body is not gzip: it ends too early")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def unless_gone(receive: Receive, work: Awaitable[Result]) -> Result:
    """Awaits something, which is cancelled when the client closes its connection first.

    Args:
        receive: ASGI's, the body having been read.
        work: a coroutine that may be cancelled.

    Raises:
        ClientGoneError: if the client was first.
    """
    task = asyncio.current_task()
    finished = False

    def cancel(_: asyncio.Future[None]) -> None:
        if task is not None and not finished:
            task.cancel()

    watch = asyncio.ensure_future(_gone(receive))
    watch.add_done_callback(cancel)
    try:
        return await work
    except asyncio.CancelledError:
        if task is None or not watch.done() or watch.cancelled():
            raise
        task.uncancel()
        raise ClientGoneError from None
    finally:
        finished = True
        watch.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
