"""The verb of the package: load a server from other processes, and tell what came of it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfopt.errors import BenchmarkError, ConfigError
from tfopt.load.client_process import write_plan
from tfopt.load.endpoint import Endpoint
from tfopt.load.load import Load
from tfopt.load.model_inputs import read_inputs
from tfopt.load.request_bodies import grpc_body, made_up, rest_body, samples_of
from tfopt.load.result import LoadResult
from tfopt.load.senders import SUCCESS
from tfopt.load.server_page import Page, ServerStatistics, read_page, statistics_between

__all__ = ["measure_load", "request_bodies"]

END_SECONDS = 60.0
"""That a client process may take to write down what it measured."""


def request_bodies(
    endpoint: Endpoint,
    data: np.ndarray | Mapping[str, np.ndarray] | None = None,
    *,
    batch_size: int = 1,
    distinct: int = 256,
    seed: int = 0,
) -> list[bytes]:
    """Makes the requests of a load: of the model's own inputs, as the server tells them.

    Args:
        endpoint: what they are for; it is asked for the model's metadata.
        data: samples, an array of shape `(n, ...)` or a mapping of input names to arrays. Default: made-up ones,
            floats within [0, 1) and integers 0 or 1.
        batch_size: samples in a request.
        distinct: how many different requests, at most. They are sent in turns, so that a server with a cache answers
            all but the first round from it; give more where that is not what you want to measure.
        seed: of made-up samples.

    Returns:
        The bodies, in JSON for REST and as serialized PredictRequests for gRPC.

    Raises:
        ConfigError: if a number is not usable or the model has no such signature.
        DataError: if samples do not fit the model, or cannot be made up.
        BenchmarkError: if the server does not answer.
    """
    for name, value in (("batch_size", batch_size), ("distinct", distinct)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"request_bodies: {name} must be an integer of at least 1. Received: {value!r}.")
    inputs = read_inputs(endpoint)
    samples = made_up(inputs, distinct * batch_size, seed=seed) if data is None else samples_of(data, inputs)
    count = min(distinct, -(-len(next(iter(samples.values()))) // batch_size))
    bodies = []
    for begin in range(0, count * batch_size, batch_size):
        rows = range(begin, begin + batch_size)
        request = {name: np.take(array, rows, axis=0, mode="wrap") for name, array in samples.items()}
        rest = endpoint.protocol == "rest"
        bodies.append(rest_body(request, signature=endpoint.signature) if rest else grpc_body(request, endpoint))
    return bodies


def measure_load(
    endpoint: Endpoint, bodies: Sequence[bytes], load: Load, *, metrics_url: str | None = None
) -> LoadResult:
    """Loads a server from processes of their own and measures what its users would see.

    Use it on any server with TF Serving's API, over REST or gRPC. The clients are other processes than this one,
    and each tries one request first; what they cost the machine that they share with the server is yours to judge.

    Args:
        endpoint: the server, model and signature.
        bodies: of the requests, sent in turns; `request_bodies` makes them.
        load: a closed loop of clients, or an open one of random arrivals.
        metrics_url: the server's Prometheus page; default: TF Serving's usual place on the REST port. For gRPC there
            is no default, and without one batches and queue are not told.

    Returns:
        The result: print it, or read its figures.

    Raises:
        ConfigError: if there are no bodies, or the extra that a protocol needs is missing.
        BenchmarkError: if the first request or a client process fails, or `metrics_url` cannot be read when the
            warm-up is over. A server that ends later is no error: its requests are counted as failed.
    """
    if not bodies:
        raise ConfigError("measure_load: expected at least one body of a request. Received: none.")
    with tempfile.TemporaryDirectory(prefix="tfopt-load-") as temporary:
        folder = Path(temporary)
        write_plan(folder, endpoint, load, list(bodies))
        clients = [_start(folder, index) for index in range(load.processes)]
        try:
            for client in clients:
                _await_ready(client, endpoint, folder)
            for client in clients:
                client.stdin.write(b"go\n")  # type: ignore[union-attr]
                client.stdin.flush()  # type: ignore[union-attr]
            time.sleep(load.warmup_seconds)
            before = _page(endpoint, metrics_url)
            for client in clients:
                _await_end(client, load, folder)
            try:
                after = _page(endpoint, metrics_url)
            except BenchmarkError:  # the server has ended meanwhile: what the clients saw is kept
                after = {}
        finally:
            for client in clients:
                _end(client)
        return _read(endpoint, load, folder, statistics_between(before if after else {}, after, model=endpoint.model))


def _page(endpoint: Endpoint, metrics_url: str | None) -> Page:
    if metrics_url is not None:
        return read_page(metrics_url)
    try:
        return read_page(endpoint.metrics_url) if endpoint.metrics_url else {}
    except BenchmarkError:  # a server without such a page, which nobody asked for
        return {}


def _start(folder: Path, index: int) -> subprocess.Popen[bytes]:
    with (folder / f"{index}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tfopt.load.client_process", str(folder), str(index)],
            stdin=subprocess.PIPE,  # held open: when this process dies, the client sees it and ends
            stdout=subprocess.PIPE,
            stderr=log,
        )


def _await_ready(client: subprocess.Popen[bytes], endpoint: Endpoint, folder: Path) -> None:
    line = b"" if client.stdout is None else client.stdout.readline()
    if not line:
        raise BenchmarkError(f"A client process did not start. Its last words: {_last_words(folder)}")
    first = json.loads(line)
    if first["code"] not in SUCCESS:
        raise BenchmarkError(
            f"{endpoint.url}: the first request failed with {first['code']}. "
            f"The server says: {first['said'] or 'nothing'}"
        )


def _await_end(client: subprocess.Popen[bytes], load: Load, folder: Path) -> None:
    # Every request ends by its time-out; an open loop that ran out of connections has a queue of them.
    longest = load.warmup_seconds + load.seconds + 10 * load.timeout_seconds + END_SECONDS
    try:
        code = client.wait(longest)
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"A client process did not end within {longest:.0f} s and was stopped.") from None
    if code != 0:
        raise BenchmarkError(f"A client process failed with code {code}. Its last words: {_last_words(folder)}")


def _end(client: subprocess.Popen[bytes]) -> None:
    client.kill()
    client.wait()
    for pipe in (client.stdin, client.stdout):
        if pipe is not None:
            pipe.close()


def _last_words(folder: Path) -> str:
    logs = "\n".join(path.read_text("utf-8", "replace") for path in sorted(folder.glob("*.log")))
    return next((line.strip() for line in reversed(logs.splitlines()) if line.strip()), "none")


def _read(endpoint: Endpoint, load: Load, folder: Path, told: ServerStatistics) -> LoadResult:
    times, codes = [], []
    messages: dict[str, Any] = {}
    for index in range(load.processes):
        with np.load(folder / f"{index}.npz") as written:
            known = np.array(json.loads(str(written["known"])))
            times.append(written["times"])
            codes.append(known[written["codes"]])
            messages = {**json.loads(str(written["messages"])), **messages}
    due, sent, answered = np.concatenate(times).T
    return LoadResult(
        endpoint=endpoint.url,
        load=load,
        due_s=due,
        sent_s=sent,
        answered_s=answered,
        codes=np.concatenate(codes),
        messages=messages,
        server=told,
    )
