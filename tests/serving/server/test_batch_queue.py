"""BatchQueue: who shares a batch with whom, by TF Serving's rules."""

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfopt.serving.batching import BatchingParameters
from tfopt.serving.server.batch_queue import BatchQueue, Request
from tfopt.serving.server.request_error import Code, RequestError


def parameters(**values: Any) -> BatchingParameters:
    return BatchingParameters(**{"max_batch_size": 4, "max_enqueued_batches": 100, "allowed_batch_sizes": (), **values})


def request(size: int, *, width: int = 1, dtype: str = "float32") -> Request:
    with asyncio.Runner() as runner:
        answer = runner.get_loop().create_future()
    return Request({"x": np.zeros((size, width), dtype)}, answer)


def sizes(queue: BatchQueue) -> list[list[int]]:
    """The parts of each batch, all taken out."""
    batches = []
    while batch := queue.take(unripe=True):
        assert batch.size == sum(part.size for part in batch.parts)
        batches.append([part.size for part in batch.parts])
    return batches


def test_requests_share_a_batch_until_one_does_not_fit() -> None:
    queue = BatchQueue(parameters())
    begun = [len(queue.add(request(size))) for size in (1, 2, 2, 1, 1, 4)]
    assert begun == [1, 0, 1, 0, 0, 1]
    assert sizes(queue) == [[1, 2], [2, 1, 1], [4]]


def test_a_full_batch_and_one_that_is_closed_are_ripe() -> None:
    queue = BatchQueue(parameters())
    queue.add(request(3))
    assert queue.take(unripe=False) is None
    queue.add(request(3))
    assert queue.take(unripe=False).size == 3
    assert queue.take(unripe=False) is None
    queue.add(request(1))
    assert queue.take(unripe=False).size == 4
    assert len(queue) == 0


def test_shapes_and_dtypes_never_mix() -> None:
    queue = BatchQueue(parameters())
    for width, dtype in ((1, "float32"), (2, "float32"), (1, "float64"), (1, "float32"), (2, "float32")):
        queue.add(request(1, width=width, dtype=dtype))
    assert sizes(queue) == [[1, 1], [1, 1], [1]]


def test_lengths_mix_where_they_are_padded() -> None:
    queue = BatchQueue(parameters(pad_variable_length_inputs=True))
    for width in (1, 2, 3):
        queue.add(request(1, width=width))
    assert sizes(queue) == [[1, 1, 1]]


def test_large_requests_are_split_where_that_is_enabled() -> None:
    queue = BatchQueue(parameters(max_batch_size=9, enable_large_batch_splitting=True, max_execution_batch_size=4))
    large = request(9)
    assert [len(queue.add(each)) for each in (request(3), large, request(1))] == [1, 2, 1]
    assert [(part.start, part.stop) for part in large.parts] == [(0, 1), (1, 5), (5, 9)]
    assert sizes(queue) == [[3, 1], [4], [4], [1]]


@pytest.mark.parametrize("splitting", [False, True])
def test_a_request_larger_than_a_batch_is_refused(splitting: bool) -> None:
    queue = BatchQueue(parameters(enable_large_batch_splitting=splitting))
    with pytest.raises(RequestError, match="Task size 5 is larger than maximum input batch size 4") as caught:
        queue.add(request(5))
    assert caught.value.code == Code.INVALID_ARGUMENT


def test_a_full_queue_refuses_and_stays_as_it_is() -> None:
    queue = BatchQueue(parameters(max_enqueued_batches=2))
    for size in (4, 3):
        queue.add(request(size))
    with pytest.raises(
        RequestError, match="full; currently 2 batches enqueued and max_enqueued_batches is 2"
    ) as caught:
        queue.add(request(2))
    assert caught.value.code == Code.UNAVAILABLE
    queue.add(request(1))  # there is room for it
    assert sizes(queue) == [[4], [3, 1]]


def test_what_is_withdrawn_gives_its_room_back() -> None:
    queue = BatchQueue(parameters(max_enqueued_batches=1))
    first, second = request(2), request(1)
    queue.add(first)
    queue.add(second)
    queue.withdraw(first)
    queue.add(request(3))
    assert sizes(queue) == [[1, 3]]
    queue.add(first)
    queue.withdraw(first)
    assert len(queue) == 0
    queue.add(request(4))
    assert sizes(queue) == [[4]]


@given(
    arrivals=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 2), st.booleans()), max_size=30),
    largest=st.integers(1, 9),
    splitting=st.booleans(),
)
def test_every_row_waits_once_and_in_order(
    arrivals: list[tuple[int, int, bool]], largest: int, splitting: bool
) -> None:
    limits = {"enable_large_batch_splitting": True, "max_execution_batch_size": largest} if splitting else {}
    queue = BatchQueue(parameters(max_batch_size=9, **limits))
    largest = largest if splitting else 9
    requests = [(request(size, width=width), withdrawn) for size, width, withdrawn in arrivals]
    for each, _ in requests:
        queue.add(each)
    for each, withdrawn in requests:
        if withdrawn:
            queue.withdraw(each)
    taken = []
    while batch := queue.take(unripe=True):
        assert 0 < batch.size <= largest
        assert len({part.request.inputs["x"].shape[1] for part in batch.parts}) == 1
        taken += batch.parts
    for each, withdrawn in requests:
        rows = [row for part in taken if part.request is each for row in range(part.start, part.stop)]
        assert rows == ([] if withdrawn else list(range(each.size)))
