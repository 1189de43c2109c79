"""Requests gathered into batches and run in threads: TF Serving's rules, but no request waits for nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from tfopt.serving.batching import BatchingParameters
from tfopt.serving.server.batch_arrays import Arrays, join_rows, split_rows
from tfopt.serving.server.batch_queue import Batch, BatchQueue, Request
from tfopt.serving.server.request_error import Code, RequestError

__all__ = ["BatchRecord", "Batcher"]


@dataclass(frozen=True, kw_only=True)
class BatchRecord:
    """One batch that ran.

    Args:
        size: its rows.
        padded_size: its rows after padding.
        requests: how many requests they came from.
        queue_ms: how long each of them waited, in milliseconds.
        run_ms: how long the model took, in milliseconds.
    """

    size: int
    padded_size: int
    requests: int
    queue_ms: list[float]
    run_ms: float


class Batcher:
    """Gathers the requests of one signature into batches and runs these in threads.

    A batch starts when one of `num_batch_threads` is free and it is full or has waited `batch_timeout_micros`; or when
    no other batch of this signature runs and it has as many requests as were answered or waiting when the last one
    ended: so many clients there are, and they come back one after another, while a lone client meets no delay. Batches
    are padded to an allowed size by repeating their first row.

    Use it within one event loop; only `run` is called in other threads.

    Args:
        run: what runs a batch, and blocks; it must give each input row an output row.
        parameters: None runs every request alone.
        executor: the threads; several batchers may share them.
        on_batch: told of each batch that ran, in the event loop.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> import numpy as np
        >>> def double(inputs):
        ...     return {"y": 2 * inputs["x"]}
        >>> async def two_clients(executor):
        ...     batches = []
        ...     batcher = Batcher(double, BatchingParameters(), executor, on_batch=batches.append)
        ...     requests = [{"x": np.array([value])} for value in (1, 2)]
        ...     return await asyncio.gather(*map(batcher.submit, requests)), batches[0].size
        >>> with ThreadPoolExecutor(1) as executor:
        ...     asyncio.run(two_clients(executor))
        ([{'y': array([2])}, {'y': array([4])}], 2)

    References: TF Serving's batching guide (tensorflow_serving/batching/README.md) and TensorFlow's
    shared_batch_scheduler.h.
    """

    def __init__(
        self,
        run: Callable[[Arrays], Arrays],
        parameters: BatchingParameters | None,
        executor: Executor,
        *,
        on_batch: Callable[[BatchRecord], None] | None = None,
    ) -> None:
        self._run = run
        self._parameters = parameters
        self._executor = executor
        self._on_batch = on_batch
        self._queue = BatchQueue(parameters) if parameters else None
        self._running = 0
        self._company = 1  # requests that the last batch answered, or that waited when it ended
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        self._dispatch_planned = False

    async def submit(self, inputs: Arrays, *, deadline: float | None = None) -> Arrays:
        """Runs one request, alone or with others, and returns its outputs.

        A request that is cancelled while it waits is not run.

        Args:
            inputs: arrays with one batch size.
            deadline: the event loop's time at which the answer is of no more use; default: never.

        Raises:
            RequestError: INVALID_ARGUMENT if the request is larger than a batch, UNAVAILABLE if too many batches
                wait, DEADLINE_EXCEEDED if the deadline passes (for a request that waits, TF Serving says
                RESOURCE_EXHAUSTED, which gRPC clients do not expect of a deadline), or what `run` raised for its batch.
        """
        loop = asyncio.get_running_loop()
        if self._draining:
            raise RequestError(Code.UNAVAILABLE, "The model is being unloaded and takes no more requests")
        request = Request(inputs, loop.create_future())
        if deadline is not None and deadline <= loop.time():
            raise _expired(request)
        self._add(request, loop)
        timer = loop.call_at(deadline, self._expire, request) if deadline is not None else None
        try:
            return await request.answer
        finally:
            if timer:
                timer.cancel()
            if request.answer.cancelled() and self._queue:
                self._queue.withdraw(request)

    async def drain(self) -> None:
        """Takes no more requests, and returns when those it has are answered."""
        self._draining = True
        if self._queue:
            self._queue.close()
        self._dispatch()
        await self._idle.wait()

    def _add(self, request: Request, loop: asyncio.AbstractEventLoop) -> None:
        if self._queue is None or self._parameters is None or request.size == 0:
            batch = Batch()
            batch.add(request, 0, request.size)
            self._start(batch)
            return
        for batch in self._queue.add(request):
            batch.timer = loop.call_later(self._parameters.batch_timeout_micros / 1e6, self._ripen, batch)
        # Requests that arrived together are all here when the loop comes to it.
        if not self._dispatch_planned:
            self._dispatch_planned = True
            loop.call_soon(self._dispatch)

    def _ripen(self, batch: Batch) -> None:
        batch.ripe = True
        self._dispatch()

    def _dispatch(self) -> None:
        self._dispatch_planned = False
        if self._queue is None or self._parameters is None:
            return
        while self._running < self._parameters.num_batch_threads:
            batch = self._queue.take(unripe=not self._running and self._queue.requests >= self._company)
            if batch is None:
                return
            self._start(batch)

    def _start(self, batch: Batch) -> None:
        if batch.timer:
            batch.timer.cancel()
        self._running += 1
        self._idle.clear()
        for part in batch.parts:
            part.request.started = True
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._executor, self._run_batch, batch)
        future.add_done_callback(lambda done: self._finish(batch, done))

    def _run_batch(self, batch: Batch) -> BatchRecord | None:
        # In a thread. Who gave up before a thread was free is left out.
        parts = [part for part in batch.parts if not part.request.answer.done()]
        if not parts:
            return None
        begin = time.perf_counter()
        size = padded_size = sum(part.size for part in parts)
        if self._queue is None:  # what cannot be batched may take and give tensors without a batch axis
            inputs = parts[0].request.inputs
        else:
            padded_size = self._padded(size)
            inputs = join_rows([part.inputs() for part in parts], size=padded_size)
        joined = time.perf_counter()
        outputs = self._run(inputs)
        run_ms = (time.perf_counter() - joined) * 1e3
        if self._queue is None:
            parts[0].outputs = outputs
        else:
            rows = split_rows(outputs, [part.size for part in parts], size=padded_size)
            for part, outputs in zip(parts, rows, strict=True):
                part.outputs = outputs
        return BatchRecord(
            size=size,
            padded_size=padded_size,
            requests=len(parts),
            queue_ms=[(begin - part.request.queued_at) * 1e3 for part in parts],
            run_ms=run_ms,
        )

    def _padded(self, size: int) -> int:
        allowed = self._parameters.allowed_batch_sizes if self._parameters and size else ()
        return next((larger for larger in allowed if larger >= size), size)

    def _finish(self, batch: Batch, done: asyncio.Future[BatchRecord | None]) -> None:
        self._running -= 1
        error = RequestError(Code.UNAVAILABLE, "The server stops") if done.cancelled() else done.exception()
        for request in (part.request for part in batch.parts):
            if request.answer.done():
                continue
            if error is not None:
                request.answer.set_exception(_copied(error))
            elif (outputs := request.outputs()) is not None:
                request.answer.set_result(outputs)
        if self._queue is not None:
            self._company = len(batch.parts) + self._queue.requests
        self._dispatch()
        if not self._running and not self._queue:
            self._idle.set()
        if error is None and self._on_batch and (record := done.result()):
            self._on_batch(record)

    def _expire(self, request: Request) -> None:
        if not request.answer.done():
            if self._queue:
                self._queue.withdraw(request)
            request.answer.set_exception(_expired(request))


def _expired(request: Request) -> RequestError:
    where = "while the model was running" if request.started else "while waiting in batching queue"
    return RequestError(Code.DEADLINE_EXCEEDED, f"Run() timeout exceeded {where}")


def _copied(error: BaseException) -> RequestError:
    # One error object each: every task that raises it adds its own traceback.
    if isinstance(error, RequestError):
        return RequestError(error.code, error.message)
    return RequestError(Code.INTERNAL, f"{type(error).__name__}: {str(error) or 'no message'}")
