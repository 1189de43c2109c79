"""A stand-in for a model server: it answers as TF Serving does, with delays and errors that the test chooses."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

SIGNATURES = {
    "serving_default": {
        "inputs": {
            "x": {
                "dtype": "DT_FLOAT",
                "tensor_shape": {"dim": [{"size": "-1", "name": ""}, {"size": "3", "name": ""}], "unknown_rank": False},
                "name": "serving_default_x:0",
            }
        },
        "outputs": {},
        "method_name": "tensorflow/serving/predict",
    }
}
METADATA = {
    "model_spec": {"name": "m", "signature_name": "", "version": "1"},
    "metadata": {"signature_def": {"signature_def": SIGNATURES}},
}


@dataclass
class Answer:
    """What the stand-in does with a prediction."""

    status: int = 200
    body: bytes = b'{"predictions": [[1.0]]}'
    wait_seconds: float = 0.0
    """Of this request alone."""
    stall_seconds: float = 0.0
    """Of the whole server."""
    hang_up: bool = False


@dataclass
class StandIn:
    """The server, in a thread of the test's process."""

    make = Answer
    answer: Callable[[int], Answer] = lambda index: Answer()
    metrics: bytes | None = None
    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/models/m"

    async def serve(self, started: threading.Event, ended: asyncio.Event) -> None:
        server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await ended.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                method, path, _ = head.split(b" ", 2)
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
                body = await reader.readexactly(int(fields.get(b"content-length", 0)))
                status, content = await self._respond(method, path.decode(), body)
                if status == 0:
                    return
                writer.write(b"HTTP/1.1 %d Said\r\nContent-Length: %d\r\n\r\n" % (status, len(content)) + content)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    async def _respond(self, method: bytes, path: str, body: bytes) -> tuple[int, bytes]:
        if path.endswith("/metadata"):
            return 200, json.dumps(METADATA).encode()
        if path == "/monitoring/prometheus/metrics":
            return (404, b"") if self.metrics is None else (200, self.metrics)
        index = len(self.bodies)
        self.bodies.append(body)
        self.paths.append(path)
        answer = self.answer(index)
        if answer.stall_seconds:
            time.sleep(answer.stall_seconds)
        await asyncio.sleep(answer.wait_seconds)
        return (0, b"") if answer.hang_up else (answer.status, answer.body)


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    server, started, loop, ended = StandIn(), threading.Event(), asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=[server.serve(started, ended)])
    thread.start()
    assert started.wait(10)
    yield server
    loop.call_soon_threadsafe(ended.set)
    thread.join(10)
    loop.close()
