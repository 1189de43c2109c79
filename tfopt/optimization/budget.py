"""What the optimized model may cost, as text: "latency: 40%", "size: 1 MB"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from tfopt.errors import ConfigError

__all__ = ["Budget", "Figures", "parse_budget"]

Resource = Literal["latency", "size", "download", "flops"]
RESOURCES: tuple[str, ...] = get_args(Resource)

_BUDGET = re.compile(r"\s*(\w+)\s*:\s*(\d+(?:\.\d+)?)\s*([%$]|[A-Za-z]*)\s*")
_UNITS: dict[str, dict[str, float]] = {
    "latency": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "size": {"B": 1, "kB": 1e3, "KB": 1e3, "KiB": 2**10, "MB": 1e6, "MiB": 2**20},
    "flops": {"": 1, "k": 1e3, "M": 1e6, "G": 1e9},
}
_UNITS["download"] = _UNITS["size"]


@dataclass(frozen=True)
class Figures:
    """What a candidate costs.

    Args:
        size: of the file, in bytes.
        download: of the file compressed by gzip, in bytes.
        flops: floating-point operations of the Keras model for one sample; None where they are not counted.
        latency: median of one inference on one thread, in ms; None where the target's device is not at hand.
        latency_share: that of the float model in the same run, as a fraction; None without a latency.
    """

    size: int
    download: int
    flops: int | None
    latency: float | None
    latency_share: float | None

    def share(self, resource: Resource, baseline: Figures) -> float | None:
        """What is left of a resource, as a fraction of the baseline's."""
        if resource == "latency":
            return self.latency_share
        own, whole = getattr(self, resource), getattr(baseline, resource)
        return own / whole if own is not None and whole else None


@dataclass(frozen=True)
class Budget:
    """The most that a model may cost.

    Args:
        resource: of what.
        limit: a fraction of the float model's, or an amount in ms, bytes or operations.
        is_share: whether it is a fraction.
        text: as it was given.

    Example:
        >>> budget = parse_budget("latency: 40%")
        >>> float_model = Figures(size=4000, download=3600, flops=100, latency=2.0, latency_share=1.0)
        >>> small = Figures(size=1000, download=800, flops=100, latency=0.6, latency_share=0.3)
        >>> budget.used(small, float_model)
        0.75
    """

    resource: Resource
    limit: float
    is_share: bool
    text: str

    def used(self, figures: Figures, baseline: Figures) -> float | None:
        """How much of the budget a candidate takes: above 1 is too much; None where it was not measured."""
        found = figures.share(self.resource, baseline) if self.is_share else getattr(figures, self.resource)
        return None if found is None else found / self.limit


def parse_budget(text: str, *, price_per_hour: float | None = None) -> Budget:
    """Reads a budget.

    Args:
        text: the resource and how much of it: a percentage of the float model's ("latency: 40%", "size: 25%",
            "flops: 50%"), or an amount ("latency: 2.5 ms", "size: 1 MB", "download: 300 kB", "flops: 10 M"). "download"
            is the size after gzip. "cost: 0.05 $" is that of a million inferences.
        price_per_hour: what the machine costs in dollars, for a cost.

    Raises:
        ConfigError: if the text says something else, or a cost comes without a price.

    Example:
        >>> parse_budget("size: 1 MB").limit
        1000000.0
        >>> parse_budget("cost: 0.05 $", price_per_hour=0.36).limit  # ms
        0.5
    """
    match = _BUDGET.fullmatch(text) if isinstance(text, str) else None
    resource, unit = (match[1], match[3]) if match else ("", "")
    amount = float(match[2]) if match else 0.0
    if resource == "cost" and unit == "$" and amount:
        if price_per_hour is None or not 0 < price_per_hour < float("inf"):
            raise ConfigError(
                f"optimize: a cost needs price_per_hour=, in dollars and above 0. Received: {price_per_hour!r}."
            )
        # A machine of so many dollars an hour that does one inference after the other.
        return Budget("latency", amount / 1e6 / price_per_hour * 3600 * 1000, False, text)
    if resource in RESOURCES and unit == "%" and 0 < amount < 100:
        return Budget(resource, amount / 100, True, text)  # type: ignore[arg-type]
    if resource in RESOURCES and unit in _UNITS[resource] and amount:
        return Budget(resource, amount * _UNITS[resource][unit], False, text)  # type: ignore[arg-type]
    raise ConfigError(
        "optimize: budget must name what may remain, as 'latency: 40%', 'latency: 2.5 ms', 'size: 1 MB', "
        f"'download: 300 kB', 'flops: 50%' or 'cost: 0.05 $'. Received: {text!r}."
    )
