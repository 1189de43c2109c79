"""What a compressed model may cost, as text: "latency: 40%", "size: 1 MB", "latency: 40%, size: 25%"."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from tfopt.errors import ConfigError

__all__ = ["RESOURCES", "Budget", "Figures", "Limit", "Resource", "parse_budget"]

Resource = Literal["latency", "size", "download", "flops"]
RESOURCES: tuple[str, ...] = get_args(Resource)

_BUDGET = re.compile(r"\s*(\w+)\s*:\s*(\d+(?:\.\d+)?)\s*([%$]|[A-Za-z]*)\s*")
_UNITS: dict[str, dict[str, float]] = {
    "latency": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "size": {"B": 1, "kB": 1e3, "KB": 1e3, "KiB": 2**10, "MB": 1e6, "MiB": 2**20},
    "flops": {"": 1, "k": 1e3, "M": 1e6, "G": 1e9},
}
_UNITS["download"] = _UNITS["size"]
_EXAMPLES: dict[str, tuple[str, ...]] = {
    "latency": ("latency: 40%", "latency: 2.5 ms", "cost: 0.05 $"),
    "size": ("size: 1 MB",),
    "download": ("download: 300 kB",),
    "flops": ("flops: 50%",),
}


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
class Limit:
    """The most that a model may take of one resource.

    Args:
        resource: of what.
        amount: a fraction of the float model's, or a number of ms, bytes or operations.
        is_share: whether it is a fraction.
    """

    resource: Resource
    amount: float
    is_share: bool

    def used(self, figures: Figures, baseline: Figures) -> float | None:
        """How much of it a candidate takes: above 1 is too much; None where that was not measured."""
        found = figures.share(self.resource, baseline) if self.is_share else getattr(figures, self.resource)
        return None if found is None else found / self.amount


@dataclass(frozen=True)
class Budget:
    """The most that a model may cost.

    Args:
        limits: one for each resource that was named.
        text: as it was given.

    Example:
        >>> budget = parse_budget("latency: 40%, size: 50%")
        >>> float_model = Figures(size=4000, download=3600, flops=100, latency=2.0, latency_share=1.0)
        >>> small = Figures(size=1000, download=800, flops=100, latency=0.6, latency_share=0.3)
        >>> round(budget.used(small, float_model), 2)  # of the latency, which is scarcer than the size
        0.75
        >>> slow = Figures(size=3000, download=800, flops=100, latency=1.0, latency_share=0.5)
        >>> round(budget.excess(slow, float_model), 2)  # 1.25 times the latency and 1.5 times the size
        1.88
    """

    limits: tuple[Limit, ...]
    text: str

    def names(self, resource: Resource) -> bool:
        """Whether it limits a resource."""
        return any(limit.resource == resource for limit in self.limits)

    def used(self, figures: Figures, baseline: Figures) -> float | None:
        """How much of the scarcest resource a candidate takes: above 1 is too much; None where one was not measured."""
        parts = self._parts(figures, baseline)
        return None if parts is None else max(parts)

    def excess(self, figures: Figures, baseline: Figures) -> float | None:
        """How far a candidate is from the budget: the product of what is too much, 1 within it; None likewise."""
        parts = self._parts(figures, baseline)
        return None if parts is None else math.prod(max(1.0, part) for part in parts)

    def _parts(self, figures: Figures, baseline: Figures) -> list[float] | None:
        parts = [limit.used(figures, baseline) for limit in self.limits]
        known = [part for part in parts if part is not None]
        return known if len(known) == len(parts) else None


def parse_budget(
    text: str,
    *,
    name: str = "optimize",
    resources: tuple[str, ...] = RESOURCES,
    price_per_hour: float | None = None,
) -> Budget:
    """Reads a budget.

    Args:
        text: a resource and how much of it, or several with commas between them ("latency: 40%, size: 25%"): a
            percentage of the float model's, or an amount ("latency: 2.5 ms", "size: 1 MB", "download: 300 kB",
            "flops: 10 M"). "download" is the size after gzip. "cost: 0.05 $" is that of a million inferences.
        name: whose argument it is, for the error.
        resources: those that may be named; a cost is a latency.
        price_per_hour: what the machine costs in dollars, for a cost.

    Raises:
        ConfigError: if the text says something else, or a cost comes without a price.

    Example:
        >>> parse_budget("size: 1 MB").limits[0].amount
        1000000.0
        >>> parse_budget("cost: 0.05 $", price_per_hour=0.36).limits[0].amount  # ms
        0.5
    """
    parts = text.split(",") if isinstance(text, str) else []
    limits = [_limit(part, name, resources, price_per_hour) for part in parts]
    if not limits or None in limits:
        examples = [f"'{example}'" for resource in resources for example in _EXAMPLES[resource]]
        both = f"'{resources[0]}: 40%, {resources[1]}: 25%'"
        raise ConfigError(
            f"{name}: budget must name what may remain, as {', '.join(examples)} or {both}. Received: {text!r}."
        )
    return Budget(tuple(limit for limit in limits if limit is not None), text)


def _limit(text: str, name: str, resources: tuple[str, ...], price_per_hour: float | None) -> Limit | None:
    match = _BUDGET.fullmatch(text)
    if match is None or not float(match[2]):
        return None
    resource, amount, unit = match[1], float(match[2]), match[3]
    if resource == "cost" and unit == "$" and "latency" in resources:
        if price_per_hour is None or not 0 < price_per_hour < float("inf"):
            raise ConfigError(
                f"{name}: a cost needs price_per_hour=, in dollars and above 0. Received: {price_per_hour!r}."
            )
        # A machine of so many dollars an hour that does one inference after the other.
        return Limit("latency", amount / 1e6 / price_per_hour * 3600 * 1000, is_share=False)
    if resource in resources and unit == "%" and amount < 100:
        return Limit(resource, amount / 100, is_share=True)  # type: ignore[arg-type]
    if resource in resources and unit in _UNITS[resource]:
        return Limit(resource, amount * _UNITS[resource][unit], is_share=False)  # type: ignore[arg-type]
    return None
