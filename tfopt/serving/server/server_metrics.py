"""What a server counts and times, under TF Serving's metric names, in Prometheus's text format."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from tfopt.serving.server.batcher import BatchRecord

__all__ = ["METRICS_PATH", "ServerMetrics"]

METRICS_PATH = "/monitoring/prometheus/metrics"


class ServerMetrics:
    """Counters and histograms of a server; dashboards made for TF Serving read them unchanged.

    Latencies are in microseconds. `on_request` and `on_batch` are called in the event loop's thread. There is no
    `prometheus_client` behind it: that one ends a counter's name with `_total`, which TF Serving does not.

    Example:
        >>> metrics = ServerMetrics()
        >>> metrics.on_request("digits", api="predict", entrypoint="REST", status="OK", seconds=0.002)
        >>> print(metrics.render().decode().splitlines()[1])
        :tensorflow:serving:request_count{model_name="digits",status="OK"} 1

    References: github.com/tensorflow/serving, servables/tensorflow/util.cc, batching/batching_session.cc,
    batching/batching_util.h and util/prometheus_exporter.cc.
    """

    def __init__(self) -> None:
        latency_us = _exponential(10, 1.8, 33)
        rows = _exponential(1, 2, 14)
        self._request_count = _Counter("serving:request_count", ("model_name", "status"))
        self._request_latency = _Histogram(
            "serving:request_latency", ("model_name", "API", "entrypoint", "status"), latency_us
        )
        self._runtime_latency = _Histogram("serving:runtime_latency", ("model_name", "API", "runtime"), latency_us)
        self._queuing_latency = _Histogram(
            "serving:batching_session:queuing_latency", ("thread_pool_name",), _exponential(100, 1.2, 52)
        )
        self._batch_size = _Histogram("serving:batching_session:processed_batch_size", (), rows)
        self._padding_size = _Histogram("serving:batching_session:padding_size", ("execution_batch_size",), rows)
        self._run_count = _Counter("serving:batching_session:wrapped_run_count", ())
        self._graph_runs = _Counter("core:graph_runs", ())
        self._graph_run_time = _Counter("core:graph_run_time_usecs", ())

    def on_request(self, model: str, *, api: str, entrypoint: str, status: str, seconds: float) -> None:
        """Counts one request that was answered.

        Args:
            model: its model's name.
            api: `predict`, `classify` or `regress` over REST, `Predict` etc. over gRPC, "" for status and metadata.
            entrypoint: `REST` or `GRPC`.
            status: `OK`, or the name of its error's code.
            seconds: from its arrival to its answer.
        """
        self._request_count.add((model, status))
        self._request_latency.observe((model, api, entrypoint, status), seconds * 1e6)

    def on_batch(self, model: str, record: BatchRecord) -> None:
        """Counts one batch that ran: how its requests waited, how large it was, how long it took."""
        run_us = record.run_ms * 1e3
        for queue_ms in record.queue_ms:
            self._queuing_latency.observe((model,), queue_ms * 1e3)
        self._batch_size.observe((), record.padded_size)
        self._padding_size.observe((str(record.padded_size),), record.padded_size - record.size)
        self._runtime_latency.observe((model, "Predict", "TF1"), run_us)
        self._run_count.add(())
        self._graph_runs.add(())
        self._graph_run_time.add((), round(run_us))

    def render(self) -> bytes:
        """The page that Prometheus reads."""
        lines: list[str] = []
        for metric in vars(self).values():
            lines += metric.lines()
        return ("\n".join(lines) + "\n").encode()


@dataclass
class _Counter:
    name: str
    labels: tuple[str, ...]
    cells: dict[tuple[str, ...], int] = field(default_factory=dict)

    def add(self, values: tuple[str, ...], amount: int = 1) -> None:
        self.cells[values] = self.cells.get(values, 0) + amount

    def lines(self) -> list[str]:
        name = f":tensorflow:{self.name}"
        samples = [f"{name}{{{_labels(self.labels, values)}}} {count}" for values, count in self.cells.items()]
        return [f"# TYPE {name} counter", *samples]


@dataclass
class _Histogram:
    name: str
    labels: tuple[str, ...]
    limits: Sequence[float]
    cells: dict[tuple[str, ...], _Observations] = field(default_factory=dict)

    def observe(self, values: tuple[str, ...], observed: float) -> None:
        cell = self.cells.get(values)
        if cell is None:
            cell = self.cells[values] = _Observations([0] * (len(self.limits) + 1))
        cell.counts[bisect_left(self.limits, observed)] += 1
        cell.total += observed

    def lines(self) -> list[str]:
        name = f":tensorflow:{self.name}"
        lines = [f"# TYPE {name} histogram"]
        limits = [*(f"{limit:g}" for limit in self.limits), "+Inf"]
        for values, cell in self.cells.items():
            labels = _labels(self.labels, values)
            before = f"{labels}," if labels else ""
            cumulative = list(accumulate(cell.counts))
            lines += [
                f'{name}_bucket{{{before}le="{limit}"}} {count}'
                for limit, count in zip(limits, cumulative, strict=True)
            ]
            lines += [f"{name}_sum{{{labels}}} {cell.total!r}", f"{name}_count{{{labels}}} {cumulative[-1]}"]
        return lines


@dataclass
class _Observations:
    counts: list[int]
    total: float = 0.0


def _exponential(first: float, growth: float, count: int) -> list[float]:
    return [first * growth**power for power in range(count)]


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
