"""What a load has shown: latency, throughput, goodput, errors."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from tfopt.load.load import Load
from tfopt.load.senders import SUCCESS, TIMEOUT
from tfopt.load.server_page import ServerStatistics
from tfopt.plain_table import aligned

__all__ = ["LoadResult"]

DECISIVE_LAG = 0.1
"""Share of the median latency from which on the client's own lateness is worth a remark."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadResult:
    """A measurement of one load on one endpoint.

    Latency is that of requests that were due within the measured time and answered, or given up: one that was given
    up counts as the time it was waited for. Requests that were refused or failed are counted by code instead, because
    a quick refusal is no short latency. Throughput is of answers that came within the measured time.

    Args:
        endpoint: the address of what was measured.
        load: what it was loaded with.
        due_s: when each request was due, of shape `(requests,)`, in seconds from the begin of the measured time; those
            of the warm-up are negative.
        sent_s: when it was sent.
        answered_s: when its answer was there.
        codes: "200" or "OK", another HTTP or gRPC status, "time-out" or "connection error".
        messages: what the server said to the first request of each code that failed.
        server: what it told of its batches and queue.
    """

    endpoint: str
    load: Load
    due_s: np.ndarray = field(repr=False)
    sent_s: np.ndarray = field(repr=False)
    answered_s: np.ndarray = field(repr=False)
    codes: np.ndarray = field(repr=False)
    messages: dict[str, str] = field(default_factory=dict)
    server: ServerStatistics = field(default_factory=ServerStatistics)

    @cached_property
    def latencies_ms(self) -> np.ndarray:
        """Latencies in milliseconds, in the order in which requests were due, of shape `(answered requests,)`."""
        counted = self._measured & np.isin(self.codes, [*SUCCESS, TIMEOUT])
        order = np.argsort(self.due_s[counted], kind="stable")
        return np.asarray((self.answered_s - self.due_s)[counted][order] * 1000)

    def percentile_ms(self, percent: float) -> float | None:
        """A percentile of the latency; None where nothing was answered."""
        return float(np.percentile(self.latencies_ms, percent)) if len(self.latencies_ms) else None

    @property
    def p50_ms(self) -> float | None:
        """The median latency."""
        return self.percentile_ms(50)

    @property
    def p90_ms(self) -> float | None:
        """The 90th percentile of the latency."""
        return self.percentile_ms(90)

    @property
    def p99_ms(self) -> float | None:
        """The 99th percentile of the latency."""
        return self.percentile_ms(99)

    @property
    def p999_ms(self) -> float | None:
        """The 99.9th percentile of the latency; of fewer than 1000 requests, nearly the longest."""
        return self.percentile_ms(99.9)

    @property
    def lag_p99_ms(self) -> float | None:
        """How late the client itself sent requests of an open loop, 99th percentile: it is within the latency."""
        lag = (self.sent_s - self.due_s)[self._measured]
        return float(np.percentile(lag, 99)) * 1000 if len(lag) else None

    @property
    def requests(self) -> int:
        """Requests that were due within the measured time."""
        return int(self._measured.sum())

    @property
    def throughput_per_second(self) -> float:
        """Successful answers in a second."""
        return float(self._successes_in_time.sum()) / self.load.seconds

    def goodput_per_second(self, slo_ms: float) -> float:
        """Successful answers in a second that came within a latency of `slo_ms` milliseconds."""
        quick = (self.answered_s - self.due_s) * 1000 <= slo_ms
        return float((self._successes_in_time & quick).sum()) / self.load.seconds

    @property
    def errors(self) -> dict[str, int]:
        """Requests due within the measured time that failed, by code, the most frequent first."""
        counts = Counter(self.codes[self._measured].tolist())
        return {code: count for code, count in counts.most_common() if code not in SUCCESS}

    @property
    def _measured(self) -> np.ndarray:
        return np.asarray((self.due_s >= 0) & (self.due_s < self.load.seconds))

    @property
    def _successes_in_time(self) -> np.ndarray:
        in_time = (self.answered_s >= 0) & (self.answered_s < self.load.seconds)
        return np.asarray(in_time & np.isin(self.codes, list(SUCCESS)))

    def to_dict(self, *, slo_ms: float | None = None) -> dict[str, Any]:
        """The figures as plain values, for a file in JSON."""
        goodput = None if slo_ms is None else self.goodput_per_second(slo_ms)
        return {
            "endpoint": self.endpoint,
            "load": vars(self.load).copy(),
            "requests": self.requests,
            "p50_ms": self.p50_ms,
            "p90_ms": self.p90_ms,
            "p99_ms": self.p99_ms,
            "p999_ms": self.p999_ms,
            "lag_p99_ms": self.lag_p99_ms,
            "throughput_per_second": self.throughput_per_second,
            "slo_ms": slo_ms,
            "goodput_per_second": goodput,
            "errors": self.errors,
            "messages": self.messages,
            "server": vars(self.server).copy(),
        }

    def table(self, *, slo_ms: float | None = None) -> str:
        """The figures as text, for the terminal; goodput where the latency that is wanted is given."""
        rows = [("load", str(self.load)), ("requests", f"{self.requests:,} in {self.load.seconds:g} s")]
        rows.append(("throughput", f"{self.throughput_per_second:.1f}/s"))
        if slo_ms is not None:
            rows.append((f"goodput within {slo_ms:g} ms", f"{self.goodput_per_second(slo_ms):.1f}/s"))
        names = {"p50": self.p50_ms, "p90": self.p90_ms, "p99": self.p99_ms, "p99.9": self.p999_ms}
        rows += [(f"latency {name}", _milliseconds(value)) for name, value in names.items()]
        rows.append(("errors", ", ".join(f"{count}× {code}" for code, count in self.errors.items()) or "none"))
        rows.append(("batch sizes", _histogram(self.server.batch_sizes) or "not told by the server"))
        rows.append(("queue", _waits(self.server) or "not told by the server"))
        return "\n".join([self.endpoint, *aligned(rows, "<<"), *self._failures(), *self._lateness()])

    def remarks(self) -> list[str]:
        """What a table of several loads has no room for: batches, queue, failures, whether the client was late."""
        told = {"batch sizes": _histogram(self.server.batch_sizes), "queue": _waits(self.server)}
        lines = [f"{name}: {what}" for name, what in told.items() if what] + self._failures() + self._lateness()
        return [f"{self.load}: {line}" for line in lines]

    def _failures(self) -> list[str]:
        return [f"{count}× {code}: {self.messages.get(code) or 'no message'}" for code, count in self.errors.items()]

    def _lateness(self) -> list[str]:
        lag, median = self.lag_p99_ms, self.p50_ms
        if self.load.clients is not None or lag is None or median is None or lag <= DECISIVE_LAG * median:
            return []
        return [
            f"The client itself sent requests up to {lag:.2f} ms late (p99), which is in these latencies: the machine "
            "or max_connections is too small for this rate, or more processes are needed."
        ]

    def __str__(self) -> str:
        return self.table()


def _milliseconds(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f} ms"


def _histogram(sizes: dict[str, int] | None) -> str:
    total = sum((sizes or {}).values())
    return ", ".join(f"{size}: {count / total:.0%}" for size, count in (sizes or {}).items())


def _waits(server: ServerStatistics) -> str:
    if server.queue_p50_ms is None or server.queue_p99_ms is None:
        return ""
    return f"p50 {server.queue_p50_ms:.2f} ms, p99 {server.queue_p99_ms:.2f} ms"
