"""Loading a model server: what its users would see, from one client up to as many as it bears."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np

from tfopt.artifact import write_whole
from tfopt.benchmark.machine import Machine, this_machine
from tfopt.errors import BenchmarkError, ConfigError
from tfopt.load.endpoint import Endpoint
from tfopt.load.load import Load
from tfopt.load.local_server import LocalServer, local_server
from tfopt.load.measurement import measure_load, request_bodies
from tfopt.load.result import LoadResult
from tfopt.model_folder import served_model
from tfopt.plain_table import aligned

__all__ = ["ServingReport", "benchmark_serving"]

OPEN_LOOP_SHARE = 0.5
"""Of the highest throughput of the closed loops: a load at which a server is not yet saturated."""


@dataclass(frozen=True, kw_only=True)
class ServingReport:
    """Loads on one endpoint beside each other.

    Args:
        endpoint: what was measured.
        results: one for each load.
        slo_ms: the latency that goodput is counted for, or None.
        machine: where the clients ran.
        created: time of the measurement, ISO 8601.
        failure: which load failed, and why, where the endpoint did not hold to the end; None where it did. What was
            measured before is in `results`.
    """

    endpoint: str
    results: tuple[LoadResult, ...]
    slo_ms: float | None
    machine: Machine
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    failure: str | None = None

    def save(self, directory: str | Path) -> Path:
        """Writes load.json into a folder and returns where it is.

        Raises:
            ConfigError: if the folder cannot be written.
        """
        content = {
            "endpoint": self.endpoint,
            "created": self.created,
            "machine": self.machine.model_dump(),
            "results": [result.to_dict(slo_ms=self.slo_ms) for result in self.results],
            "failure": self.failure,
        }
        path = Path(directory) / "load.json"
        with write_whole(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        return path

    def __str__(self) -> str:
        slo = [] if self.slo_ms is None else [f"within {self.slo_ms:g} ms"]
        rows = [("load", "answers/s", *slo, "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "errors")]
        for result in self.results:
            goodput = [] if self.slo_ms is None else [f"{result.goodput_per_second(self.slo_ms):.1f}"]
            latencies = (result.p50_ms, result.p90_ms, result.p99_ms, result.p999_ms)
            rows.append(
                (
                    str(result.load),
                    f"{result.throughput_per_second:.1f}",
                    *goodput,
                    *("–" if latency is None else f"{latency:.2f}" for latency in latencies),
                    str(sum(result.errors.values())),
                )
            )
        details = [remark for result in self.results for remark in result.remarks()]
        details += [f"not measured to the end: {self.failure}"] if self.failure else []
        return "\n".join([self.endpoint, *aligned(rows, "<" + ">" * (len(rows[0]) - 1)), *details])


def benchmark_serving(
    target: str | Path,
    data: np.ndarray | Mapping[str, np.ndarray] | None = None,
    *,
    clients: Sequence[int] = (1, 16, 64),
    rates_per_second: Sequence[float] | None = None,
    seconds: float = 10.0,
    slo_ms: float | None = None,
    protocol: Literal["rest", "grpc"] = "rest",
    model: str | None = None,
    signature: str = "serving_default",
    batch_size: int = 1,
    metrics_url: str | None = None,
    server_options: tuple[str, ...] = (),
) -> ServingReport:
    """Loads a model server and measures throughput, latency, goodput, errors, batches and queue time.

    Use it on any server with TF Serving's API, on this machine or another, and to compare settings of one. Closed
    loops tell how much it can take; open loops, whose requests do not wait for each other, tell the latency that
    users see. The clients are processes of their own; on the machine of the server they take some of its cores.

    Args:
        target: the address of a model, `http://HOST:8501/v1/models/NAME` or `grpc://HOST:8500/NAME`, with
            `/versions/N` or `/labels/LABEL` behind it for one version; or a folder of models, of one model or of one
            version, on which `tfopt serve` is started for the measurement (extra `serving`).
        data: samples, an array of shape `(n, ...)` or a mapping of input names to arrays. Default: made-up ones,
            floats within [0, 1) and integers 0 or 1.
        clients: numbers of clients, a closed loop for each.
        rates_per_second: an open loop for each; default: one at half the highest throughput of the closed loops.
        seconds: how long each load is measured, after a tenth of it (at least 1 s) as warm-up.
        slo_ms: the latency in milliseconds that goodput is counted for.
        protocol: for a folder, how it is called. An address says it itself.
        model: which model, where a folder holds several.
        signature: the signature to call.
        batch_size: samples in a request.
        metrics_url: the server's Prometheus page, where it is not at TF Serving's usual place on the REST port.
        server_options: for a folder, further options of `tfopt serve`, such as `("--no-batching",)`.

    Returns:
        The report: print it, read its `results`, or `save` it as load.json. Where the server ends in the middle, it has
        the loads that were measured until then, with the requests that failed, and `failure` says what did not work.

    Raises:
        ConfigError: if an argument is not usable.
        DataError: if the data does not fit the model, or no samples can be made up for it.
        BenchmarkError: if the server does not answer, refuses the first request of the first load, or is to be started
            and cannot be, as without the extra.

    Example:
        >>> benchmark_serving("localhost:8501")
        Traceback (most recent call last):
        ...
        tfopt.errors.ConfigError: benchmark: expected the address of a served model or a folder of models. \
Received: localhost:8501, which does not exist.

    References: Schroeder, Wierman, Harchol-Balter 2006, "Open Versus Closed: A Cautionary Tale" (NSDI);
    tensorflow.org/tfx/serving/api_rest.
    """
    warmup_seconds = max(1.0, seconds / 10)
    loads = [Load(clients=number, seconds=seconds, warmup_seconds=warmup_seconds) for number in clients]
    open_loads = [
        Load(rate_per_second=rate, seconds=seconds, warmup_seconds=warmup_seconds) for rate in rates_per_second or ()
    ]
    if not loads and not open_loads:
        raise ConfigError("benchmark: expected clients or rates_per_second. Received: neither.")
    if protocol not in ("rest", "grpc"):
        raise ConfigError(f"benchmark: protocol must be rest or grpc. Received: {protocol!r}.")
    if slo_ms is not None and not slo_ms > 0:
        raise ConfigError(f"benchmark: slo_ms must be above zero. Received: {slo_ms!r}.")
    if "://" in str(target):
        server, name, version = nullcontext(), "", None
        endpoint = Endpoint.of(str(target), signature=signature)
    else:
        if not Path(target).is_dir():
            raise ConfigError(
                "benchmark: expected the address of a served model or a folder of models. Received: "
                f"{target}, which {'is a file' if Path(target).exists() else 'does not exist'}."
            )
        directory, name, version = served_model(Path(target), model)
        server = local_server(directory, options=server_options)  # type: ignore[assignment]
    with server as started:
        if started is not None:
            endpoint, metrics_url = _endpoint(started, name, version, protocol, signature)
        bodies = request_bodies(endpoint, data, batch_size=batch_size)
        results: list[LoadResult] = []
        failure = _measure(endpoint, bodies, loads, metrics_url, results)
        best = max((result.throughput_per_second for result in results), default=0.0)
        if rates_per_second is None and best > 0:
            open_loads = [replace(loads[0], clients=None, rate_per_second=round(OPEN_LOOP_SHARE * best, 1))]
        failure = failure or _measure(endpoint, bodies, open_loads, metrics_url, results)
    told = endpoint.url if started is None else f"{endpoint.url} (tfopt serve {target})"
    return ServingReport(endpoint=told, results=tuple(results), slo_ms=slo_ms, machine=this_machine(), failure=failure)


def _measure(
    endpoint: Endpoint, bodies: list[bytes], loads: Sequence[Load], metrics_url: str | None, results: list[LoadResult]
) -> str | None:
    """Adds to the results until a load fails; returns which and why. The very first one raises."""
    for load in loads:
        try:
            results.append(measure_load(endpoint, bodies, load, metrics_url=metrics_url))
        except BenchmarkError as error:
            if not results:
                raise
            return f"{load}: {error}"
    return None


def _endpoint(
    server: LocalServer, name: str, version: int | None, protocol: str, signature: str
) -> tuple[Endpoint, str | None]:
    """The endpoint of a server that was started, and its metrics page, which is on the REST port for gRPC too."""
    behind = "" if version is None else f"/versions/{version}"
    rest = Endpoint.of(f"{server.rest}/v1/models/{name}{behind}", signature=signature)
    if protocol == "rest":
        return rest, None
    return Endpoint.of(f"{server.grpc}/{name}{behind}", signature=signature), rest.metrics_url
