"""What a server costs beside its model, found by comparing the simulation with real loads."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tfopt.load.result import LoadResult
from tfopt.serving.batching import BatchingParameters
from tfopt.serving.tuning.batching_simulation import simulate
from tfopt.serving.tuning.service_time import ServiceTime

__all__ = ["Overhead", "calibrated"]

SIMULATED_SECONDS = 1.0
BISECTIONS = 12


@dataclass(frozen=True)
class Overhead:
    """What a request waits for beside the model.

    Args:
        handling_ms: of the event loop for one request.
        dispatch_ms: of the event loop for one batch.
        outside_ms: what a lone client waits for, all in all.
    """

    handling_ms: float
    dispatch_ms: float
    outside_ms: float

    @property
    def round_trip_ms(self) -> float:
        """Of a request outside the server: the client and the network."""
        return max(self.outside_ms - self.handling_ms - self.dispatch_ms, 0.0)


def calibrated(
    service_time: ServiceTime,
    one: LoadResult,
    alone: LoadResult,
    together: LoadResult,
    largest: BatchingParameters,
    *,
    threads: int,
) -> Overhead:
    """Finds what makes simulated servers as fast as the real ones.

    A request's part shows where batches are largest and few, a batch's part where each request is a batch.

    Args:
        service_time: how long batches take.
        one: of one client, without batching.
        alone: of the load, without batching.
        together: of the load, with the largest batches.
        largest: the parameters of those.
        threads: that run requests without batching.
    """
    overhead = Overhead(0.0, 0.0, max((one.p50_ms or 0.0) - service_time.of(1), 0.0))
    if alone.load.clients is None:  # an open loop has the throughput it is given
        return overhead
    for part, parameters, result in (
        ("handling_ms", largest, together),
        ("dispatch_ms", None, alone),
        ("handling_ms", largest, together),
    ):
        least, most = 0.0, overhead.outside_ms
        for _ in range(BISECTIONS):
            overhead = replace(overhead, **{part: (least + most) / 2})
            found = simulate(
                service_time,
                parameters,
                clients=result.load.clients,
                handling_ms=overhead.handling_ms,
                dispatch_ms=overhead.dispatch_ms,
                round_trip_ms=overhead.round_trip_ms,
                threads=threads,
                seconds=SIMULATED_SECONDS,
            )
            if found.throughput_per_second > result.throughput_per_second:
                least = getattr(overhead, part)
            else:
                most = getattr(overhead, part)
        overhead = replace(overhead, **{part: least})
    return overhead
