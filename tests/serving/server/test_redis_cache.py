"""The cache in Redis, beside a real redis-server that is slow, dies and comes back."""

import asyncio
import logging
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tfopt.errors import ConfigError, MissingExtraError
from tfopt.serving.server.prediction_cache import Outputs
from tfopt.serving.server.redis_cache import RedisCache

SERVER = shutil.which("redis-server")
needs_redis = pytest.mark.skipif(SERVER is None, reason="redis-server is not installed (Debian: redis-server)")
RETRY_SECONDS = 0.05
LONG = 5.0
"""A time-out that only a lost Redis reaches; a busy machine does not."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class RedisServer:
    """A redis-server of this test's own: nothing is written, and it ends with the test."""

    def __init__(self, folder: Path) -> None:
        self.port, self.folder = free_port(), folder
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self, *options: str) -> None:
        limits = ["--save", "", "--appendonly", "no", "--dir", str(self.folder)]
        assert SERVER is not None
        self.process = subprocess.Popen(
            [SERVER, "--port", str(self.port), "--bind", "127.0.0.1", *limits, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(500):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        raise TimeoutError("redis-server did not start")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> "RedisServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as started:
        yield started


class Model:
    """Counts its runs."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, value: float) -> Callable[[], Awaitable[Outputs]]:
        async def run() -> Outputs:
            self.runs += 1
            return {"y": np.full((2, 3), value, np.float32), "label": np.array([b"cat", b"dog"], object)}

        return run


async def written(cache: RedisCache) -> None:
    """Writes are not waited for by predictions, but by these tests."""
    while cache._writes:
        await asyncio.wait(cache._writes)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@needs_redis
def test_servers_share_what_one_computed(server: RedisServer) -> None:
    async def main() -> None:
        model = Model()
        first, second = RedisCache(server.url, timeout_seconds=LONG), RedisCache(server.url, timeout_seconds=LONG)
        computed = await first.get_or_run(b"\x00key", model(1.5))
        await written(first)
        kept = await second.get_or_run(b"\x00key", model(-1))
        assert model.runs == 1
        for outputs in (computed, kept):
            np.testing.assert_array_equal(outputs["y"], np.full((2, 3), 1.5, np.float32))
            assert outputs["y"].dtype == np.float32
            assert outputs["label"].tolist() == [b"cat", b"dog"]
            with pytest.raises(ValueError, match="read-only"):
                outputs["y"][0] = 0
            with pytest.raises(ValueError, match="WRITEABLE"):
                outputs["y"].flags.writeable = True
        assert (first.statistics().hits, first.statistics().misses) == (0, 1)
        assert (second.statistics().hits, second.statistics().misses) == (1, 0)
        other = RedisCache(server.url, timeout_seconds=LONG, prefix="other:")
        await other.get_or_run(b"\x00key", model(2))
        assert model.runs == 2
        for cache in (first, second, other):
            await cache.close()

    asyncio.run(main())


@needs_redis
def test_equal_requests_at_once_run_the_model_once(server: RedisServer) -> None:
    async def main() -> None:
        model, cache = Model(), RedisCache(server.url, timeout_seconds=LONG)
        await asyncio.gather(*(cache.get_or_run(b"key", model(1)) for _ in range(64)))
        assert model.runs == 1
        assert cache.statistics().shared == 63
        await cache.close()

    asyncio.run(main())


@needs_redis
def test_many_different_requests_at_once(server: RedisServer) -> None:
    async def main() -> None:
        model, cache = Model(), RedisCache(server.url, timeout_seconds=LONG)
        for _ in range(2):
            keys = [b"%d" % number for number in range(50)]
            answers = await asyncio.gather(*(cache.get_or_run(key, model(int(key))) for key in keys))
            assert [answer["y"][0, 0] for answer in answers] == list(range(50))
            await written(cache)
        assert model.runs == 50
        assert cache.statistics().hits == 50
        await cache.close()

    asyncio.run(main())


@needs_redis
def test_a_prediction_is_used_as_long_as_asked(server: RedisServer) -> None:
    async def main() -> None:
        model, cache = Model(), RedisCache(server.url, ttl_seconds=0.05, timeout_seconds=LONG)
        await cache.get_or_run(b"key", model(1))
        await written(cache)
        await asyncio.sleep(0.1)
        await cache.get_or_run(b"key", model(2))
        assert model.runs == 2
        await cache.close()

    asyncio.run(main())


@needs_redis
def test_a_redis_killed_mid_run_is_told_once_and_used_again(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        model = Model()
        cache = RedisCache(server.url, timeout_seconds=LONG, retry_seconds=RETRY_SECONDS)
        await cache.get_or_run(b"key", model(1))
        server.kill()
        for number in range(20):
            answers = await asyncio.gather(*(cache.get_or_run(b"%d %d" % (number, i), model(i)) for i in range(4)))
            assert [answer["y"][0, 0] for answer in answers] == [0, 1, 2, 3]
        await asyncio.sleep(3 * RETRY_SECONDS)
        assert cache.is_lost
        lost = [record for record in caplog.records if "is lost" in record.message]
        assert len(lost) == 1
        assert "predictions are computed until it answers again" in lost[0].message

        server.start()
        await until(lambda: not cache.is_lost)
        assert [record.message for record in caplog.records][-1].endswith("is used again.")
        runs = model.runs
        for _ in range(2):
            await cache.get_or_run(b"after", model(5))
            await written(cache)
        assert model.runs == runs + 1
        await cache.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())


@needs_redis
def test_a_slow_redis_stalls_no_prediction(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        model = Model()
        cache = RedisCache(server.url, timeout_seconds=0.02, retry_seconds=RETRY_SECONDS)
        server.process.send_signal(signal.SIGSTOP)  # it accepts connections and never answers
        begin = time.monotonic()
        for number in range(200):
            assert (await cache.get_or_run(b"%d" % number, model(number)))["y"][0, 0] == number
        # Three time-outs of 20 ms and no more; without giving up it would be four seconds.
        assert time.monotonic() - begin < 2
        assert cache.is_lost
        assert [record.message for record in caplog.records if "no answer within 0.02 s" in record.message]
        server.process.send_signal(signal.SIGCONT)
        await until(lambda: not cache.is_lost)
        await cache.close()

    asyncio.run(main())


@needs_redis
def test_a_moment_in_which_this_process_is_busy_does_not_lose_redis(server: RedisServer) -> None:
    async def main() -> None:
        model, cache = Model(), RedisCache(server.url, timeout_seconds=0.5)
        await asyncio.gather(*(cache.get_or_run(b"%d" % number, model(1)) for number in range(30)))
        await written(cache)
        calls = [asyncio.create_task(cache.get_or_run(b"%d" % number, model(2))) for number in range(30)]
        await asyncio.sleep(0)
        time.sleep(0.6)  # every one of them is late now, at once
        await asyncio.gather(*calls)
        assert not cache.is_lost
        await cache.close()

    asyncio.run(main())


@needs_redis
def test_a_redis_that_is_full_is_no_error_of_a_prediction(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        server.kill()
        server.start("--maxmemory", "1", "--maxmemory-policy", "noeviction")
        model, cache = Model(), RedisCache(server.url, timeout_seconds=LONG)
        assert (await cache.get_or_run(b"key", model(3)))["y"][0, 0] == 3
        await written(cache)
        assert cache.is_lost
        assert "maxmemory" in caplog.text
        await cache.close()

    asyncio.run(main())


@needs_redis
def test_what_somebody_else_wrote_is_not_an_answer(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    from redis.asyncio import Redis

    async def main() -> None:
        model, cache = Model(), RedisCache(server.url, timeout_seconds=LONG)
        await cache.get_or_run(b"one", model(1))
        await written(cache)
        async with Redis.from_url(server.url) as redis:
            whole = await redis.get("tfopt:prediction:one")
            for content, message in ((whole, "it belongs to another key"), (b"junk", "does not begin as expected")):
                await redis.set("tfopt:prediction:two", content)
                assert (await cache.get_or_run(b"two", model(2)))["y"][0, 0] == 2
                assert message in caplog.text
                await written(cache)
        assert (cache.statistics().errors, cache.is_lost) == (2, False)
        await cache.close()

    asyncio.run(main())


def test_an_absent_redis_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        model, cache = Model(), RedisCache(f"redis://:secret@127.0.0.1:{free_port()}/0", timeout_seconds=LONG)
        for number in range(3):
            assert (await cache.get_or_run(b"%d" % number, model(number)))["y"][0, 0] == number
        assert cache.is_lost
        await cache.close()

    asyncio.run(main())
    assert len(caplog.records) == 1
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("localhost:6379", {}, "must begin with redis://, rediss:// or unix://. Received: 'localhost:6379'"),
        ("http://user:secret@host", {}, "Received: 'host'"),
        ("redis://host:port", {}, "url must be one that Redis's client understands"),
        ("redis://host", {"ttl_seconds": 0}, "ttl_seconds must be above zero. Received: 0"),
        ("redis://host", {"timeout_seconds": -1}, "timeout_seconds must be above zero. Received: -1"),
        ("redis://host", {"retry_seconds": 0}, "retry_seconds must be above zero. Received: 0"),
    ],
)
def test_what_is_not_usable_is_refused(url: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        RedisCache(url, **options)


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(MissingExtraError, match=r"tfopt\[serving\]"):
        RedisCache("redis://host")
