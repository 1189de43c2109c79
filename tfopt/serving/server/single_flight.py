"""Equal work that is asked for several times at once, and done once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["SingleFlight"]

Result = TypeVar("Result")
SHARED_ATTEMPTS = 2
"""How often a caller waits for another one's run; after that it runs alone, so that failures do not queue up."""


@dataclass
class _Flight(Generic[Result]):
    task: asyncio.Future[Result]
    callers: int


class SingleFlight(Generic[Result]):
    """Runs what several callers ask for under one key once, and gives the result to all of them.

    A caller is never worse off than alone. When the one who came first is cancelled, its run goes on for the others,
    and is cancelled with the last of them. When its run fails, it alone sees the error: it may have failed for a
    reason of its own, such as a deadline. One of the others then runs its own work for the rest; where that fails
    too, every one of the rest runs its own.

    It belongs to one event loop and keeps no result.

    Example:
        >>> async def twice():
        ...     flights = SingleFlight()
        ...     async def work():
        ...         print("working")
        ...         return 7
        ...     return await asyncio.gather(flights.run(b"key", work), flights.run(b"key", work))
        >>> asyncio.run(twice())
        working
        [7, 7]
    """

    def __init__(self) -> None:
        self._flights: dict[bytes, _Flight[Result]] = {}
        self.shared = 0
        """How many calls were answered by another one's run."""

    async def run(self, key: bytes, work: Callable[[], Awaitable[Result]]) -> Result:
        """Returns what `work` returns, or what another caller's work under the same key does.

        Args:
            key: equal for calls that may share a result.
            work: is called at most once.

        Raises:
            Exception: what this caller's own `work` raises; never what another one's does.
        """
        for _ in range(SHARED_ATTEMPTS):
            flight = self._flights.get(key)
            if flight is None:
                return await self._lead(key, work)
            task = await self._wait(key, flight)
            if not task.cancelled() and task.exception() is None:
                self.shared += 1
                return task.result()
        return await work()

    async def _lead(self, key: bytes, work: Callable[[], Awaitable[Result]]) -> Result:
        flight = _Flight(asyncio.ensure_future(work()), callers=0)
        self._flights[key] = flight
        flight.task.add_done_callback(lambda task: self._end(key, flight))
        return (await self._wait(key, flight)).result()

    async def _wait(self, key: bytes, flight: _Flight[Result]) -> asyncio.Future[Result]:
        """Waits without being bound to the run: cancelling a caller does not cancel what others wait for."""
        flight.callers += 1
        try:
            await asyncio.wait([flight.task])
        finally:
            flight.callers -= 1
            if flight.callers == 0 and not flight.task.done():
                self._forget(key, flight)
                flight.task.cancel()
        return flight.task

    def _end(self, key: bytes, flight: _Flight[Result]) -> None:
        self._forget(key, flight)
        if not flight.task.cancelled():
            flight.task.exception()  # looked at, or asyncio complains where every caller has gone

    def _forget(self, key: bytes, flight: _Flight[Result]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
