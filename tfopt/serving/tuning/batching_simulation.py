"""A discrete-event simulation of a server that batches: what a setting would give, without running it."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from dataclasses import dataclass

import numpy as np

from tfopt.errors import ConfigError
from tfopt.serving.batching import BatchingParameters
from tfopt.serving.tuning.service_time import ServiceTime

__all__ = ["SimulatedLoad", "simulate"]

_ARRIVAL, _ACCEPTED, _TIMEOUT, _DONE = range(4)


@dataclass(frozen=True)
class SimulatedLoad:
    """What a simulation found.

    Args:
        throughput_per_second: requests answered, each of one sample.
        p50_ms: median of the latency.
        p99_ms: 99th percentile of the latency.
        mean_batch_size: samples in a batch, before padding.
        refused: share of the requests that found the queue full, in [0, 1].
    """

    throughput_per_second: float
    p50_ms: float
    p99_ms: float
    mean_batch_size: float
    refused: float


def simulate(
    service_time: ServiceTime,
    parameters: BatchingParameters | None,
    *,
    clients: int | None = None,
    rate_per_second: float | None = None,
    handling_ms: float = 0.0,
    dispatch_ms: float = 0.0,
    round_trip_ms: float = 0.0,
    threads: int = 2,
    seconds: float = 10.0,
    seed: int = 0,
) -> SimulatedLoad:
    """Simulates requests of one sample against a batching server.

    Use it to compare many settings in milliseconds each; measure the best of them for real, as `tune_batching` does.
    The server handles requests one after another (decoding, in one event loop) and batches them as `tfopt serve` does;
    batches that run side by side slow each other as `service_time` tells.

    Args:
        service_time: how long batches take.
        parameters: the setting; None runs each request alone.
        clients: how many wait for an answer before they ask again (a closed loop); or
        rate_per_second: requests that arrive whatever the server does (an open loop, Poisson).
        handling_ms: of the event loop for one request.
        dispatch_ms: of the event loop for one batch, beside its requests.
        round_trip_ms: of a request outside the server: the client and the network.
        threads: that run requests where `parameters` is None.
        seconds: of simulated time.
        seed: of the arrivals.

    Raises:
        ConfigError: unless exactly one of `clients` and `rate_per_second` is given, and is positive.

    Example:
        >>> alone = simulate(ServiceTime({1: 10.0, 2: 11.0}), None, clients=2, threads=1, seconds=2)
        >>> pairs = BatchingParameters(max_batch_size=2, allowed_batch_sizes=(1, 2), num_batch_threads=1)
        >>> together = simulate(ServiceTime({1: 10.0, 2: 11.0}), pairs, clients=4, seconds=2)
        >>> round(alone.throughput_per_second), together.throughput_per_second > 175
        (100, True)
    """
    given = clients if rate_per_second is None else rate_per_second
    if (clients is None) == (rate_per_second is None) or given is None or given <= 0:
        raise ConfigError(
            "simulate: expected one of clients and rate_per_second, and it positive. "
            f"Received: clients={clients}, rate_per_second={rate_per_second}."
        )
    return _Simulation(service_time, parameters, handling_ms, dispatch_ms, round_trip_ms, threads, seconds, seed).run(
        clients, rate_per_second
    )


class _Simulation:
    """Times in milliseconds; a request is the moment at which its client sent it."""

    def __init__(
        self,
        service_time: ServiceTime,
        parameters: BatchingParameters | None,
        handling_ms: float,
        dispatch_ms: float,
        round_trip_ms: float,
        threads: int,
        seconds: float,
        seed: int,
    ) -> None:
        self.service_time, self.parameters = service_time, parameters
        self.handling_ms, self.dispatch_ms, self.round_trip_ms = handling_ms, dispatch_ms, round_trip_ms
        self.threads = parameters.num_batch_threads if parameters else threads
        self.largest = parameters.max_batch_size if parameters else 1
        self.linger_ms = parameters.batch_timeout_micros / 1000 if parameters else 0.0
        self.waiting_limit = parameters.max_enqueued_batches * self.largest if parameters else np.inf
        self.end_ms = 1000 * seconds
        self.random = np.random.default_rng(seed)
        self.order = itertools.count()  # so that events of one moment keep their order
        self.events: list[tuple[float, int, int, list[float]]] = []
        self.queue: deque[tuple[float, float]] = deque()  # (when it was queued, when it was sent)
        self.loop_free_ms, self.busy, self.company = 0.0, 0, 1
        self.latencies: list[float] = []
        self.batches: list[int] = []
        self.refused = 0

    def run(self, clients: int | None, rate_per_second: float | None) -> SimulatedLoad:
        if clients is not None:
            for _ in range(clients):
                self._schedule(self.random.uniform(0, 1), _ARRIVAL, [])
        else:
            self._schedule(self._gap_ms(rate_per_second), _ARRIVAL, [])
        while self.events and self.events[0][0] < self.end_ms:
            now, _, kind, sent = heapq.heappop(self.events)
            if kind == _ARRIVAL:
                if rate_per_second is not None:
                    self._schedule(now + self._gap_ms(rate_per_second), _ARRIVAL, [])
                self.loop_free_ms = max(now, self.loop_free_ms) + self.handling_ms
                self._schedule(self.loop_free_ms, _ACCEPTED, [now])
                continue
            if kind == _ACCEPTED:
                self._accept(now, sent[0], again=clients is not None)
            elif kind == _DONE:
                self._answer(now, sent, again=clients is not None)
            self._dispatch(now)
        return self._result()

    def _schedule(self, when: float, kind: int, sent: list[float]) -> None:
        heapq.heappush(self.events, (when, next(self.order), kind, sent))

    def _gap_ms(self, rate_per_second: float | None) -> float:
        return float(self.random.exponential(1000 / rate_per_second)) if rate_per_second else 0.0

    def _accept(self, now: float, sent: float, *, again: bool) -> None:
        if len(self.queue) >= self.waiting_limit:
            self.refused += 1
            if again:
                self._schedule(now + self.round_trip_ms, _ARRIVAL, [])
            return
        self.queue.append((now, sent))
        self._schedule(now + self.linger_ms, _TIMEOUT, [])

    def _answer(self, now: float, sent: list[float], *, again: bool) -> None:
        self.busy -= 1
        self.company = len(sent) + len(self.queue)
        for moment in sent:
            self.latencies.append(now - moment + self.round_trip_ms)
            if again:
                self._schedule(now + self.round_trip_ms, _ARRIVAL, [])

    def _dispatch(self, now: float) -> None:
        while self.queue and self.busy < self.threads:
            overdue = now >= self.queue[0][0] + self.linger_ms
            enough = self.largest if self.busy else min(self.company, self.largest)
            if len(self.queue) < enough and not overdue:
                return
            batch = [self.queue.popleft()[1] for _ in range(min(self.largest, len(self.queue)))]
            self.busy += 1
            self.batches.append(len(batch))
            spent = self.service_time.of(self._padded(len(batch)), side_by_side=self.busy)
            self.loop_free_ms = max(now, self.loop_free_ms) + self.dispatch_ms
            self._schedule(self.loop_free_ms + spent if self.dispatch_ms else now + spent, _DONE, batch)

    def _padded(self, size: int) -> int:
        allowed = self.parameters.allowed_batch_sizes if self.parameters else ()
        return next((one for one in allowed if one >= size), size)

    def _result(self) -> SimulatedLoad:
        answered, asked = len(self.latencies), len(self.latencies) + self.refused
        p50, p99 = np.percentile(self.latencies, (50, 99)) if answered else (np.inf, np.inf)
        return SimulatedLoad(
            throughput_per_second=answered / (self.end_ms / 1000),
            p50_ms=float(p50),
            p99_ms=float(p99),
            mean_batch_size=float(np.mean(self.batches)) if self.batches else 0.0,
            refused=self.refused / asked if asked else 0.0,
        )
