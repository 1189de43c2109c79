"""The figures of a load, from records made by hand."""

import json

import numpy as np
import pytest

from tfopt.load.load import Load
from tfopt.load.result import LoadResult
from tfopt.load.server_page import ServerStatistics

Row = tuple[float, float, float, str]  # due, sent, answered, code


def result(rows: list[Row], *, load: Load | None = None, **options: object) -> LoadResult:
    due, sent, answered = np.array([row[:3] for row in rows], float).reshape(-1, 3).T
    load = load or Load(rate_per_second=10, seconds=2)
    codes = np.array([row[3] for row in rows] or [""])[: len(rows)]
    return LoadResult(endpoint="e", load=load, due_s=due, sent_s=sent, answered_s=answered, codes=codes, **options)  # type: ignore[arg-type]


def test_percentiles_are_of_what_was_due_within_the_measured_time() -> None:
    rows: list[Row] = [(at / 100, at / 100, at / 100 + at / 1000, "200") for at in range(100)]
    rows += [(-0.5, -0.5, 5.0, "200"), (2.0, 2.0, 9.0, "200")]  # the warm-up, and what was due after the end
    measured = result(rows[::-1])
    assert measured.requests == 100
    np.testing.assert_allclose(measured.latencies_ms, np.arange(100), atol=1e-9)
    assert measured.p50_ms == pytest.approx(49.5)
    assert measured.p90_ms == pytest.approx(np.percentile(np.arange(100), 90))
    assert measured.p99_ms == pytest.approx(np.percentile(np.arange(100), 99))
    assert measured.p999_ms == pytest.approx(np.percentile(np.arange(100), 99.9))


def test_latency_counts_from_when_a_request_was_due() -> None:
    measured = result([(0.0, 0.3, 0.4, "200")])
    assert measured.p50_ms == pytest.approx(400)
    assert measured.lag_p99_ms == pytest.approx(300)
    assert "sent requests up to 300.00 ms late" in str(measured)


def test_throughput_is_of_answers_within_the_measured_time() -> None:
    rows: list[Row] = [
        (-0.1, -0.1, 0.1, "200"),  # of the warm-up, answered within
        (0.0, 0.0, 0.1, "200"),
        (1.0, 1.0, 1.5, "OK"),
        (1.9, 1.9, 2.1, "200"),  # answered too late
        (1.0, 1.0, 1.1, "503"),
    ]
    measured = result(rows)
    assert measured.throughput_per_second == 1.5
    assert measured.goodput_per_second(250) == 1.0
    assert measured.goodput_per_second(100) == 0.5
    assert measured.goodput_per_second(0) == 0


def test_a_refusal_is_no_short_latency_and_a_time_out_is_a_long_one() -> None:
    rows: list[Row] = [(0.0, 0.0, 0.05, "200"), (0.1, 0.1, 0.101, "503"), (0.2, 0.2, 1.2, "time-out")]
    measured = result([*rows, (0.3, 0.3, 0.301, "503")], messages={"503": "queue full"})
    np.testing.assert_allclose(measured.latencies_ms, [50, 1000])
    assert measured.errors == {"503": 2, "time-out": 1}
    assert list(measured.errors) == ["503", "time-out"]
    assert "errors         2× 503, 1× time-out" in str(measured)
    assert "2× 503: queue full" in str(measured)


def test_nothing_answered_is_not_measured() -> None:
    for measured in (result([]), result([(0.0, 0.0, 0.01, "connection error")])):
        assert measured.p99_ms is None
        assert measured.throughput_per_second == 0
        assert "latency p99    not measured" in str(measured)


def test_the_table_tells_goodput_and_batches() -> None:
    told = ServerStatistics(batch_sizes={"1": 1, "8": 3}, queue_p50_ms=0.5, queue_p99_ms=2.0)
    text = result([(0.0, 0.0, 0.01, "200")], server=told).table(slo_ms=20)
    assert "goodput within 20 ms  0.5/s" in text
    assert "1: 25%, 8: 75%" in text
    assert "p50 0.50 ms, p99 2.00 ms" in text
    assert "late (p99)" not in text


def test_the_figures_are_plain_values() -> None:
    figures = result([(0.0, 0.0, 0.01, "200")]).to_dict(slo_ms=5)
    read = json.loads(json.dumps(figures))
    assert read["p50_ms"] == pytest.approx(10)
    assert (read["goodput_per_second"], read["throughput_per_second"]) == (0, 0.5)
    assert read["load"]["rate_per_second"] == 10
