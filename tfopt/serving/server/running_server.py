"""A server's life: models loaded, REST and gRPC opened in one event loop, and both drained at a signal."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import uvicorn

from tfopt.errors import ConfigError, first_line
from tfopt.plain_table import aligned
from tfopt.serving.batching import BatchingParameters
from tfopt.serving.server.grpc_services import add_services
from tfopt.serving.server.model_store import ModelStore, State
from tfopt.serving.server.prediction import Predictor
from tfopt.serving.server.prediction_cache import PredictionCache
from tfopt.serving.server.rest import rest_app
from tfopt.serving.server.server_metrics import ServerMetrics

__all__ = ["ServerSettings", "run_server"]

TITLE = "tfopt serve: TF Serving compatible, for development and tests; not TF Serving"
KEEP_ALIVE_SECONDS = 75
"""That an idle connection stays open: longer than most clients keep theirs, so that none is closed under a request."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
OPEN_FILES = 65536
"""A connection is an open file, and many systems allow 1024."""
SWITCH_INTERVAL_SECONDS = 0.001
"""A thread that ran a batch needs the interpreter to hand out answers, while the event loop reads the next requests.
With Python's 5 ms it would wait for longer than many models run."""

Closer = Callable[[], Awaitable[None]]


class _RestServer(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals alone: they end gRPC too, and uvicorn raises them once more at its end."""
        yield


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The arguments of `tfopt.serving.server.serve.serve`, checked.

    Args:
        path: the folder of models, or a models.config.
        rest_socket: bound to the port of REST, not listening; None for no REST.
        grpc_socket: bound to the port of gRPC, not listening; None for no gRPC.
        batching: None to run each request by itself.
        cache: of predictions.
        trusted_callers: whether no caller would make up a request that the cache takes for another's.
        deadline_seconds: of requests without one.
        max_request_bytes: of a body or message.
        poll_seconds: how often the folder is looked at.
        drain_seconds: how long requests are waited for at the end.
    """

    path: Path
    rest_socket: socket.socket | None
    grpc_socket: socket.socket | None
    batching: BatchingParameters | None
    cache: PredictionCache | None
    trusted_callers: bool
    deadline_seconds: float | None
    max_request_bytes: int
    poll_seconds: float
    drain_seconds: float


async def run_server(settings: ServerSettings) -> None:
    """Serves until SIGINT or SIGTERM, and returns when the requests of that moment are answered.

    Raises:
        ConfigError: if no model can be served.
    """
    threads = (os.cpu_count() or 1) if settings.batching is None else settings.batching.num_batch_threads
    executor = ThreadPoolExecutor(threads, thread_name_prefix="tfopt-batch")
    metrics = ServerMetrics()
    store = ModelStore(
        settings.path,
        batching=settings.batching,
        executor=executor,
        poll_seconds=settings.poll_seconds,
        on_batch=metrics.on_batch,
    )
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    try:
        await store.start()
        _check_models(store, settings.path)
        gc.collect()
        # TensorFlow's million objects stay to the end: no collection need look at them, the last one neither.
        gc.freeze()
        await _serve(settings, store, metrics)
    finally:
        await store.stop()
        if settings.cache is not None:
            await settings.cache.close()
        executor.shutdown(wait=False, cancel_futures=True)


async def _serve(settings: ServerSettings, store: ModelStore, metrics: ServerMetrics) -> None:
    predictor = Predictor(
        store,
        cache=settings.cache,
        trusted_callers=settings.trusted_callers,
        default_deadline_seconds=settings.deadline_seconds,
    )
    _allow_open_files()
    closers: list[Closer] = []
    lines = _models(store)
    with _set_by_signals() as ended:
        try:
            if settings.rest_socket is not None:
                address = _address(settings.rest_socket)
                closers.append(await _open_rest(predictor, store, metrics, settings, settings.rest_socket))
                lines.append(f"REST: http://{address}/v1/models/NAME:predict")
            if settings.grpc_socket is not None:
                address = _address(settings.grpc_socket)
                closers.append(await _open_grpc(predictor, store, metrics, settings, settings.grpc_socket))
                lines.append(f"gRPC: {address}")
            print(TITLE, *lines, _batching_line(settings), sep="\n", file=sys.stderr, flush=True)
            await ended.wait()
        finally:
            await asyncio.gather(*(close() for close in closers))


async def _open_rest(
    predictor: Predictor, store: ModelStore, metrics: ServerMetrics, settings: ServerSettings, bound: socket.socket
) -> Closer:
    config = uvicorn.Config(
        rest_app(predictor, store, metrics, max_request_bytes=settings.max_request_bytes),
        log_config=None,  # the process's own logging stays as it is
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
    )
    server = _RestServer(config)
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    while not (server.started or serving.done()):
        await asyncio.sleep(0.01)
    if serving.done():
        await serving  # raises what kept it from starting

    async def close() -> None:
        server.should_exit = True
        await serving

    return close


async def _open_grpc(
    predictor: Predictor, store: ModelStore, metrics: ServerMetrics, settings: ServerSettings, bound: socket.socket
) -> Closer:
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", settings.max_request_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # or two servers would share a port, and its requests, without a word
        ]
    )
    health = await add_services(server, predictor, store, metrics, max_request_bytes=settings.max_request_bytes)
    address = _address(bound)
    bound.close()
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigError(f"serve: gRPC cannot listen at {address}: {first_line(error)}.") from error
    await server.start()

    async def close() -> None:
        await health.enter_graceful_shutdown()
        await server.stop(settings.drain_seconds)

    return close


@contextmanager
def _set_by_signals() -> Iterator[asyncio.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one ends the process at once."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def end() -> None:
        ended.set()
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in SIGNALS:
        loop.add_signal_handler(number, end)
    try:
        yield ended
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


def _allow_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _check_models(store: ModelStore, path: Path) -> None:
    states = [status.state for name in store.names() for status in store.status(name)]
    if State.AVAILABLE not in states:
        found = "; ".join(_models(store)) or "no model"
        raise ConfigError(
            f"serve: expected a model that can be served in {path} (NAME/VERSION/saved_model.pb, with a number for "
            f"VERSION). Received: {found}."
        )


def _models(store: ModelStore) -> list[str]:
    """A line for each version, with the reason where one is not served."""
    rows = [
        (name, f"version {status.version}", f"{status.state} {status.error_message}".rstrip())
        for name in store.names()
        for status in store.status(name)
    ]
    return aligned(rows, "<<<") if rows else []


def _batching_line(settings: ServerSettings) -> str:
    batching = settings.batching
    if batching is None:
        return "Batching: none"
    return (
        f"Batching: up to {batching.execution_batch_size} samples, {batching.num_batch_threads} at once, "
        f"{batching.max_enqueued_batches} waiting"
    )


def _address(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
