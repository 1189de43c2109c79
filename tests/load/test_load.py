"""Loads, and the arrivals of an open one."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from tfopt.errors import ConfigError
from tfopt.load.load import Load, poisson_arrivals


@given(st.floats(0.1, 1000), st.floats(0.01, 10), st.integers(0, 2**32))
def test_arrivals_are_in_order_within_the_time_and_repeatable(rate: float, seconds: float, seed: int) -> None:
    arrivals = poisson_arrivals(rate, seconds, seed=seed)
    assert np.all(np.diff(arrivals) >= 0)
    assert np.all((arrivals >= 0) & (arrivals <= seconds))
    np.testing.assert_array_equal(arrivals, poisson_arrivals(rate, seconds, seed=seed))
    expected = rate * seconds
    assert abs(len(arrivals) - expected) < 6 * np.sqrt(expected) + 6


def test_gaps_between_arrivals_are_exponential() -> None:
    gaps = np.sort(np.diff(poisson_arrivals(50.0, 400.0, seed=1)))
    distribution = 1 - np.exp(-50.0 * gaps)
    steps = np.arange(1, len(gaps) + 1) / len(gaps)
    # Kolmogorov and Smirnov's distance; 1.63 / √n is exceeded once in a hundred times.
    assert np.abs(distribution - steps).max() < 1.63 / np.sqrt(len(gaps))


def test_a_load_reads_as_what_it_is() -> None:
    assert str(Load(clients=1)) == "closed loop, 1 client"
    assert str(Load(clients=64)) == "closed loop, 64 clients"
    assert str(Load(rate_per_second=12.5)) == "open loop, 12.5 requests/s"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expected either clients"),
        ({"clients": 1, "rate_per_second": 1.0}, "Received: clients=1, rate_per_second=1.0"),
        ({"clients": 0}, "clients must be an integer of at least 1. Received: 0"),
        ({"clients": 1.5}, "clients must be an integer"),
        ({"rate_per_second": 0.0}, "rate_per_second must be above zero"),
        ({"rate_per_second": float("nan")}, "rate_per_second must be above zero. Received: nan"),
        ({"clients": 1, "seconds": 0}, "seconds must be above zero"),
        ({"clients": 1, "seconds": float("inf")}, "seconds must be above zero"),
        ({"clients": 1, "timeout_seconds": -1}, "timeout_seconds must be above zero"),
        ({"clients": 1, "warmup_seconds": -1}, "warmup_seconds must be at least zero"),
        ({"clients": 1, "max_connections": True}, "max_connections must be an integer"),
        ({"clients": 2, "processes": 3}, "processes must be at most clients=2. Received: 3"),
    ],
)
def test_what_is_not_usable_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Load(**options)  # type: ignore[arg-type]
