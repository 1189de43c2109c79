"""The verb `serve`: a local server that behaves like TF Serving. Light: what is heavy is imported when it runs."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tfopt.errors import ConfigError, MissingExtraError, first_line
from tfopt.tensorflow_start import start_tensorflow

if TYPE_CHECKING:
    from tfopt.serving.batching import BatchingParameters
    from tfopt.serving.server.prediction_cache import PredictionCache

__all__ = ["serve"]

NEEDED = ("uvicorn", "httptools", "orjson", "simdjson", "grpc_health", "xxhash")
"""Of the extra; uvloop makes the server faster where it is installed."""
LARGEST_REQUEST_BYTES = 64 * 1024**2


def serve(
    path: str | Path,
    *,
    host: str = "127.0.0.1",
    rest_port: int | None = 8501,
    grpc_port: int | None = 8500,
    batching: BatchingParameters | str | Path | bool = True,
    deadline_seconds: float | None = None,
    cache_bytes: int = 0,
    cache_url: str | None = None,
    cache_ttl_seconds: float | None = None,
    trusted_callers: bool = True,
    max_request_bytes: int = LARGEST_REQUEST_BYTES,
    poll_seconds: float = 1.0,
    drain_seconds: float = 10.0,
) -> None:
    """Serves models over REST and gRPC as TF Serving does, until SIGINT or SIGTERM; for development and tests.

    Clients written for TF Serving work unchanged: `POST /v1/models/NAME:predict` and its kin, and the stubs of
    `tensorflow-serving-api`. The server follows models.config and the version folders while it runs: a new version
    serves before the old one goes. There is no authentication and no TLS, so it listens to this machine alone unless
    `host` says otherwise. What is served is printed to stderr. On a signal it takes no more requests, answers those
    that it has, and returns; a second signal ends it at once. What the process holds in memory when the models are
    loaded stays out of garbage collections from then on (`gc.freeze`). Needs the extra `serving`.

    Args:
        path: a folder of models (`PATH/NAME/VERSION/saved_model.pb`, as `export_serving` writes it), with or without
            a models.config in it, or a models.config itself.
        host: the address to listen at; "0.0.0.0" or "::" for all.
        rest_port: 0 for a free one, None for no REST.
        grpc_port: 0 for a free one, None for no gRPC.
        batching: True for what PATH/batching_parameters.txt says, or, where there is none, batches of up to 32 and
            requests of up to 1024 samples; a path for another such file; False to run each request by itself. A
            model's own batching_params.pbtxt counts more.
        deadline_seconds: how long a request may take whose client set no deadline; None for any time.
        cache_bytes: memory for answers that may be asked for again; 0 for no cache.
        cache_url: of a Redis to keep answers in, instead of memory.
        cache_ttl_seconds: how long an answer is kept; None for as long as there is room.
        trusted_callers: False where one client might make up a request that the cache takes for another's; costs time
            on large inputs.
        max_request_bytes: the longest body or message that is taken.
        poll_seconds: how often models.config and the folders are looked at; 0 for once, at the start.
        drain_seconds: how long requests are waited for at the end; a batch that runs is waited for in any case.

    Raises:
        ConfigError: if an argument is not usable, a port is taken, or no model can be served.
        MissingExtraError: if the extra `serving` is not installed.

    Example:
        >>> serve("absent_folder")
        Traceback (most recent call last):
        ...
        tfopt.errors.ConfigError: serve: expected a folder of models or a models.config. Received: absent_folder, \
which does not exist.

    References: tensorflow.org/tfx/serving/api_rest; github.com/tensorflow/serving, tensorflow_serving/apis.
    """
    path = Path(path)
    _check(path, rest_port, grpc_port)
    _check_number("poll_seconds", poll_seconds)
    _check_number("drain_seconds", drain_seconds)
    _check_number("cache_bytes", cache_bytes)
    _check_number("max_request_bytes", max_request_bytes, above=0)
    if deadline_seconds is not None:
        _check_number("deadline_seconds", deadline_seconds, above=0)
    _check_thread()
    for name in NEEDED:
        if find_spec(name) is None:
            raise MissingExtraError("The local server", extra="serving")
    with _reserved("rest_port", host, rest_port) as rest_socket, _reserved("grpc_port", host, grpc_port) as grpc_socket:
        start_tensorflow()
        from tfopt.serving.server.running_server import ServerSettings, run_server

        settings = ServerSettings(
            path=path,
            rest_socket=rest_socket,
            grpc_socket=grpc_socket,
            batching=_batching(path, batching),
            cache=_cache(cache_bytes, cache_url, cache_ttl_seconds),
            trusted_callers=trusted_callers,
            deadline_seconds=deadline_seconds,
            max_request_bytes=max_request_bytes,
            poll_seconds=poll_seconds,
            drain_seconds=drain_seconds,
        )
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(run_server(settings))


def _check(path: Path, rest_port: int | None, grpc_port: int | None) -> None:
    if not path.exists():
        raise ConfigError(
            f"serve: expected a folder of models or a models.config. Received: {path}, which does not exist."
        )
    for name, port in (("rest_port", rest_port), ("grpc_port", grpc_port)):
        if port is not None and (not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535):
            raise ConfigError(f"serve: {name} must be from 0 to 65535, or None. Received: {port!r}.")
    if rest_port is None and grpc_port is None:
        raise ConfigError("serve: expected a rest_port, a grpc_port or both. Received: None for both.")
    if rest_port and rest_port == grpc_port:
        raise ConfigError(f"serve: rest_port and grpc_port must differ. Received: {rest_port} for both.")


def _check_number(name: str, value: float, *, above: float | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0 or value == above:
        raise ConfigError(f"serve: {name} must be {'above' if above == 0 else 'at least'} 0. Received: {value!r}.")


def _check_thread() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        if threading.current_thread() is threading.main_thread():
            return
    raise ConfigError(
        "serve blocks, and ends on a signal: expected the main thread of a process, without a running event loop. "
        "In a notebook or a test start `tfopt serve` as a process of its own."
    )


@contextmanager
def _reserved(name: str, host: str, port: int | None) -> Iterator[socket.socket | None]:
    """A bound socket that does not listen yet, so that a taken port is told before the models are loaded."""
    if port is None:
        yield None
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port may still be in TIME_WAIT
        try:
            reserved.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"serve: cannot listen at {host}, port {port}: {error.strerror or error}. "
                f"Choose another {name}, or 0 for a free one."
            ) from error
        yield reserved


def _batching(path: Path, batching: BatchingParameters | str | Path | bool) -> BatchingParameters | None:
    from tfopt.serving.batching import BATCHING_FILE, BatchingParameters

    if isinstance(batching, BatchingParameters):
        return batching
    if batching is False:
        return None
    if batching is True:
        file = (path if path.is_dir() else path.parent) / BATCHING_FILE
        if not file.exists():
            return BatchingParameters(
                max_batch_size=1024,
                max_execution_batch_size=32,
                enable_large_batch_splitting=True,
                max_enqueued_batches=100,
            )
    elif isinstance(batching, (str, Path)):
        file = Path(batching)
    else:
        raise ConfigError(
            f"serve: batching must be BatchingParameters, the path of a file, True or False. Received: {batching!r}."
        )
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"serve: cannot read {file}: {first_line(error)}.") from error
    return BatchingParameters.from_text(text, file=file.name)


def _cache(size_bytes: int, url: str | None, ttl_seconds: float | None) -> PredictionCache | None:
    if url is not None and size_bytes:
        raise ConfigError(f"serve: expected cache_bytes or cache_url. Received: {size_bytes} and {url}.")
    if url is not None:
        from tfopt.serving.server.redis_cache import RedisCache

        return RedisCache(url, ttl_seconds)
    if size_bytes:
        from tfopt.serving.server.prediction_cache import MemoryCache

        return MemoryCache(size_bytes, ttl_seconds)
    return None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop
