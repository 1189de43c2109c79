"""What a load is: how many clients or requests a second, and when each request arrives."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tfopt.errors import ConfigError

__all__ = ["Load", "poisson_arrivals"]


@dataclass(frozen=True, kw_only=True)
class Load:
    """How a server is loaded, in one of two ways.

    Closed loop, `clients=N`: each of N clients sends its next request when it has the answer to the last. It finds the
    highest throughput. It flatters latency, because clients wait politely while a server stalls.

    Open loop, `rate_per_second=R`: requests arrive at random, R a second on average, whether earlier ones are answered
    or not, as those of many independent users do. Latency counts from the moment a request was due, so a stall is
    seen by every request that fell into it.

    Args:
        clients: of the closed loop.
        rate_per_second: of the open loop.
        seconds: the time that is measured.
        warmup_seconds: the same load before it, which is not.
        timeout_seconds: when a request is given up.
        max_connections: of the open loop; a request that finds none free waits, and that counts.
        processes: that the load is shared out to; one core sends some thousand requests of 30 kB a second.
        seed: of the arrivals.

    Raises:
        ConfigError: if not exactly one of `clients` and `rate_per_second` is given, or a value is not usable.

    Example:
        >>> Load(clients=8)
        Load(clients=8, rate_per_second=None, seconds=10.0, warmup_seconds=1.0, timeout_seconds=10.0, \
max_connections=1000, processes=1, seed=0)
        >>> Load(clients=8, rate_per_second=100)
        Traceback (most recent call last):
        ...
        tfopt.errors.ConfigError: Load: expected either clients (closed loop) or rate_per_second (open loop). \
Received: clients=8, rate_per_second=100.

    References: Schroeder, Wierman, Harchol-Balter 2006, "Open Versus Closed: A Cautionary Tale" (NSDI).
    """

    clients: int | None = None
    rate_per_second: float | None = None
    seconds: float = 10.0
    warmup_seconds: float = 1.0
    timeout_seconds: float = 10.0
    max_connections: int = 1000
    processes: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.clients is None) == (self.rate_per_second is None):
            raise ConfigError(
                "Load: expected either clients (closed loop) or rate_per_second (open loop). Received: "
                f"clients={self.clients}, rate_per_second={self.rate_per_second}."
            )
        for name in ("clients", "max_connections", "processes"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ConfigError(f"Load: {name} must be an integer of at least 1. Received: {value!r}.")
        for name in ("rate_per_second", "seconds", "timeout_seconds"):
            value = getattr(self, name)
            if value is not None and not (0 < value < math.inf):
                raise ConfigError(f"Load: {name} must be above zero. Received: {value!r}.")
        if not 0 <= self.warmup_seconds < math.inf:
            raise ConfigError(f"Load: warmup_seconds must be at least zero. Received: {self.warmup_seconds!r}.")
        if self.clients is not None and self.processes > self.clients:
            raise ConfigError(f"Load: processes must be at most clients={self.clients}. Received: {self.processes}.")

    def __str__(self) -> str:
        if self.clients is not None:
            return f"closed loop, {self.clients} client{'s' if self.clients > 1 else ''}"
        return f"open loop, {self.rate_per_second:g} requests/s"


def poisson_arrivals(rate_per_second: float, seconds: float, *, seed: int) -> np.ndarray:
    """When requests arrive at random, independently of each other.

    Args:
        rate_per_second: how many a second, on average.
        seconds: the time to fill, from 0.
        seed: equal seeds give equal arrivals.

    Returns:
        Seconds in increasing order, of shape `(requests,)`.

    Example:
        >>> poisson_arrivals(2.0, 3.0, seed=0).round(2)
        array([1.82, 2.44, 2.74])
    """
    generator = np.random.default_rng(seed)
    # Their number is a Poisson variable, and given it each is anywhere with equal chance.
    return np.sort(generator.uniform(0.0, seconds, generator.poisson(rate_per_second * seconds)))
