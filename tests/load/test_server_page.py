"""A server's Prometheus page, as TF Serving and tfopt's own server write it."""

import pytest

from tfopt.errors import BenchmarkError
from tfopt.load.server_page import parse_page, read_page, statistics_between

PREFIX = ":tensorflow:serving:"
# What TF Serving's exporter writes: a pool's name for the queue, counts that only grow.
QUEUE = PREFIX + 'batching_session:queuing_latency_{0}{{thread_pool_name="batch_threads"{1}}} {2}\n'


def queue(total: float, **counts: int) -> str:
    limits = {"low": "1000", "high": "3000", "all": "+Inf"}
    text = "".join(QUEUE.format("bucket", f',le="{limits[name]}"', count) for name, count in counts.items())
    return text + QUEUE.format("sum", "", total) + QUEUE.format("count", "", counts["all"])


def test_queue_time_is_what_was_added_between_the_readings() -> None:
    before = parse_page("# TYPE x histogram\n" + queue(5e9, low=1000, high=1000, all=1000))
    after = parse_page(queue(5e9 + 2e5, low=1050, high=1100, all=1100))
    told = statistics_between(before, after, model="m")
    assert told.queue_mean_ms == pytest.approx(2.0)
    assert told.queue_p50_ms == pytest.approx(1.0)
    assert told.queue_p99_ms == pytest.approx(1.0 + 2.0 * 49 / 50)
    assert told.batch_sizes is None


def test_what_lies_above_the_last_limit_counts_as_that_limit() -> None:
    told = statistics_between({}, parse_page(queue(9e9, low=0, high=1, all=100)), model="m")
    assert told.queue_p99_ms == pytest.approx(3.0)


def test_batch_sizes_of_a_model_that_batches_in_its_graph_are_exact() -> None:
    name = PREFIX + "batching:processed_batch_size_v2"
    before = parse_page(f'{name}{{model_name="m",op_name="b",batch_size="16"}} 4\n')
    after = parse_page(
        f'{name}{{model_name="m",op_name="b",batch_size="16"}} 10\n'
        f'{name}{{model_name="m",op_name="b",batch_size="4"}} 1\n'
        f'{name}{{model_name="other",op_name="b",batch_size="2"}} 7\n'
    )
    assert statistics_between(before, after, model="m").batch_sizes == {"4": 1, "16": 6}


def test_batch_sizes_of_a_histogram_are_those_of_its_ranges() -> None:
    name = PREFIX + "batching_session:processed_batch_size_bucket"
    page = parse_page(f'{name}{{le="1"}} 2\n{name}{{le="2"}} 2\n{name}{{le="4"}} 5\n{name}{{le="+Inf"}} 5\n')
    assert statistics_between({}, page, model="m").batch_sizes == {"1": 2, "4": 3}


def test_a_page_without_batches_tells_nothing() -> None:
    page = parse_page(f'{PREFIX}request_count{{model_name="m",status="OK"}} 3\n')
    told = statistics_between({}, page, model="m")
    assert (told.batch_sizes, told.queue_mean_ms, told.queue_p50_ms, told.queue_p99_ms) == (None, None, None, None)


def test_labels_with_quotes_and_empty_ones() -> None:
    page = parse_page('a{b="x\\"y}",c=""} 1e3\na{} 2\n# HELP a of things\n\na 3\n')
    assert page == {("a", (("b", 'x\\"y}'), ("c", ""))): 1000.0, ("a", ()): 3.0}


def test_a_page_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match="cannot be read"):
        read_page("http://127.0.0.1:9/metrics")
