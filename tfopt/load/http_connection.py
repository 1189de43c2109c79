"""One HTTP/1.1 connection kept alive, which costs little enough not to be what is measured."""

from __future__ import annotations

import asyncio
from typing import cast

__all__ = ["HttpConnection", "http_request"]


def http_request(method: str, path: str, host: str, body: bytes = b"") -> bytes:
    r"""The bytes of a request with a body in JSON.

    Example:
        >>> http_request("POST", "/v1/models/m:predict", "localhost:8501", b"{}").splitlines()[0]
        b'POST /v1/models/m:predict HTTP/1.1'
    """
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class HttpConnection(asyncio.Protocol):
    """Sends one request at a time and waits for the whole answer.

    Bodies of known length, in chunks, and up to the end of the connection are understood.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport | None = None
        self._forget_head()

    @property
    def is_open(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Sends the bytes of a request and returns the status and body of the answer.

        Raises:
            OSError: if the connection breaks.
            ValueError: if the answer is not HTTP.
        """
        if not self.is_open:
            raise ConnectionResetError("the connection is closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)  # type: ignore[union-attr]
        try:
            return await self._answer
        except asyncio.CancelledError:
            self.close()  # an answer that comes later must not be taken for that of another request
            raise

    def close(self) -> None:
        """Closes the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102 - asyncio's
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:  # noqa: D102 - asyncio's
        self._buffer += data
        try:
            self._read()
        except ValueError as error:
            self._fail(ValueError(f"the answer is not HTTP/1.1: {error}"))
            self.close()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: D102 - asyncio's
        if error is None and self._until_end and self._answer is not None:
            self._finish(bytes(self._buffer[self._body_begin :]))
        self._fail(error or ConnectionResetError("the server closed the connection"))

    def _read(self) -> None:
        if not self._body_begin and not self._read_head():
            return
        if self._chunked:
            body = self._chunks()
            if body is not None:
                self._finish(body)
        elif not self._until_end and len(self._buffer) >= self._body_begin + self._length:
            self._finish(bytes(self._buffer[self._body_begin : self._body_begin + self._length]))

    def _read_head(self) -> bool:
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            first, *lines = bytes(self._buffer[:end]).split(b"\r\n")
            protocol, _, rest = first.partition(b" ")
            if not protocol.startswith(b"HTTP/1."):
                raise ValueError(repr(first[:40])[1:])
            self._status = int(rest[:3])
            if self._status < 200:  # "100 Continue": the answer follows
                del self._buffer[: end + 4]
                continue
            fields = {key.strip().lower(): value.strip() for key, _, value in (line.partition(b":") for line in lines)}
            self._body_begin = end + 4
            self._chunked = fields.get(b"transfer-encoding", b"").lower() == b"chunked"
            self._until_end = not self._chunked and b"content-length" not in fields and self._status not in (204, 304)
            self._length = int(fields.get(b"content-length", b"0"))
            asked = fields.get(b"connection", b"").lower()
            self._closes = asked == b"close" or (protocol == b"HTTP/1.0" and asked != b"keep-alive")
            return True
        return False

    def _chunks(self) -> bytes | None:
        parts: list[bytes] = []
        begin = self._body_begin
        while (end := self._buffer.find(b"\r\n", begin)) >= 0:
            size = int(self._buffer[begin:end].split(b";")[0], 16)
            if size == 0:
                # Trailing fields end with an empty line, as the last chunk does where there are none.
                done = self._buffer.find(b"\r\n\r\n", end)
                return b"".join(parts) if done >= 0 else None
            begin = end + 2 + size + 2
            if len(self._buffer) < begin:
                return None
            parts.append(bytes(self._buffer[end + 2 : end + 2 + size]))
        return None

    def _finish(self, body: bytes) -> None:
        status, closes = self._status, self._closes
        self._buffer.clear()
        self._forget_head()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((status, body))
        if closes:
            self.close()

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def _forget_head(self) -> None:
        self._status = self._length = self._body_begin = 0
        self._chunked = self._until_end = self._closes = False
