"""Calibration finds the overheads that a simulated server was given."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tfopt.serving.batching import BatchingParameters
from tfopt.serving.tuning.batching_simulation import simulate
from tfopt.serving.tuning.calibration import calibrated
from tfopt.serving.tuning.service_time import ServiceTime

SERVICE_TIME = ServiceTime({1: 0.2, 64: 2.0})
LARGEST = BatchingParameters(
    max_batch_size=64, allowed_batch_sizes=(), batch_timeout_micros=20_000, num_batch_threads=2, max_enqueued_batches=9
)


@pytest.mark.slow
@pytest.mark.parametrize(("handling_ms", "dispatch_ms"), [(0.1, 0.8), (0.3, 0.05)])
def test_what_was_put_in_is_found(handling_ms: float, dispatch_ms: float) -> None:
    outside_ms = 1.5

    def measured(parameters: BatchingParameters | None, clients: int) -> SimpleNamespace:
        found = simulate(
            SERVICE_TIME,
            parameters,
            clients=clients,
            handling_ms=handling_ms,
            dispatch_ms=dispatch_ms,
            round_trip_ms=outside_ms - handling_ms - dispatch_ms,
            seconds=3,
        )
        return SimpleNamespace(
            p50_ms=found.p50_ms,
            throughput_per_second=found.throughput_per_second,
            load=SimpleNamespace(clients=clients),
        )

    found = calibrated(SERVICE_TIME, measured(None, 1), measured(None, 64), measured(LARGEST, 64), LARGEST, threads=2)
    assert found.handling_ms == pytest.approx(handling_ms, abs=0.06)
    assert found.dispatch_ms == pytest.approx(dispatch_ms, abs=0.1)
    assert found.outside_ms == pytest.approx(outside_ms, abs=0.1)


def test_an_open_loop_tells_nothing_of_the_event_loop() -> None:
    open_loop = SimpleNamespace(p50_ms=1.0, throughput_per_second=50.0, load=SimpleNamespace(clients=None))
    found = calibrated(SERVICE_TIME, open_loop, open_loop, open_loop, LARGEST, threads=2)
    assert (found.handling_ms, found.dispatch_ms, found.round_trip_ms) == (0.0, 0.0, pytest.approx(0.8))
