"""One version of a model while it is served: its batchers, and who still needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial

from tfopt.serving.batching import BatchingParameters
from tfopt.serving.server.batcher import Batcher, BatchRecord
from tfopt.serving.server.loaded_version import LoadedVersion

__all__ = ["ServedModel"]


class ServedModel:
    """A loaded version with a batcher for each of its signatures.

    A batcher has one function and one queue: requests of different models, versions and signatures never meet.

    Args:
        version: what runs.
        batching: how; None runs each request alone. So does a signature without a batch axis.
        executor: the threads, which models share.
        on_batch: told of each batch that ran.
    """

    def __init__(
        self,
        version: LoadedVersion,
        *,
        batching: BatchingParameters | None,
        executor: Executor,
        on_batch: Callable[[BatchRecord], None] | None = None,
    ) -> None:
        self.version = version
        self._batchers = {
            name: Batcher(
                partial(version.run, name), batching if signature.batched else None, executor, on_batch=on_batch
            )
            for name, signature in version.signatures.items()
        }
        self._holders = 0
        self._released = asyncio.Event()
        self._released.set()

    def batcher(self, signature: str) -> Batcher:
        """The batcher of one of the version's signatures."""
        return self._batchers[signature]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps the version from being unloaded while a request needs it; enter it as soon as you have it."""
        self._holders += 1
        self._released.clear()
        try:
            yield
        finally:
            self._holders -= 1
            if not self._holders:
                self._released.set()

    async def drain(self) -> None:
        """Returns when nobody holds the version and all its requests are answered."""
        await self._released.wait()
        await asyncio.gather(*(batcher.drain() for batcher in self._batchers.values()))
