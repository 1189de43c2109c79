"""The cache in memory: what its keys tell apart, and that it forgets as a simple model says."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays

from tfopt.errors import ConfigError, MissingExtraError
from tfopt.serving.server.prediction_cache import MemoryCache, Outputs, cache_key, entry_size_bytes, frozen_outputs


def returning(outputs: Outputs, calls: list[object] | None = None) -> Callable[[], Awaitable[Outputs]]:
    async def run() -> Outputs:
        if calls is not None:
            calls.append(outputs)
        return outputs

    return run


# Keys


@pytest.mark.parametrize("trusted", [True, False])
def test_a_key_depends_on_everything_that_a_prediction_does(trusted: bool) -> None:
    x = np.arange(6, dtype=np.int32)
    texts = np.array([b"ab", b"c"], object)
    requests = [
        ("m", 1, "s", {"x": x}),
        ("n", 1, "s", {"x": x}),
        ("m", 2, "s", {"x": x}),
        ("m", 1, "t", {"x": x}),
        ("m", 1, "s", {"y": x}),
        ("m", 1, "s", {"x": x, "y": x}),
        ("m", 1, "s", {}),
        ("m", 1, "s", {"x": x.reshape(2, 3)}),
        ("m", 1, "s", {"x": x.reshape(1, 6)}),
        ("m", 1, "s", {"x": x.view(np.uint32)}),
        ("m", 1, "s", {"x": x.view(np.float32)}),
        ("m", 1, "s", {"x": x.astype(np.int64)}),
        ("m", 1, "s", {"x": x.astype(">i4")}),
        ("m", 1, "s", {"x": x + 1}),
        ("m", 1, "s", {"x": np.zeros((0, 4), np.int32)}),
        ("m", 1, "s", {"x": np.zeros((0, 5), np.int32)}),
        ("m", 1, "s", {"x": np.float32(0.0)}),
        ("m", 1, "s", {"x": np.float32(-0.0)}),
        ("m", 1, "s", {"x": np.zeros(2, ml_dtypes.bfloat16)}),
        ("m", 1, "s", {"x": np.zeros(2, np.float16)}),
        ("m", 1, "s", {"x": np.zeros(2, ml_dtypes.float8_e5m2)}),
        ("m", 1, "s", {"x": np.zeros(2, ml_dtypes.float8_e4m3fn)}),
        ("m", 1, "s", {"x": texts}),
        ("m", 1, "s", {"x": np.array([b"a", b"bc"], object)}),
        ("m", 1, "s", {"x": np.array(["ab", "c"], object)}),
        ("m1", 1, "s", {"x": texts}),
        ("m", 11, "s", {"x": texts}),
        ("ms", 1, "", {"x": texts}),
    ]
    keys = [cache_key(*request, trusted=trusted) for request in requests]
    assert len(set(keys)) == len(requests)
    assert {len(key) for key in keys} == {16 if trusted else 32}


@given(arrays.arrays(np.float32, arrays.array_shapes(max_dims=3, max_side=5), elements=st.floats(width=32)))
def test_a_key_is_that_of_the_content_whatever_its_place_in_memory(x: np.ndarray) -> None:
    key = cache_key("m", 1, "s", {"x": x, "y": x})
    strided = np.repeat(x, 2, axis=-1)[..., ::2]
    assert cache_key("m", 1, "s", {"y": strided, "x": np.asfortranarray(x)}) == key


def test_a_nan_has_a_key_too() -> None:
    nan = {"x": np.array([np.nan, 1], np.float32)}
    assert cache_key("m", 1, "s", nan) == cache_key("m", 1, "s", {"x": nan["x"].copy()})


def test_what_is_neither_bytes_nor_text_has_no_key() -> None:
    with pytest.raises(TypeError, match=r"expected bytes or str in an object array\. Received: dict"):
        cache_key("m", 1, "s", {"x": np.array([{}], object)})


def test_without_xxhash_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xxhash", None)
    with pytest.raises(MissingExtraError, match=r"tfopt\[serving\]"):
        cache_key("m", 1, "s", {})
    assert len(cache_key("m", 1, "s", {}, trusted=False)) == 32


# What is kept


@dataclass
class Lru:
    """A cache as one would explain it: a list of entries, the one used last at the end."""

    max_bytes: int
    ttl_seconds: float
    entries: list[tuple[bytes, int, float]] = field(default_factory=list)  # key, size, when it was computed
    hits: int = 0
    misses: int = 0
    evictions: int = 0
    expirations: int = 0

    def ask(self, key: bytes, size: int, now: float) -> bool:
        self.forget(now)
        found = [entry for entry in self.entries if entry[0] == key]
        if found:
            self.hits += 1
            self.entries.remove(found[0])
            self.entries.append(found[0])
            return True
        self.misses += 1
        if size <= self.max_bytes:
            while sum(entry[1] for entry in self.entries) + size > self.max_bytes:
                self.entries.pop(0)
                self.evictions += 1
            self.entries.append((key, size, now))
        return False

    def forget(self, now: float) -> None:
        young = [entry for entry in self.entries if now - entry[2] < self.ttl_seconds]
        self.expirations += len(self.entries) - len(young)
        self.entries = young


@given(
    max_bytes=st.integers(1, 12_000),
    ttl_seconds=st.none() | st.integers(1, 12),
    requests=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3)), max_size=60),
)
def test_it_keeps_what_a_simple_model_keeps(
    max_bytes: int, ttl_seconds: int | None, requests: list[tuple[int, int]]
) -> None:
    now = 0.0
    cache = MemoryCache(max_bytes, ttl_seconds, clock=lambda: now)
    model = Lru(max_bytes, float("inf") if ttl_seconds is None else ttl_seconds)
    # Each key has outputs of its own size.
    outputs = {bytes([number]): {"y": np.full(100 * number, number, np.float32)} for number in range(8)}

    async def main() -> None:
        nonlocal now
        for number, seconds in requests:
            now += seconds
            key = bytes([number])
            calls: list[object] = []
            answer = await cache.get_or_run(key, returning(outputs[key], calls))
            np.testing.assert_array_equal(answer["y"], outputs[key]["y"])
            size = entry_size_bytes(key, frozen_outputs(outputs[key]))
            assert model.ask(key, size, now) is (calls == [])
            told = cache.statistics()
            assert told.size_bytes == sum(entry[1] for entry in model.entries) <= max_bytes
            assert told.entries == len(model.entries)
            assert (told.hits, told.misses) == (model.hits, model.misses)
            assert (told.evictions, told.expirations) == (model.evictions, model.expirations)

    asyncio.run(main())


def test_equal_requests_at_once_run_the_model_once() -> None:
    async def main() -> None:
        cache, gate, runs = MemoryCache(10**6), asyncio.Event(), 0

        async def run() -> Outputs:
            nonlocal runs
            runs += 1
            await gate.wait()
            return {"y": np.ones(3)}

        calls = [asyncio.create_task(cache.get_or_run(b"k", run)) for _ in range(64)]
        await asyncio.sleep(0)
        gate.set()
        answers = await asyncio.gather(*calls)
        assert runs == 1
        assert all(answer["y"].sum() == 3 for answer in answers)
        told = cache.statistics()
        assert (told.misses, told.shared, told.hits, told.entries) == (1, 63, 0, 1)

    asyncio.run(main())


def test_a_failed_run_is_not_kept() -> None:
    async def main() -> None:
        cache = MemoryCache(10**6)

        async def fails() -> Outputs:
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await cache.get_or_run(b"k", fails)
        assert (await cache.get_or_run(b"k", returning({"y": np.ones(1)})))["y"] == 1
        assert (cache.statistics().misses, cache.statistics().entries) == (2, 1)

    asyncio.run(main())


def test_nobody_can_change_what_others_get() -> None:
    batch = np.arange(12, dtype=np.float32).reshape(4, 3)

    async def main() -> None:
        cache = MemoryCache(10**6)
        row = {"y": batch[1:2]}
        first = await cache.get_or_run(b"k", returning(row))
        second = await cache.get_or_run(b"k", returning({}))
        batch[:] = -1  # the memory of a batch may be used again
        for answer in (first, second):
            np.testing.assert_array_equal(answer["y"], [[3, 4, 5]])
            with pytest.raises(ValueError, match="read-only"):
                answer["y"][0] = 7
            with pytest.raises(ValueError, match="WRITEABLE"):
                answer["y"].flags.writeable = True
            assert answer["y"].base.shape == (1, 3), "a row must not hold on to its batch"
        first["other"] = np.zeros(1)
        assert list(await cache.get_or_run(b"k", returning({}))) == ["y"]
        assert row["y"].flags.writeable, "the arrays of the run stay as they were"

    asyncio.run(main())


def test_texts_are_counted() -> None:
    texts = {"y": np.array([b"x" * 1000, b"y" * 1000], object)}
    assert entry_size_bytes(b"k", texts) > 2000


@pytest.mark.parametrize(("max_bytes", "ttl_seconds"), [(0, None), (-1, None), (100, 0.0), (100, float("nan"))])
def test_limits_are_above_zero(max_bytes: int, ttl_seconds: float | None) -> None:
    with pytest.raises(ConfigError, match=r"must be above zero\. Received: "):
        MemoryCache(max_bytes, ttl_seconds)


def test_closing_forgets() -> None:
    async def main() -> None:
        cache = MemoryCache(10**6)
        await cache.get_or_run(b"k", returning({"y": np.ones(1)}))
        await cache.close()
        assert (cache.statistics().entries, cache.statistics().size_bytes) == (0, 0)

    asyncio.run(main())
