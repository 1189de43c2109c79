"""Batcher: when batches run, what each caller gets, and who is refused."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfopt.serving.batching import BatchingParameters
from tfopt.serving.server.batcher import Batcher
from tfopt.serving.server.request_error import Code, RequestError

FOREVER_MICROS = 10**9


def parameters(**values: Any) -> BatchingParameters:
    defaults = {
        "max_batch_size": 4,
        "batch_timeout_micros": FOREVER_MICROS,
        "max_enqueued_batches": 100,
        "num_batch_threads": 1,
        "allowed_batch_sizes": (),
    }
    return BatchingParameters(**{**defaults, **values})


def rows(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array(values, np.float32)}


class GatedModel:
    """A model whose every run waits until the test lets it go on; the answer is twice the input."""

    def __init__(self) -> None:
        self.started: asyncio.Queue[list[float]] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()
        self.gate = threading.Semaphore(0)

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.loop.call_soon_threadsafe(self.started.put_nowait, inputs["x"].tolist())
        assert self.gate.acquire(timeout=10)
        return {"y": 2 * inputs["x"]}

    async def batch(self) -> list[float]:
        """The rows of the next batch that starts."""
        return await asyncio.wait_for(self.started.get(), 10)


async def settled() -> None:
    """Lets everything happen that is ready to."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


def start(batcher: Batcher, *values: float, **options: Any) -> asyncio.Task:
    return asyncio.create_task(batcher.submit(rows(*values), **options))


async def refused(task: asyncio.Task, code: Code, message: str | None = None) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        await task
    assert caught.value.code == code


def test_a_lone_request_runs_at_once_however_long_others_would_be_waited_for(executor: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        model = GatedModel()
        answer = start(Batcher(model, parameters(), executor), 1)
        assert await model.batch() == [1]
        model.gate.release()
        np.testing.assert_array_equal((await answer)["y"], [2])

    asyncio.run(scenario())


def test_requests_gather_while_a_batch_runs_and_go_when_it_ends(executor: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        model = GatedModel()
        batcher = Batcher(model, parameters(batch_timeout_micros=1000), executor)
        answers = [start(batcher, 1)]
        assert await model.batch() == [1]
        answers += [start(batcher, 2), start(batcher, 3)]
        await settled()
        assert model.started.empty()
        model.gate.release(2)
        assert await model.batch() == [2, 3]
        assert [(await answer)["y"].tolist() for answer in answers] == [[2], [4], [6]]

    asyncio.run(scenario())


def test_requests_that_arrive_together_run_together(executor: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        model = GatedModel()
        batcher = Batcher(model, parameters(), executor)
        answers = [start(batcher, value) for value in (1, 2, 3)]
        model.gate.release()
        assert await model.batch() == [1, 2, 3]
        await asyncio.gather(*answers)

    asyncio.run(scenario())


def test_who_were_answered_together_are_waited_for(executor: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        model = GatedModel()
        batcher = Batcher(model, parameters(), executor)
        answers = [start(batcher, value) for value in (1, 2, 3)]
        model.gate.release(3)
        assert await model.batch() == [1, 2, 3]
        await asyncio.gather(*answers)
        answers = []
        for value in (4, 5):
            answers.append(start(batcher, value))
            await settled()
            assert model.started.empty()  # though nothing runs
        answers.append(start(batcher, 6))
        assert await model.batch() == [4, 5, 6]
        await asyncio.gather(*answers)

    asyncio.run(scenario())


def test_who_does_not_come_back_is_waited_for_once(executor: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        model = GatedModel()
        batcher = Batcher(model, parameters(batch_timeout_micros=500_000), executor)
        model.gate.release(3)
        await asyncio.gather(*(start(batcher, value) for value in (1, 2, 3)))
        seconds = []
        for value in (4, 5):
            begun = time.perf_counter()
            await start(batcher, value)
            seconds.append(time.perf_counter() - begun)
        assert seconds[0] >= 0.45 > seconds[1]
        assert [await model.batch() for _ in range(3)] == [[1, 2, 3], [4], [5]]

    asyncio.run(scenario())


def test_a_free_thread_takes_a_full_batch_and_leaves_the_others_to_gather(executor: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        model = GatedModel()
        batcher = Batcher(model, parameters(num_batch_threads=2), executor)
        answers = [start(batcher, 0)]
        assert await model.batch() == [0]
        answers += [start(batcher, value) for value in (1, 2, 3)]
        await settled()
        assert model.started.empty()  # a thread is free, but more may come
        answers += [start(batcher, 4), start(batcher, 5)]
        assert await model.batch() == [1, 2, 3, 4]
        await settled()
        assert model.started.empty()
        answers += [start(batcher, value) for value in (6, 7, 8)]
        model.gate.release(3)
        assert await model.batch() == [5, 6, 7, 8]
        await asyncio.gather(*answers)

    asyncio.run(scenario())


@pytest.mark.parametrize("micros", [0, 2000])
def test_a_free_thread_takes_what_waited_long_enough(executor: ThreadPoolExecutor, micros: int) -> None:
    async def scenario() -> None:
        model = GatedModel()
        batcher = Batcher(model, parameters(num_batch_threads=2, batch_timeout_micros=micros), executor)
        answers = [start(batcher, 0)]
        assert await model.batch() == [0]
        answers.append(start(batcher, 1))
        assert await model.batch() == [1]
        answers.append(start(batcher, 2))  # no thread is free for it
        await settled()
        assert model.started.empty()
        model.gate.release(3)
        await asyncio.gather(*answers)

    asyncio.run(scenario())


def test_batches_are_padded_to_an_allowed_size_with_their_first_row(executor: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        model, records = GatedModel(), []
        batcher = Batcher(model, parameters(allowed_batch_sizes=(1, 4)), executor, on_batch=records.append)
        model.gate.release()
        answers = [start(batcher, 7), start(batcher, 8, 9)]
        assert await model.batch() == [7, 8, 9, 7]
        assert [(await answer)["y"].tolist() for answer in answers] == [[14], [16, 18]]
        (record,) = records
        assert (record.size, record.padded_size, record.requests) == (3, 4, 2)
        assert len(record.queue_ms) == 2
        assert min(record.queue_ms) >= 0
        assert record.run_ms >= 0

    asyncio.run(scenario())


@given(
    bursts=st.lists(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 3)), max_size=6), max_size=6),
    pauses=st.lists(st.integers(0, 4), min_size=6, max_size=6),
    allowed=st.sampled_from([(), (8,), (1, 3, 8)]),
    threads=st.integers(1, 3),
    timeout=st.sampled_from([0, 100, 2000]),
    splitting=st.booleans(),
)
def test_each_caller_gets_its_own_rows_in_any_order_of_arrival(
    executor: ThreadPoolExecutor,
    bursts: list[list[tuple[int, int]]],
    pauses: list[int],
    allowed: tuple[int, ...],
    threads: int,
    timeout: int,
    splitting: bool,
) -> None:
    largest = 8
    ran = []

    def model(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        ran.append(len(inputs["x"]))
        return {"y": -inputs["x"], "sum": inputs["x"].sum(axis=1)}

    async def scenario() -> None:
        batcher = Batcher(
            model,
            parameters(
                max_batch_size=largest,
                allowed_batch_sizes=allowed,
                num_batch_threads=threads,
                batch_timeout_micros=timeout,
                enable_large_batch_splitting=splitting,
            ),
            executor,
        )
        sent, answers, seed = [], [], 0
        for burst, pause in zip(bursts, pauses, strict=False):
            for size, width in burst:
                seed += 1
                sent.append(np.random.default_rng(seed).random((size, width)))
                answers.append(asyncio.create_task(batcher.submit({"x": sent[-1]})))
            for _ in range(pause):
                await asyncio.sleep(0)
        for x, answer in zip(sent, await asyncio.gather(*answers), strict=True):
            np.testing.assert_array_equal(answer["y"], -x)
            np.testing.assert_array_equal(answer["sum"], x.sum(axis=1))
        await batcher.drain()

    asyncio.run(scenario())
    assert all(size == 0 or size in (allowed or range(largest + 1)) for size in ran)


def test_a_request_larger_than_a_batch_is_refused(executor: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        batcher = Batcher(GatedModel(), parameters(), executor)
        await refused(
            start(batcher, *range(5)), Code.INVALID_ARGUMENT, "Task size 5 is larger than maximum input batch size 4"
        )

    asyncio.run(scenario())


def test_a_full_queue_refuses_and_answers_those_it_has(executor: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        model = GatedModel()
        batcher = Batcher(model, parameters(max_enqueued_batches=1), executor)
        answers = [start(batcher, 0)]
        assert await model.batch() == [0]
        answers.append(start(batcher, 1, 2, 3, 4))
        await settled()
        await refused(start(batcher, 5), Code.UNAVAILABLE, "The batch scheduling queue .* is full")
        model.gate.release(2)
        assert [(await answer)["y"].tolist() for answer in answers] == [[0], [2, 4, 6, 8]]

    asyncio.run(scenario())


def test_a_deadline_that_passes_in_the_queue_means_that_it_is_not_run(executor: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        model, now = GatedModel(), asyncio.get_running_loop().time()
        batcher = Batcher(model, parameters(batch_timeout_micros=1000), executor)
        first = start(batcher, 1)
        assert await model.batch() == [1]
        late = start(batcher, 2, deadline=now + 0.02)
        patient = start(batcher, 3, deadline=now + 100)
        await refused(late, Code.DEADLINE_EXCEEDED, "timeout exceeded while waiting in batching queue")
        model.gate.release(2)
        assert await model.batch() == [3]
        assert (await first)["y"].tolist() == [2]
        assert (await patient)["y"].tolist() == [6]
        await refused(start(batcher, 4, deadline=now), Code.DEADLINE_EXCEEDED)

    asyncio.run(scenario())


@pytest.mark.parametrize("batching", [None, parameters()])
def test_a_deadline_that_passes_while_it_runs(
    executor: ThreadPoolExecutor, batching: BatchingParameters | None
) -> None:
    async def scenario() -> None:
        model = GatedModel()
        batcher = Batcher(model, batching, executor)
        late = start(batcher, 1, deadline=asyncio.get_running_loop().time() + 0.02)
        assert await model.batch() == [1]
        await refused(late, Code.DEADLINE_EXCEEDED, "while the model was running")
        model.gate.release()
        await batcher.drain()

    asyncio.run(scenario())


def test_a_cancelled_request_leaves_the_queue(executor: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        model = GatedModel()
        batcher = Batcher(model, parameters(max_enqueued_batches=1), executor)
        first = start(batcher, 1)
        assert await model.batch() == [1]
        killed, other = start(batcher, 2, 3, 4), start(batcher, 5)
        await settled()
        killed.cancel()
        await settled()
        third = start(batcher, 6, 7, 8)  # into the room that it left
        await settled()
        model.gate.release(2)
        assert await model.batch() == [5, 6, 7, 8]
        assert [(await answer)["y"].tolist() for answer in (first, other, third)] == [[2], [10], [12, 14, 16]]
        assert killed.cancelled()

    asyncio.run(scenario())


def test_cancelling_a_request_that_runs_harms_no_neighbour(executor: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        model = GatedModel()
        batcher = Batcher(model, parameters(batch_timeout_micros=1000), executor)
        killed, other = start(batcher, 1), start(batcher, 2)
        assert await model.batch() == [1, 2]
        killed.cancel()
        model.gate.release()
        assert (await other)["y"].tolist() == [4]
        await batcher.drain()

    asyncio.run(scenario())


def test_a_failing_batch_fails_its_requests_and_no_others(executor: ThreadPoolExecutor) -> None:
    def model(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if (inputs["x"] < 0).any():
            raise RequestError(Code.INVALID_ARGUMENT, "no negative numbers")
        return inputs

    async def scenario() -> None:
        batcher = Batcher(model, parameters(batch_timeout_micros=1000), executor)
        bad, neighbour = start(batcher, -1), start(batcher, 1)
        await refused(bad, Code.INVALID_ARGUMENT, "no negative numbers")
        await refused(neighbour, Code.INVALID_ARGUMENT, "no negative numbers")
        assert (await start(batcher, 2))["x"].tolist() == [2]
        odd = asyncio.create_task(batcher.submit({"x": np.full((1, 3), -1.0)}))
        assert (await start(batcher, 3))["x"].tolist() == [3]
        await refused(odd, Code.INVALID_ARGUMENT)

    asyncio.run(scenario())


def test_nan_is_an_answer(executor: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        batcher = Batcher(lambda inputs: {"y": inputs["x"] + 1}, parameters(batch_timeout_micros=1000), executor)
        answers = await asyncio.gather(start(batcher, np.nan), start(batcher, 1))
        np.testing.assert_array_equal(np.concatenate([answer["y"] for answer in answers]), [np.nan, 2])

    asyncio.run(scenario())


@pytest.mark.parametrize("fails", [ZeroDivisionError("by zero"), MemoryError()])
def test_an_unexpected_error_is_internal(executor: ThreadPoolExecutor, fails: Exception) -> None:
    def model(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        raise fails

    async def scenario() -> None:
        batcher = Batcher(model, parameters(batch_timeout_micros=1000), executor)
        await refused(start(batcher, 1), Code.INTERNAL, type(fails).__name__)
        await batcher.drain()

    asyncio.run(scenario())


def test_an_output_without_a_batch_axis_is_refused(executor: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        batcher = Batcher(lambda inputs: {"y": inputs["x"].sum()}, parameters(batch_timeout_micros=1000), executor)
        await refused(start(batcher, 1), Code.FAILED_PRECONDITION, "has 0 dimensions")

    asyncio.run(scenario())


def test_without_parameters_every_request_runs_alone(executor: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        model, records = GatedModel(), []
        batcher = Batcher(model, None, executor, on_batch=records.append)
        answers = [start(batcher, 1), start(batcher, 2, 3)]
        assert sorted([await model.batch(), await model.batch()]) == [[1], [2, 3]]
        model.gate.release(2)
        assert [(await answer)["y"].tolist() for answer in answers] == [[2], [4, 6]]
        assert sorted((record.size, record.padded_size, record.requests) for record in records) == [
            (1, 1, 1),
            (2, 2, 1),
        ]

    asyncio.run(scenario())


def test_without_parameters_tensors_need_no_batch_axis(executor: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        batcher = Batcher(lambda inputs: {"y": inputs["x"].sum() + inputs["bias"]}, None, executor)
        answer = await batcher.submit({"bias": np.float32(1), "x": np.ones(3, np.float32)})
        assert answer["y"] == 4

    asyncio.run(scenario())


def test_a_request_without_rows_is_answered(executor: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        batcher = Batcher(lambda inputs: {"y": inputs["x"]}, parameters(allowed_batch_sizes=(4,)), executor)
        assert (await start(batcher))["y"].shape == (0,)

    asyncio.run(scenario())


@pytest.mark.parametrize("batching", [None, parameters()])
def test_draining_answers_what_waits_and_takes_no_more(
    executor: ThreadPoolExecutor, batching: BatchingParameters | None
) -> None:
    async def scenario() -> None:
        model = GatedModel()
        batcher = Batcher(model, batching, executor)
        answers = [start(batcher, 1)]
        await model.batch()
        answers.append(start(batcher, 2))
        await settled()
        drained = asyncio.create_task(batcher.drain())
        await settled()
        assert not drained.done()
        await refused(start(batcher, 3), Code.UNAVAILABLE)
        model.gate.release(2)
        await drained
        assert [answer.done() for answer in answers] == [True, True]
        assert [(await answer)["y"].tolist() for answer in answers] == [[2], [4]]

    asyncio.run(scenario())


def test_who_gave_up_before_a_thread_was_free_is_not_run() -> None:
    async def scenario(threads: ThreadPoolExecutor) -> None:
        model = GatedModel()
        batcher = Batcher(model, None, threads)
        first, killed, last = start(batcher, 1), start(batcher, 2), start(batcher, 3)
        assert await model.batch() == [1]
        killed.cancel()
        await settled()
        model.gate.release(2)
        assert await model.batch() == [3]
        await asyncio.gather(first, last)
        await batcher.drain()

    with ThreadPoolExecutor(1) as threads:
        asyncio.run(scenario(threads))


def test_the_model_sees_each_row_once_whatever_the_executor_does(executor: ThreadPoolExecutor) -> None:
    seen: list[float] = []

    def model(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen.extend(inputs["x"].tolist())
        return inputs

    async def scenario() -> None:
        batcher = Batcher(model, parameters(num_batch_threads=4), executor)
        await asyncio.gather(*(start(batcher, value) for value in range(200)))

    asyncio.run(scenario())
    assert sorted(seen) == list(range(200))
