"""The two ways to send requests: when the last one is answered, or when the next one is due."""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from tfopt.load.senders import CONNECTION_ERROR, Sender

__all__ = ["Record", "closed_loop", "open_loop"]

Record = Callable[[float, float, float, str, bytes], None]
"""Is told of each request when it was due, sent and answered, its code, and what the server said where it failed."""
PAUSE_SECONDS = 0.01
"""Of a client that cannot connect."""


async def closed_loop(
    senders: Sequence[Sender], seconds: float, record: Record, *, clock: Callable[[], float] = time.perf_counter
) -> None:
    """Lets every sender send its next request as soon as the last one is answered, and waits for the last answers.

    Each sends one request at least.

    Args:
        senders: one for each client.
        seconds: from now on in which requests are sent.
        record: is told of each request; it is due when it is sent.
        clock: the time in seconds.
    """
    end = clock() + seconds
    indices = itertools.count()

    async def client(sender: Sender) -> None:
        answered = -math.inf
        while answered < end:
            sent = clock()
            code, said = await sender.send(next(indices))
            answered = clock()
            record(sent, sent, answered, code, said)
            if code == CONNECTION_ERROR:
                await asyncio.sleep(PAUSE_SECONDS)

    await asyncio.gather(*map(client, senders))


async def open_loop(
    another: Callable[[], Sender],
    arrivals: np.ndarray,
    record: Record,
    *,
    max_connections: int,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Sends every request when it is due, whatever became of those before it, and waits for the last answers.

    A request that is due while all connections are busy waits for one, and the wait counts: the server is slow then,
    not the user.

    Args:
        another: makes a sender; as many are made as requests overlap.
        arrivals: when requests are due, in seconds from now on, increasing.
        record: is told of each request.
        max_connections: senders, at most.
        clock: the time in seconds; the one that `time.sleep` follows.
    """
    start = clock()
    idle: list[Sender] = []
    waiting: deque[asyncio.Future[Sender]] = deque()
    made = 0
    running: set[asyncio.Task[None]] = set()
    loop, all_sent = asyncio.get_running_loop(), asyncio.Event()

    async def free_sender() -> Sender:
        nonlocal made
        if idle:
            return idle.pop()  # the one used last, whose connection is the least likely to have been closed
        if made < max_connections:
            made += 1
            return another()
        waiting.append(loop.create_future())
        return await waiting[-1]

    async def request(index: int) -> None:
        sender = await free_sender()
        sent = clock()
        code, said = await sender.send(index)
        record(start + float(arrivals[index]), sent, clock(), code, said)
        if waiting:
            waiting.popleft().set_result(sender)
        else:
            idle.append(sender)

    def begin(first: int, last: int) -> None:
        for index in range(first, last):
            task = loop.create_task(request(index))
            running.add(task)
            task.add_done_callback(running.discard)
        if last == len(arrivals):
            all_sent.set()

    stopped = threading.Event()

    def time_keeper() -> None:
        # An event loop rounds its timers up to a millisecond; a thread that sleeps wakes up within some 0.1 ms.
        first = 0
        while first < len(arrivals) and not stopped.is_set():
            time.sleep(max(0.0, start + arrivals[first] - clock()))
            last = max(first + 1, int(np.searchsorted(arrivals, clock() - start, side="right")))
            loop.call_soon_threadsafe(begin, first, last)
            first = last

    if not len(arrivals):
        return
    thread = threading.Thread(target=time_keeper, daemon=True)
    thread.start()
    try:
        await all_sent.wait()
        while running:
            await asyncio.wait(running)
    finally:
        stopped.set()
        for sender in idle:
            await sender.close()
