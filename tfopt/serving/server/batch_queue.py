"""Which waiting requests share a batch, by the rules of TF Serving's scheduler; no clock, no threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable
from dataclasses import dataclass, field

from tfopt.serving.batching import BatchingParameters
from tfopt.serving.server.batch_arrays import Arrays, join_rows
from tfopt.serving.server.request_error import Code, RequestError

__all__ = ["Batch", "BatchQueue", "Part", "Request"]


@dataclass(eq=False)
class Request:
    """One request, from its arrival to its answer.

    Args:
        inputs: arrays with one batch size.
        answer: done when somebody has the answer, or no longer wants it.
        queued_at: when it arrived, on the clock `time.perf_counter`.
        parts: where its rows are; one part, unless it is split.
        started: whether a thread was given any of them.
    """

    inputs: Arrays
    answer: asyncio.Future[Arrays]
    queued_at: float = field(default_factory=time.perf_counter)
    parts: list[Part] = field(default_factory=list)
    started: bool = False

    @property
    def size(self) -> int:
        """Its rows; 1 where the inputs have no batch axis."""
        return next((len(array) for array in self.inputs.values() if array.ndim), 1)

    def outputs(self) -> Arrays | None:
        """The outputs of all its parts; None while one is missing."""
        blocks = [part.outputs for part in self.parts if part.outputs is not None]
        if len(blocks) < len(self.parts):
            return None
        return blocks[0] if len(blocks) == 1 else join_rows(blocks, size=self.size)


@dataclass(eq=False)
class Part:
    """Consecutive rows of a request, from `start` to before `stop`, and what came out for them."""

    request: Request
    start: int
    stop: int
    outputs: Arrays | None = None

    @property
    def size(self) -> int:
        """Its rows."""
        return self.stop - self.start

    def inputs(self) -> Arrays:
        """Its rows of the request's arrays."""
        return {name: array[self.start : self.stop] for name, array in self.request.inputs.items()}


@dataclass(eq=False)
class Batch:
    """Parts that run together.

    Args:
        key: what the rows of a batch have in common: names, dtypes, shapes.
        size: rows.
        ripe: whether it need not wait for more: it is full, or the next request did not fit, or it waited enough.
        timer: what will make it ripe.
    """

    key: Hashable = None
    parts: list[Part] = field(default_factory=list)
    size: int = 0
    ripe: bool = False
    timer: asyncio.TimerHandle | None = None

    def add(self, request: Request, start: int, stop: int) -> None:
        """Adds rows of a request."""
        part = Part(request, start, stop)
        request.parts.append(part)
        self.parts.append(part)
        self.size += part.size


class BatchQueue:
    """The batches that wait, in the order in which they were begun.

    Only rows of one shape and dtype share a batch, except under `pad_variable_length_inputs`. A request that does
    not fit into the last batch of its kind begins a new one, or fills it and goes on in new ones where large batches
    are split.

    Args:
        parameters: the rules.

    Example:
        >>> import numpy as np
        >>> async def batch_sizes():
        ...     rules = BatchingParameters(max_batch_size=4, max_enqueued_batches=2, allowed_batch_sizes=())
        ...     queue = BatchQueue(rules)
        ...     for rows in (3, 1, 2):
        ...         queue.add(Request({"x": np.zeros((rows, 5))}, asyncio.get_running_loop().create_future()))
        ...     return [queue.take(unripe=True).size for _ in range(len(queue))]
        >>> asyncio.run(batch_sizes())
        [4, 2]

    References: TensorFlow's core/kernels/batching_util/shared_batch_scheduler.h.
    """

    def __init__(self, parameters: BatchingParameters) -> None:
        self._parameters = parameters
        self._batches: list[Batch] = []
        self._open: dict[Hashable, Batch] = {}  # those that take further rows

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def requests(self) -> int:
        """How many requests wait; one that is split counts in each batch it is in."""
        return sum(len(batch.parts) for batch in self._batches)

    def add(self, request: Request) -> list[Batch]:
        """Adds a request, and returns the batches that it begins.

        Raises:
            RequestError: INVALID_ARGUMENT if it is larger than a batch, UNAVAILABLE if too many batches wait.
        """
        parameters, size = self._parameters, request.size
        if size > parameters.max_batch_size:
            raise RequestError(
                Code.INVALID_ARGUMENT,
                f"Task size {size} is larger than maximum input batch size {parameters.max_batch_size}",
            )
        key, largest = self._key(request), parameters.execution_batch_size
        batch = self._open.get(key)
        room = largest - batch.size if batch else 0
        taken = min(room, size) if parameters.enable_large_batch_splitting or room >= size else 0
        starts = range(taken, size, largest)
        if starts and len(self) + len(starts) > parameters.max_enqueued_batches:
            raise RequestError(
                Code.UNAVAILABLE,
                "The batch scheduling queue to which this task was submitted is full; currently "
                f"{len(self)} batches enqueued and max_enqueued_batches is {parameters.max_enqueued_batches}",
            )
        if batch and taken:
            batch.add(request, 0, taken)
        begun = []
        for start in starts:
            self._close(key)
            batch = self._open[key] = Batch(key)
            batch.add(request, start, min(start + largest, size))
            begun.append(batch)
        self._batches += begun
        if batch and batch.size == largest:
            batch.ripe = True  # but open: a request may be withdrawn from it
        return begun

    def take(self, *, unripe: bool) -> Batch | None:
        """Removes and returns the first batch that is ripe, or else, if `unripe`, the first one; None without."""
        batch = next((batch for batch in self._batches if batch.ripe or unripe), None)
        if batch:
            self._remove(batch)
        return batch

    def withdraw(self, request: Request) -> None:
        """Removes what waits of a request."""
        for part in request.parts:
            for batch in self._batches:
                if part in batch.parts:
                    batch.parts.remove(part)
                    batch.size -= part.size
        for batch in [batch for batch in self._batches if not batch.parts]:
            self._remove(batch)

    def close(self) -> None:
        """Makes every batch ripe."""
        for batch in self._batches:
            batch.ripe = True

    def _key(self, request: Request) -> Hashable:
        # Padding makes lengths equal, never ranks.
        padded = self._parameters.pad_variable_length_inputs
        arrays = request.inputs.items()
        return tuple((name, array.dtype, array.ndim if padded else array.shape[1:]) for name, array in arrays)

    def _close(self, key: Hashable) -> None:
        if batch := self._open.pop(key, None):
            batch.ripe = True

    def _remove(self, batch: Batch) -> None:
        self._batches.remove(batch)
        if self._open.get(batch.key) is batch:
            del self._open[batch.key]
