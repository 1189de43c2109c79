"""Predictions kept in a Redis that several servers share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from tfopt.errors import ConfigError, DataError, MissingExtraError
from tfopt.serving.server.array_bytes import from_bytes, to_bytes
from tfopt.serving.server.prediction_cache import CacheStatistics, Outputs, frozen_outputs
from tfopt.serving.server.single_flight import SingleFlight

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["RedisCache"]

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 32
MAX_WRITES = 64
"""That may be under way; predictions beyond them are not kept."""
LARGEST_VALUE_BYTES = 4 * 1024**2
"""Reading a larger one takes longer than a short time-out."""
TIMEOUTS_IN_A_ROW = 3
"""After which Redis is given up for a while. One alone may come from a moment in which this process was busy."""


class RedisCache:
    """Keeps predictions in a Redis, for all servers that use it and beyond their end.

    Use it where several replicas of a server answer the same requests. Redis is never needed for an answer: a read
    waits `timeout_seconds` at most, writes are not waited for, and a Redis that is lost, slow or full is given up,
    with one warning through `logging`, until it answers again. Redis itself bounds the size: set its `maxmemory`, and
    `maxmemory-policy allkeys-lru`.

    Values are arrays in a format without pickle, and hold the key that they belong to. Who can write to the Redis can
    still choose the answers: give it to servers only. Servers that share it must mean the same model by one name and
    version; give others another `prefix`.

    Args:
        url: such as `redis://host:6379/0`, `rediss://...` (TLS) or `unix://path`.
        ttl_seconds: how long a prediction is used; None for as long as Redis keeps it.
        timeout_seconds: how long a prediction waits for Redis.
        retry_seconds: pause between attempts to reach a lost Redis; they are made beside the predictions.
        prefix: of every key.

    Raises:
        ConfigError: if the URL or a limit is not usable. That nobody answers there is no error.
        MissingExtraError: if the client of Redis is not installed.

    Example:
        >>> RedisCache("http://localhost")
        Traceback (most recent call last):
        ...
        tfopt.errors.ConfigError: RedisCache: url must begin with redis://, rediss:// or unix://. \
Received: 'http://localhost'.

    References: redis.io/docs/latest/commands/set; redis.io/docs/latest/develop/reference/eviction.
    """

    def __init__(
        self,
        url: str,
        ttl_seconds: float | None = None,
        *,
        timeout_seconds: float = 0.05,
        retry_seconds: float = 5.0,
        prefix: str = "tfopt:prediction:",
    ) -> None:
        limits = {"ttl_seconds": ttl_seconds, "timeout_seconds": timeout_seconds, "retry_seconds": retry_seconds}
        for name, limit in limits.items():
            if limit is not None and not limit > 0:
                raise ConfigError(f"RedisCache: {name} must be above zero. Received: {limit!r}.")
        self._ttl_ms = None if ttl_seconds is None else max(1, round(1000 * ttl_seconds))
        self._timeout_seconds = timeout_seconds
        self._retry_seconds = retry_seconds
        self._prefix = prefix.encode()
        self._redis, self._address, self._failures = _client(url)
        self._flights: SingleFlight[Outputs] = SingleFlight()
        self._writes: set[asyncio.Task[None]] = set()
        self._reconnecting: asyncio.Task[None] | None = None
        self._timeouts = 0
        self._last_timeout = 0.0
        self._hits = self._misses = self._errors = 0

    @property
    def is_lost(self) -> bool:
        """Whether Redis has been given up for now, so that every prediction is computed."""
        return self._reconnecting is not None

    async def get_or_run(self, key: bytes, run: Callable[[], Awaitable[Outputs]]) -> Outputs:
        """Returns the outputs kept under a key, or those of `run`.

        Args:
            key: of `tfopt.serving.server.prediction_cache.cache_key`.
            run: computes the outputs. It is called at most once; a run that fails is not kept.

        Returns:
            The outputs by name, read-only.

        Raises:
            Exception: what this caller's own `run` raises; never what Redis does.
        """
        outputs = await self._flights.run(key, lambda: self._read_or_run(key, run))
        # Views, whose flag a caller cannot set back.
        return {name: array.view() for name, array in outputs.items()}

    def statistics(self) -> CacheStatistics:
        """What this server has had from the cache; how full it is, Redis knows."""
        return CacheStatistics(hits=self._hits, shared=self._flights.shared, misses=self._misses, errors=self._errors)

    async def close(self) -> None:
        """Waits for the last writes, no longer than their time-out, and closes the connections."""
        if self._reconnecting is not None:
            self._reconnecting.cancel()
        await asyncio.gather(*self._writes, *filter(None, [self._reconnecting]), return_exceptions=True)
        await self._redis.aclose()

    async def _read_or_run(self, key: bytes, run: Callable[[], Awaitable[Outputs]]) -> Outputs:
        kept = await self._read(key)
        if kept is not None:
            self._hits += 1
            return kept
        self._misses += 1
        outputs = frozen_outputs(await run())
        if not self.is_lost and len(self._writes) < MAX_WRITES:
            write = asyncio.create_task(self._write(key, outputs))
            self._writes.add(write)
            write.add_done_callback(self._writes.discard)
        return outputs

    async def _read(self, key: bytes) -> Outputs | None:
        content = await self._ask(lambda: self._redis.get(self._prefix + key))
        if content is None:
            return None
        try:
            return from_bytes(content, tag=key)
        except DataError as error:
            self._errors += 1
            logger.warning("The prediction cache in Redis at %s holds something else: %s", self._address, error)
            return None

    async def _write(self, key: bytes, outputs: Outputs) -> None:
        content = to_bytes(outputs, tag=key)
        if len(content) <= LARGEST_VALUE_BYTES:
            await self._ask(lambda: self._redis.set(self._prefix + key, content, px=self._ttl_ms))

    async def _ask(self, command: Callable[[], Awaitable[Any]]) -> Any:
        """The answer of Redis; None where there is none in time."""
        if self.is_lost:
            return None
        clock = asyncio.get_running_loop().time
        begin = clock()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                answer = await command()
        except self._failures as error:
            self._errors += 1
            if begin >= self._last_timeout:  # those that waited together count as one
                self._timeouts += 1
                self._last_timeout = clock()
            if not isinstance(error, TimeoutError) or self._timeouts >= TIMEOUTS_IN_A_ROW:
                self._give_up(error)
            return None
        self._timeouts = 0
        return answer

    def _give_up(self, error: Exception) -> None:
        if self.is_lost:  # another request has just found out
            return
        logger.warning(
            "The prediction cache in Redis at %s is lost (%s); predictions are computed until it answers again.",
            self._address,
            str(error) or f"no answer within {self._timeout_seconds:g} s",
        )
        self._reconnecting = asyncio.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        while True:
            await asyncio.sleep(self._retry_seconds)
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    await self._redis.ping()
            except self._failures:
                continue
            self._timeouts = 0
            self._reconnecting = None
            logger.warning("The prediction cache in Redis at %s is used again.", self._address)
            return


def _client(url: str) -> tuple[Redis, str, tuple[type[Exception], ...]]:
    """The client, the address as messages show it, without a password, and what counts as a failure."""
    try:
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError
    except ImportError:
        raise MissingExtraError("A prediction cache in Redis", extra="serving") from None
    if not isinstance(url, str) or not url.startswith(("redis://", "rediss://", "unix://")):
        # What stands before an @ may be a password.
        shown = url.rsplit("@", 1)[-1] if isinstance(url, str) else url
        raise ConfigError(f"RedisCache: url must begin with redis://, rediss:// or unix://. Received: {shown!r}.")
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            # One time-out for all of it, with nothing tried again within: the one of `_ask`.
            timeout=None,
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise ConfigError(f"RedisCache: url must be one that Redis's client understands. Received: {error}.") from None
    known = pool.connection_kwargs
    address = str(known["path"]) if "path" in known else f"{known.get('host', 'localhost')}:{known.get('port', 6379)}"
    return Redis.from_pool(pool), address, (RedisError, OSError, TimeoutError)
