"""Budgets as text, and how much of one a candidate takes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfopt.budget import Figures, parse_budget
from tfopt.errors import ConfigError

FLOAT = Figures(size=4_000_000, download=3_000_000, flops=1_000_000, latency=10.0, latency_share=1.0)
SMALL = Figures(size=1_000_000, download=600_000, flops=500_000, latency=3.0, latency_share=0.25)


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ("latency: 50%", 0.5),
        ("latency: 12.5 %", 2.0),
        ("latency: 6 ms", 0.5),
        ("latency:1500us", 2.0),
        ("latency: 0.003 s", 1.0),
        ("size: 25%", 1.0),
        ("size: 2 MB", 0.5),
        ("size: 500 kB", 2.0),
        (" size : 1000000 B ", 1.0),
        ("download: 40%", 0.5),
        ("download: 600 kB", 1.0),
        ("flops: 25%", 2.0),
        ("flops: 1 M", 0.5),
        ("flops: 250k", 2.0),
        ("flops: 500000", 1.0),
        ("latency: 50%, size: 50%", 0.5),
        ("latency: 50%,size: 25%, flops: 50%", 1.0),
    ],
)
def test_how_much_a_candidate_takes(text: str, used: float) -> None:
    budget = parse_budget(text)
    assert budget.used(SMALL, FLOAT) == pytest.approx(used)
    assert budget.text == text


def test_kibibytes_are_not_kilobytes() -> None:
    assert parse_budget("size: 1 KiB").limits[0].amount == 1024
    assert parse_budget("size: 1 MiB").limits[0].amount == 1024**2


@given(st.floats(0.01, 10), st.floats(0.001, 100))
def test_a_cost_is_a_latency(price_per_hour: float, dollars: float) -> None:
    budget = parse_budget(f"cost: {dollars:.6f} $", price_per_hour=price_per_hour)
    assert budget.names("latency")
    cost_of_a_million = budget.limits[0].amount / 1000 * 1e6 / 3600 * price_per_hour
    assert cost_of_a_million == pytest.approx(float(f"{dollars:.6f}"), rel=1e-6)


@pytest.mark.parametrize("missing", [{"latency": None, "latency_share": None}, {"flops": None}])
def test_what_was_not_measured_is_no_number(missing: dict[str, Any]) -> None:
    figures = Figures(**{**vars(SMALL), **missing})
    (resource,) = {name for name in missing if name in ("latency", "flops")}
    for budget in (parse_budget(f"{resource}: 40%"), parse_budget(f"size: 40%, {resource}: 40%")):
        assert budget.used(figures, FLOAT) is None
        assert budget.excess(figures, FLOAT) is None


@given(st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_the_distance_from_a_budget_counts_all_its_limits(latency: float, size: float) -> None:
    budget = parse_budget(f"latency: {100 * latency}%, size: {100 * size}%")
    shares = [SMALL.share(name, FLOAT) / limit for name, limit in (("latency", latency), ("size", size))]
    assert budget.excess(FLOAT, FLOAT) == pytest.approx(1 / latency / size)
    assert budget.excess(SMALL, FLOAT) == pytest.approx(max(1, shares[0]) * max(1, shares[1]))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "latency",
        "latency: fast",
        "latency: 0%",
        "latency: 100%",
        "latency: 40",
        "latency: 4 MB",
        "size: 5 ms",
        "size: -1 MB",
        "energy: 40%",
        "latency: 40%,",
        "latency: 40% size: 25%",
        "cost: 40%",
        40,
        None,
    ],
)
def test_anything_else_is_refused(text: Any) -> None:
    with pytest.raises(ConfigError, match=r"budget must name what may remain, as 'latency: 40%'.*Received: "):
        parse_budget(text, price_per_hour=1.0)


@pytest.mark.parametrize("price", [None, 0.0, -1.0, float("nan"), float("inf")])
def test_a_cost_needs_a_price(price: float | None) -> None:
    with pytest.raises(ConfigError, match="a cost needs price_per_hour="):
        parse_budget("cost: 1 $", price_per_hour=price)


def test_only_what_can_be_told_is_a_budget() -> None:
    resources = ("size", "download")
    assert parse_budget("size: 20%, download: 1 kB", name="compress", resources=resources).names("download")
    for text in ("latency: 40%", "size: 20%, flops: 50%", "cost: 1 $"):
        expected = "compress: budget must name what may remain, as 'size: 1 MB', 'download: 300 kB' or 'size: 40%, "
        with pytest.raises(ConfigError, match=expected):
            parse_budget(text, name="compress", resources=resources)
