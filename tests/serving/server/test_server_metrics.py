"""The metrics page: TF Serving's names, in a text that Prometheus reads."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tfopt.serving.server.batcher import BatchRecord
from tfopt.serving.server.server_metrics import ServerMetrics


def samples(metrics: ServerMetrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of the page by its name and labels, as Prometheus's own parser reads it."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        # The parser, not the page, ends a counter's name with _total.
        (
            sample.name.removeprefix(":tensorflow:").removesuffix("_total"),
            frozenset(sample.labels.items()),
        ): sample.value
        for family in families
        for sample in family.samples
    }


def test_requests_are_counted_by_model_and_status_and_timed_in_microseconds() -> None:
    metrics = ServerMetrics()
    for status, seconds in (("OK", 0.001), ("OK", 0.003), ("NOT_FOUND", 0.5)):
        metrics.on_request("digits", api="predict", entrypoint="REST", status=status, seconds=seconds)

    read = samples(metrics)

    model = ("model_name", "digits")
    assert read["serving:request_count", frozenset({model, ("status", "OK")})] == 2
    assert read["serving:request_count", frozenset({model, ("status", "NOT_FOUND")})] == 1
    ok = {model, ("API", "predict"), ("entrypoint", "REST"), ("status", "OK")}
    assert read["serving:request_latency_sum", frozenset(ok)] == pytest.approx(4000)
    assert read["serving:request_latency_count", frozenset(ok)] == 2
    # 10 * 1.8**8 = 1102 us, 10 * 1.8**9 = 1983.6 us: the limits, and their text, of TF Serving.
    assert read["serving:request_latency_bucket", frozenset({*ok, ("le", "1102")})] == 1
    assert read["serving:request_latency_bucket", frozenset({*ok, ("le", "3570.47")})] == 2
    assert read["serving:request_latency_bucket", frozenset({*ok, ("le", "+Inf")})] == 2


def test_a_batch_is_counted_with_its_padding_and_the_wait_of_each_request() -> None:
    metrics = ServerMetrics()
    metrics.on_batch("digits", BatchRecord(size=3, padded_size=4, requests=2, queue_ms=[0.05, 2.0], run_ms=7.5))

    read = samples(metrics)

    waited = {("thread_pool_name", "digits")}
    assert read["serving:batching_session:queuing_latency_count", frozenset(waited)] == 2
    assert read["serving:batching_session:queuing_latency_sum", frozenset(waited)] == pytest.approx(2050)
    assert read["serving:batching_session:queuing_latency_bucket", frozenset({*waited, ("le", "100")})] == 1
    assert read["serving:batching_session:processed_batch_size_bucket", frozenset({("le", "2")})] == 0
    assert read["serving:batching_session:processed_batch_size_bucket", frozenset({("le", "4")})] == 1
    assert read["serving:batching_session:padding_size_sum", frozenset({("execution_batch_size", "4")})] == 1
    ran = {("model_name", "digits"), ("API", "Predict"), ("runtime", "TF1")}
    assert read["serving:runtime_latency_sum", frozenset(ran)] == pytest.approx(7500)
    assert read["core:graph_runs", frozenset()] == 1
    assert read["core:graph_run_time_usecs", frozenset()] == 7500


def test_counters_keep_tf_servings_names_without_a_suffix() -> None:
    metrics = ServerMetrics()
    metrics.on_request("m", api="", entrypoint="REST", status="OK", seconds=0)
    page = metrics.render().decode()
    assert "# TYPE :tensorflow:serving:request_count counter\n" in page
    assert ':tensorflow:serving:request_count{model_name="m",status="OK"} 1\n' in page
    assert "_total" not in page


def test_a_models_name_cannot_break_the_page() -> None:
    metrics = ServerMetrics()
    name = 'a"b\\c\nd'
    metrics.on_request(name, api="", entrypoint="REST", status="OK", seconds=0)
    assert samples(metrics)["serving:request_count", frozenset({("model_name", name), ("status", "OK")})] == 1


def test_a_server_that_has_answered_nothing_has_a_page() -> None:
    assert samples(ServerMetrics()) == {}
