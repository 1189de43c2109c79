import gc
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfopt.benchmark.protocol import measure


@pytest.fixture(scope="module", autouse=True)
def no_collection():
    """Each timing collects garbage first, which after other tests takes seconds and here matters to none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "collect", lambda: 0)
        yield


class Clock:
    """Time that passes only by calling a candidate."""

    def __init__(self):
        self.now = 0
        self.log = []

    def __call__(self):
        return self.now

    def candidate(self, name, durations_ns):
        durations = iter(durations_ns) if not isinstance(durations_ns, int) else None

        def call():
            self.log.append(name)
            self.now += durations_ns if durations is None else next(durations)

        return call


def test_a_constant_call_has_its_own_time_as_every_percentile():
    clock = Clock()
    timing = measure({"a": clock.candidate("a", 2_000_000)}, repeats=40, seconds=0, clock=clock)["a"]
    assert (timing.p50_ms, timing.p90_ms, timing.p99_ms) == (2.0, 2.0, 2.0)
    assert timing.throughput_per_second == pytest.approx(500)
    assert timing.repeats == 40
    assert timing.settled


def test_warm_up_ends_when_two_windows_agree_and_is_not_recorded():
    clock = Clock()
    falling = [10**9 // (i + 1) for i in range(20)] + [1_000_000] * 1000
    timing = measure({"a": clock.candidate("a", falling)}, repeats=20, seconds=0, warmup_seconds=100, clock=clock)["a"]
    assert timing.settled
    assert timing.warmup_calls >= 25
    assert timing.p99_ms == 1.0


def test_warm_up_that_does_not_settle_ends_in_time_and_says_so():
    clock = Clock()
    growing = (1_000_000 * 2**i for i in range(60))
    timing = measure({"a": clock.candidate("a", growing)}, repeats=1, seconds=0, warmup_seconds=1, clock=clock)["a"]
    assert not timing.settled


def test_candidates_take_turns_and_each_begins_a_round():
    clock = Clock()
    names = ["a", "b", "c"]
    measure({name: clock.candidate(name, 1000) for name in names}, repeats=30, seconds=0, clock=clock)
    recorded = clock.log[30:]  # ten calls of warm-up each
    turns = [recorded[0]] + [after for before, after in pairwise(recorded) if before != after]
    # The last of a round may begin the next one: then its two turns look like one.
    assert turns[:7] == ["a", "b", "c", "b", "c", "a", "c"]
    assert set(Counter(recorded).values()) == {30 + 2 * 10}


def test_slow_and_fast_candidates_are_both_recorded_for_the_time_asked_for():
    clock = Clock()
    calls = {"slow": clock.candidate("slow", 10_000_000), "fast": clock.candidate("fast", 1_000_000)}
    timings = measure(calls, repeats=10, seconds=0.5, clock=clock)
    assert timings["slow"].repeats == 50
    assert timings["fast"].repeats == 500


@given(st.lists(st.integers(1_000, 10**7), min_size=60, max_size=60))
def test_statistics_are_those_of_the_recorded_calls(durations):
    clock = Clock()
    call = clock.candidate("a", [1000] * 12 + durations)
    timing = measure({"a": call}, repeats=1, seconds=0, clock=clock)["a"]
    assert timing.repeats == 1
    assert timing.p50_ms == timing.p99_ms == durations[0] / 1e6
    clock = Clock()
    warmup = [1000] * 10
    blocks = [value for i in range(0, 60, 6) for value in (1000, 1000, *durations[i : i + 6])]
    timing = measure({"a": clock.candidate("a", warmup + blocks)}, repeats=60, seconds=0, clock=clock)["a"]
    assert timing.p50_ms <= timing.p90_ms <= timing.p99_ms <= max(durations) / 1e6
    assert timing.p90_ms == pytest.approx(np.percentile(durations, 90) / 1e6)
    assert timing.throughput_per_second == pytest.approx(60 / (sum(durations) / 1e9))


def test_the_garbage_collector_is_off_while_timing_and_on_again_after_an_error():
    seen = []

    def fail():
        seen.append(gc.isenabled())
        raise RuntimeError("broken")

    assert gc.isenabled()
    with pytest.raises(RuntimeError, match="broken"):
        measure({"a": fail})
    assert seen == [False]
    assert gc.isenabled()


def test_progress_rises_to_one():
    fractions = []
    measure({"a": int, "b": int}, repeats=20, seconds=0, on_progress=fractions.append)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
