"""Equal work runs once, and nobody fails because of another one."""

import asyncio
import gc
from collections.abc import Awaitable, Callable

import pytest

from tfopt.serving.server.single_flight import SHARED_ATTEMPTS, SingleFlight


class Work:
    """Waits for a gate and then returns or raises; counts what became of it."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.started = self.cancelled = 0

    def __call__(self, outcome: object) -> Callable[[], Awaitable[object]]:
        async def run() -> object:
            self.started += 1
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        return run


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_equal_work_runs_once_and_different_work_beside_it() -> None:
    async def main() -> None:
        flights, work = SingleFlight[object](), Work()
        calls = [asyncio.create_task(flights.run(key, work(key))) for key in (b"a", b"b", b"a", b"a")]
        await settled()
        assert work.started == 2
        work.gate.set()
        assert await asyncio.gather(*calls) == [b"a", b"b", b"a", b"a"]
        assert flights.shared == 2
        assert await flights.run(b"a", work("later")) == "later"

    asyncio.run(main())


def test_the_run_outlives_the_caller_who_began_it() -> None:
    async def main() -> None:
        flights, work = SingleFlight[object](), Work()
        first, second = (asyncio.create_task(flights.run(b"k", work(name))) for name in ("first's", "second's"))
        await settled()
        first.cancel()
        await settled()
        assert first.cancelled()
        assert (work.started, work.cancelled) == (1, 0)
        work.gate.set()
        assert await second == "first's"

    asyncio.run(main())


def test_the_last_caller_to_leave_cancels_the_run() -> None:
    async def main() -> None:
        flights, work = SingleFlight[object](), Work()
        calls = [asyncio.create_task(flights.run(b"k", work("unused"))) for _ in range(3)]
        await settled()
        for call in calls:
            call.cancel()
        await settled()
        assert (work.started, work.cancelled) == (1, 1)
        # Somebody who comes now begins anew instead of joining what is being cancelled.
        work.gate.set()
        assert await flights.run(b"k", work("new")) == "new"

    asyncio.run(main())


def test_a_new_caller_never_joins_a_run_that_is_being_cancelled() -> None:
    async def main() -> None:
        flights = SingleFlight[object]()
        ended = asyncio.Event()

        async def stubborn() -> object:
            try:
                await asyncio.Event().wait()
            finally:
                await ended.wait()  # takes its time to give up
            return None

        async def quick() -> object:
            return "quick"

        first = asyncio.create_task(flights.run(b"k", stubborn))
        await settled()
        first.cancel()
        await settled()
        assert await asyncio.wait_for(flights.run(b"k", quick), 5) == "quick"
        ended.set()
        await settled()

    asyncio.run(main())


def test_an_error_is_for_the_one_whose_work_it_was() -> None:
    async def main() -> None:
        flights, work = SingleFlight[object](), Work()
        outcomes = [TimeoutError("the first one's deadline"), "second", "third"]
        calls = [asyncio.create_task(flights.run(b"k", work(outcome))) for outcome in outcomes]
        await settled()
        work.gate.set()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert answers == [outcomes[0], "second", "second"]
        assert work.started == 2

    asyncio.run(main())


def test_failures_do_not_queue_up() -> None:
    async def main() -> None:
        flights, work = SingleFlight[object](), Work()
        errors = [ValueError(str(number)) for number in range(20)]
        calls = [asyncio.create_task(flights.run(b"k", work(error))) for error in errors]
        await settled()
        assert work.started == 1
        work.gate.set()
        # Every caller sees its own error, after no more than the shared attempts and its own run.
        assert await asyncio.gather(*calls, return_exceptions=True) == errors
        assert work.started == 20
        assert SHARED_ATTEMPTS == 2

    asyncio.run(main())


def test_a_run_cancelled_from_within_does_not_cancel_the_others() -> None:
    async def main() -> None:
        flights, work = SingleFlight[object](), Work()
        calls = [
            asyncio.create_task(flights.run(b"k", work(outcome))) for outcome in (asyncio.CancelledError(), "well")
        ]
        await settled()
        work.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await calls[0]
        assert await calls[1] == "well"

    asyncio.run(main())


def test_an_error_that_nobody_waits_for_is_not_complained_about() -> None:
    complaints: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        flights = SingleFlight[object]()

        async def fails_when_cancelled() -> object:
            try:
                await asyncio.Event().wait()
            finally:
                raise ValueError("while giving up")

        call = asyncio.create_task(flights.run(b"k", fails_when_cancelled))
        await settled()
        call.cancel()
        await settled()
        del call, flights
        gc.collect()

    asyncio.run(main())
    assert complaints == []
