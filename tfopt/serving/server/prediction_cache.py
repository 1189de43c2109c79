"""Predictions kept in memory: what is asked again is answered without running the model."""

from __future__ import annotations

import hashlib
import math
import struct
import sys
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from tfopt.errors import ConfigError, MissingExtraError
from tfopt.serving.server.single_flight import SingleFlight

__all__ = ["CacheStatistics", "MemoryCache", "Outputs", "PredictionCache", "cache_key", "frozen_outputs"]

Outputs = dict[str, np.ndarray]
ENTRY_OVERHEAD_BYTES = 520
"""Of the tables that hold an entry, measured with tracemalloc; the key and the arrays are counted by themselves."""


@dataclass(frozen=True, kw_only=True)
class CacheStatistics:
    """What a cache has done since it was made.

    Args:
        hits: predictions that were answered from the cache.
        shared: predictions that were answered by a run which another request had started.
        misses: runs of the model.
        evictions: entries that gave way to others.
        expirations: entries that became too old.
        errors: failed reads and writes of a cache outside this process.
        entries: how many there are now; None where that is not known.
        size_bytes: what they take; None where that is not known.
    """

    hits: int = 0
    shared: int = 0
    misses: int = 0
    evictions: int = 0
    expirations: int = 0
    errors: int = 0
    entries: int | None = None
    size_bytes: int | None = None


class PredictionCache(Protocol):
    """What `MemoryCache` and `tfopt.serving.server.redis_cache.RedisCache` offer."""

    async def get_or_run(self, key: bytes, run: Callable[[], Awaitable[Outputs]]) -> Outputs:
        """Returns the outputs kept under a key, or those of `run`, which is called once for equal requests."""

    def statistics(self) -> CacheStatistics:
        """What the cache has done so far."""

    async def close(self) -> None:
        """Lets go of connections, if there are any."""


def cache_key(
    name: str, version: int, signature: str, inputs: Mapping[str, np.ndarray], *, trusted: bool = True
) -> bytes:
    """A digest of all that a prediction depends on: model, version, signature, and every input to the last bit.

    Args:
        name: the model's name.
        version: its version, the number rather than a label, which may move.
        signature: its signature.
        inputs: arrays by name, in any order and memory layout. Elements of object arrays are bytes or str.
        trusted: whether callers trust each other. xxh3_128 is fast, but somebody who wants two requests with one key
            can make them, and give others a wrong answer; BLAKE2b does not allow it, at about a nanosecond a byte.

    Returns:
        16 bytes, or 32 where callers are not trusted.

    Raises:
        MissingExtraError: if xxhash is needed and not installed.
        TypeError: if an object array holds something else.

    Example:
        >>> x = np.arange(4, dtype=np.float32)
        >>> same = cache_key("m", 1, "serving_default", {"x": x})
        >>> cache_key("m", 1, "serving_default", {"x": x.copy()}) == same
        True
        >>> cache_key("m", 1, "serving_default", {"x": x.reshape(2, 2)}) == same
        False

    References: github.com/Cyan4973/xxHash; RFC 7693 (BLAKE2).
    """
    digest: Any = _fast_digest() if trusted else hashlib.blake2b(digest_size=32)
    # Every part is preceded by its length, so that no two requests have the same bytes in a row.
    _add(digest, (name.encode(), b"%d" % version, signature.encode()))
    for input_name in sorted(inputs):
        array = np.asarray(inputs[input_name])
        _add(digest, (input_name.encode(), _dtype_code(array.dtype), b"%r" % (array.shape,)))
        if array.dtype.hasobject:
            _add(digest, map(_text_bytes, array.flat))
        else:
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    result: bytes = digest.digest()
    return result


def frozen_outputs(outputs: Outputs) -> Outputs:
    """Copies outputs so that they cannot be written to, and hold on to nothing larger, such as a whole batch."""
    frozen = {}
    for name, array in outputs.items():
        frozen[name] = np.array(array, copy=True, order="C")
        frozen[name].flags.writeable = False
    return frozen


class MemoryCache:
    """Keeps the predictions that were asked for last, up to a size, in the memory of this process.

    Use it where requests repeat and the model gives the same answer to the same input. Requests that are equal and
    arrive while the model runs share that run. It belongs to one event loop. Outputs are read-only, since several
    callers get the same ones.

    Args:
        max_bytes: what the entries may take together. The one that was not asked for longest gives way.
        ttl_seconds: how long an entry is used after it was computed; None for always. A prediction depends on the
            model's version, which never changes: give it where the model reads something else.
        clock: the time in seconds, never going backwards.

    Raises:
        ConfigError: if a limit is not above zero.

    Example:
        >>> import asyncio
        >>> async def run():
        ...     print("running the model")
        ...     return {"y": np.ones(2)}
        >>> async def ask_twice(cache):
        ...     for _ in range(2):
        ...         outputs = await cache.get_or_run(b"key", run)
        ...     return cache.statistics().hits, outputs["y"].flags.writeable
        >>> asyncio.run(ask_twice(MemoryCache(1_000_000)))
        running the model
        (1, False)
    """

    def __init__(
        self, max_bytes: int, ttl_seconds: float | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        for name, limit in (("max_bytes", max_bytes), ("ttl_seconds", ttl_seconds)):
            if limit is not None and not limit > 0:
                raise ConfigError(f"MemoryCache: {name} must be above zero. Received: {limit!r}.")
        self._max_bytes = max_bytes
        self._ttl_seconds = math.inf if ttl_seconds is None else ttl_seconds
        self._clock = clock
        self._flights: SingleFlight[Outputs] = SingleFlight()
        # Least recently used first; and oldest first, which is another order.
        self._entries: OrderedDict[bytes, tuple[Outputs, int]] = OrderedDict()
        self._computed: OrderedDict[bytes, float] = OrderedDict()
        self._size_bytes = 0
        self._hits = self._misses = self._evictions = self._expirations = 0

    async def get_or_run(self, key: bytes, run: Callable[[], Awaitable[Outputs]]) -> Outputs:
        """Returns the outputs kept under a key, or those of `run`.

        Args:
            key: of `cache_key`.
            run: computes the outputs. It is called at most once; a run that fails is not kept.

        Returns:
            The outputs by name, read-only.

        Raises:
            Exception: what this caller's own `run` raises.
        """
        self._drop_expired()
        entry = self._entries.get(key)
        if entry is not None:
            self._hits += 1
            self._entries.move_to_end(key)
            outputs = entry[0]
        else:
            outputs = await self._flights.run(key, lambda: self._run_and_keep(key, run))
        # Views, whose flag a caller cannot set back.
        return {name: array.view() for name, array in outputs.items()}

    def statistics(self) -> CacheStatistics:
        """What the cache has done so far, and what it holds."""
        self._drop_expired()
        return CacheStatistics(
            hits=self._hits,
            shared=self._flights.shared,
            misses=self._misses,
            evictions=self._evictions,
            expirations=self._expirations,
            entries=len(self._entries),
            size_bytes=self._size_bytes,
        )

    async def close(self) -> None:
        """Forgets every entry."""
        self._entries.clear()
        self._computed.clear()
        self._size_bytes = 0

    async def _run_and_keep(self, key: bytes, run: Callable[[], Awaitable[Outputs]]) -> Outputs:
        self._misses += 1
        outputs = frozen_outputs(await run())
        size_bytes = entry_size_bytes(key, outputs)
        if size_bytes <= self._max_bytes:
            self._drop_expired()
            self._remove(key)  # two runs end one after the other where a shared one failed
            while self._size_bytes + size_bytes > self._max_bytes:
                self._remove(next(iter(self._entries)))
                self._evictions += 1
            self._entries[key] = outputs, size_bytes
            self._computed[key] = self._clock()
            self._size_bytes += size_bytes
        return outputs

    def _drop_expired(self) -> None:
        now = self._clock()
        while self._computed:
            key, computed = next(iter(self._computed.items()))
            if now - computed < self._ttl_seconds:
                return
            self._remove(key)
            self._expirations += 1

    def _remove(self, key: bytes) -> None:
        if key in self._entries:
            self._size_bytes -= self._entries.pop(key)[1]
            del self._computed[key]


def entry_size_bytes(key: bytes, outputs: Outputs) -> int:
    """The memory that an entry takes, nearly."""
    arrays = sum(sys.getsizeof(array) for array in outputs.values())
    texts = sum(sys.getsizeof(item) for array in outputs.values() if array.dtype.hasobject for item in array.flat)
    return ENTRY_OVERHEAD_BYTES + sys.getsizeof(key) + arrays + texts


def _add(digest: Any, parts: Iterable[bytes]) -> None:
    for part in parts:
        digest.update(struct.pack("<Q", len(part)))
        digest.update(part)


@lru_cache
def _dtype_code(dtype: np.dtype) -> bytes:
    return f"{dtype.name} {dtype.str}".encode()  # bfloat16 and its kin differ by name only


def _text_bytes(item: object) -> bytes:
    if isinstance(item, bytes):
        return b"b" + item
    if isinstance(item, str):
        return b"s" + item.encode("utf-8", "surrogatepass")
    raise TypeError(f"cache_key: expected bytes or str in an object array. Received: {type(item).__name__}.")


def _fast_digest() -> Any:
    try:
        from xxhash import xxh3_128
    except ImportError:
        raise MissingExtraError("The prediction cache", extra="serving") from None
    return xxh3_128()
