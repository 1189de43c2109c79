"""The simulated scheduler against what can be computed by hand, and bounds that no scheduler beats."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfopt.errors import ConfigError
from tfopt.serving.batching import BatchingParameters
from tfopt.serving.tuning.batching_simulation import simulate
from tfopt.serving.tuning.service_time import ServiceTime

FLAT = ServiceTime({1: 10.0, 64: 10.0})  # a batch costs what one sample costs
STEEP = ServiceTime({1: 10.0, 64: 640.0})  # batching saves nothing


def batched(size: int, *, threads: int = 1, timeout: int = 0, waiting: int = 100) -> BatchingParameters:
    return BatchingParameters(
        max_batch_size=size,
        batch_timeout_micros=timeout,
        num_batch_threads=threads,
        max_enqueued_batches=waiting,
        allowed_batch_sizes=(),
    )


def test_one_client_is_answered_at_once():
    found = simulate(FLAT, batched(32, timeout=5000), clients=1)
    assert found.p50_ms == pytest.approx(10)
    assert found.throughput_per_second == pytest.approx(100, rel=0.02)
    assert found.mean_batch_size == 1


def test_a_flat_curve_serves_all_clients_in_two_halves_in_turns():
    # While one half runs the other waits, and none waits for others where nothing runs.
    found = simulate(FLAT, batched(16), clients=16)
    assert found.throughput_per_second == pytest.approx(800, rel=0.05)
    assert found.mean_batch_size == pytest.approx(8, rel=0.05)


def test_who_may_wait_goes_with_all_others():
    found = simulate(FLAT, batched(16, timeout=100_000), clients=16)
    assert found.throughput_per_second == pytest.approx(1600, rel=0.05)
    assert found.mean_batch_size == pytest.approx(16, rel=0.05)


def test_a_steep_curve_gains_nothing():
    alone = simulate(STEEP, None, clients=16, threads=1)
    together = simulate(STEEP, batched(16), clients=16)
    assert together.throughput_per_second == pytest.approx(alone.throughput_per_second, rel=0.1)


def test_an_open_queue_waits_as_pollaczek_and_khinchine_say():
    # M/D/1 at half load: the mean wait is rho s / (2 (1 - rho)) = 5 ms; half of the requests do not wait at all.
    found = simulate(FLAT, None, rate_per_second=50, threads=1, seconds=400)
    assert found.throughput_per_second == pytest.approx(50, rel=0.03)
    assert found.p50_ms == pytest.approx(10, abs=0.5)
    assert found.p99_ms == pytest.approx(42, rel=0.1)


def test_the_event_loop_is_a_bottleneck_of_its_own():
    found = simulate(FLAT, batched(64, threads=2), clients=64, handling_ms=2.0)
    assert found.throughput_per_second == pytest.approx(500, rel=0.05)


def test_what_a_batch_costs_the_event_loop_is_paid_once_for_all_its_requests():
    quick = ServiceTime({1: 0.1, 64: 0.1})
    alone = simulate(quick, None, clients=64, dispatch_ms=1.0)
    together = simulate(quick, batched(16, timeout=100_000), clients=64, dispatch_ms=1.0)
    assert alone.throughput_per_second == pytest.approx(1000, rel=0.05)
    assert together.throughput_per_second > 10 * alone.throughput_per_second


def test_side_by_side_batches_slow_each_other():
    shared = ServiceTime({1: 10.0, 2: 10.0}, slowdown={1: 1.0, 2: 2.0})
    found = simulate(shared, None, clients=2, threads=2)
    assert found.throughput_per_second == pytest.approx(100, rel=0.05)


def test_padding_costs_what_the_larger_batch_costs():
    line = ServiceTime({1: 10.0, 9: 90.0})
    padded = BatchingParameters(
        max_batch_size=8, allowed_batch_sizes=(8,), num_batch_threads=1, max_enqueued_batches=4, batch_timeout_micros=0
    )
    assert simulate(line, padded, clients=1).p50_ms == pytest.approx(80)


def test_a_full_queue_refuses():
    found = simulate(FLAT, batched(1, waiting=2), rate_per_second=1000, seconds=5)
    assert found.refused == pytest.approx(0.9, abs=0.02)
    assert found.throughput_per_second == pytest.approx(100, rel=0.05)
    assert found.p99_ms <= 31


@given(
    size=st.integers(1, 32),
    threads=st.integers(1, 4),
    timeout=st.integers(0, 20_000),
    clients=st.integers(1, 40),
    one_ms=st.floats(0.5, 20),
    more_ms=st.floats(0, 5),
)
@settings(max_examples=40, deadline=None)
def test_no_setting_beats_its_bounds(
    size: int, threads: int, timeout: int, clients: int, one_ms: float, more_ms: float
) -> None:
    curve = ServiceTime({1: one_ms, 32: one_ms + 31 * more_ms}, slowdown={1: 1.0, 4: 1.0})
    found = simulate(curve, batched(size, threads=threads, timeout=timeout), clients=clients, seconds=1)
    fastest = threads * max(one / curve.of(one) for one in range(1, size + 1))
    assert found.throughput_per_second <= 1000 * min(fastest, clients / one_ms) * 1.01 + 1
    assert found.mean_batch_size <= min(size, clients)
    assert found.p50_ms >= one_ms * 0.999 or found.p50_ms == float("inf")


@pytest.mark.parametrize(
    "load", [{}, {"clients": 1, "rate_per_second": 2.0}, {"clients": 0}, {"rate_per_second": -1.0}]
)
def test_a_load_is_one_of_two(load: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected one of clients and rate_per_second"):
        simulate(FLAT, None, **load)
