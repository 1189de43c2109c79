import gc
import os
from collections import Counter

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


def test_candidates_take_turns_and_each_comes_after_each_of_the_others():
    clock = Clock()
    names = ["a", "b", "c"]
    measure({name: clock.candidate(name, 1000) for name in names}, repeats=20, seconds=0, clock=clock)
    recorded = clock.log[30:]  # ten calls of warm-up each
    turns = recorded[::3]  # one recorded call a turn, after two that are not
    assert recorded == [name for name in turns for _ in range(3)]
    rounds = ["".join(turns[begin : begin + 3]) for begin in range(0, 60, 3)]
    assert rounds[:6] == ["abc", "cba", "bca", "acb", "cab", "bac"]
    assert Counter(turns) == dict.fromkeys(names, 20)


@pytest.mark.parametrize("repeats", [1, 7, 20, 33, 100])
def test_as_many_calls_are_recorded_as_asked_for_spread_over_the_rounds(repeats):
    clock = Clock()
    timing = measure({"a": clock.candidate("a", 1000)}, repeats=repeats, seconds=0, clock=clock)["a"]
    assert timing.repeats == repeats
    assert len(timing.round_medians_ms) == min(20, repeats)


def test_slow_and_fast_candidates_are_both_recorded_for_the_time_asked_for():
    clock = Clock()
    calls = {"slow": clock.candidate("slow", 10_000_000), "fast": clock.candidate("fast", 1_000_000)}
    timings = measure(calls, repeats=10, seconds=0.5, clock=clock)
    assert timings["slow"].repeats == 50
    assert timings["fast"].repeats == 500


def test_a_stall_costs_other_rounds_nothing():
    clock = Clock()
    durations = [1_000_000] * 10 + [1_000_000, 1_000_000, 500_000_000] + [1_000_000] * 3000
    timing = measure({"a": clock.candidate("a", durations)}, repeats=20, seconds=0.1, clock=clock)["a"]
    assert len(timing.round_medians_ms) == 20
    assert timing.round_medians_ms[0] == 500
    assert set(timing.round_medians_ms[1:]) == {1.0}
    assert timing.p50_ms == 1.0
    assert 0 < timing.outliers < 0.02


def test_the_interval_holds_the_median_and_widens_with_the_spread_of_rounds():
    def timed(spread):
        clock, noise = Clock(), np.random.default_rng(0)
        rounds = [int(1e6 * (1 + spread * noise.uniform(-1, 1))) for _ in range(20)]
        durations = [1_000_000] * 10 + [duration for duration in rounds for _ in range(2 + 5)]
        return measure({"a": clock.candidate("a", durations)}, repeats=100, seconds=0, warmup_seconds=0, clock=clock)[
            "a"
        ]

    widths = []
    for spread in (0.0, 0.1, 0.3):
        timing = timed(spread)
        low, high = timing.p50_interval_ms
        assert low <= timing.p50_ms <= high
        widths.append(high - low)
    assert widths == sorted(widths)
    assert widths[0] == pytest.approx(0.04)
    assert widths[2] > 0.1


def test_a_candidate_that_fails_is_left_out_and_the_others_are_timed():
    clock, failures = Clock(), []
    answers = iter([None] * 40)

    def dies():
        clock.now += 1000
        next(answers)

    def broken():
        raise RuntimeError("never ran")

    calls = {"dies": dies, "broken": broken, "sound": clock.candidate("sound", 1000)}
    timings = measure(
        calls, repeats=100, seconds=0, clock=clock, on_failure=lambda key, error: failures.append((key, type(error)))
    )
    assert list(timings) == ["sound"]
    assert timings["sound"].repeats == 100
    assert failures == [("broken", RuntimeError), ("dies", StopIteration)]


def test_single_threaded_candidates_stay_on_one_core_and_others_do_not():
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system pins no threads")
    before, seen = os.sched_getaffinity(0), {"one": set(), "two": set()}
    calls = {name: lambda name=name: seen[name].add(frozenset(os.sched_getaffinity(0))) for name in seen}
    timings = measure(calls, repeats=20, seconds=0, single_threaded=["one"])
    assert {len(cores) for cores in seen["one"]} == {1}
    assert frozenset({timings["one"].core}) in seen["one"]
    assert timings["one"].core in before
    assert seen["two"] == {frozenset(before)}
    assert timings["two"].core is None
    assert os.sched_getaffinity(0) == before


def test_where_threads_cannot_be_pinned_they_are_timed_all_the_same(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    assert measure({"a": int}, repeats=10, seconds=0, single_threaded=["a"])["a"].core is None


@given(st.lists(st.integers(1_000, 10**7), min_size=60, max_size=60))
def test_statistics_are_those_of_the_recorded_calls(durations):
    clock = Clock()
    call = clock.candidate("a", [1000] * 12 + durations)
    timing = measure({"a": call}, repeats=1, seconds=0, clock=clock)["a"]
    assert timing.repeats == 1
    assert timing.p50_ms == timing.p99_ms == durations[0] / 1e6
    clock = Clock()
    warmup = [1000] * 10
    blocks = [value for i in range(0, 60, 3) for value in (1000, 1000, *durations[i : i + 3])]
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
