"""The statistics of timings: on made-up noise whose truth is known."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfopt.benchmark import timing_statistics
from tfopt.benchmark.protocol import _order
from tfopt.benchmark.timing_statistics import (
    Ratio,
    median_interval,
    outlier_share,
    ratio_of_rounds,
    relative_spread,
    verdict,
)

ROUNDS, TRIALS = 20, 120
positive = st.floats(0.001, 1000)
medians = st.lists(positive, min_size=1, max_size=30)


@pytest.fixture
def without_floors(monkeypatch):
    """The bootstrap alone, without the least width that hides how well it covers."""
    monkeypatch.setattr(timing_statistics, "TIME_FLOOR", 0.0)
    monkeypatch.setattr(timing_statistics, "RATIO_FLOOR", 0.0)
    monkeypatch.setattr(timing_statistics, "MIDDLE", (0.5, 0.5))
    timing_statistics._ratio_of_rounds.cache_clear()
    yield
    timing_statistics._ratio_of_rounds.cache_clear()


def errors(law, generator, rounds, scale=0.03):
    """Errors of rounds with median zero, from a law."""
    if law == "normal":
        return generator.normal(0, scale, rounds)
    if law == "heavy tails":
        return scale * generator.standard_t(2, rounds)
    if law == "only slower":
        return scale * (generator.exponential(1, rounds) - np.log(2))
    shared = np.zeros(rounds)  # each round remembers the one before
    for index in range(rounds):
        before = shared[index - 1] if index else 0.0
        shared[index] = 0.3 * before + generator.normal(0, scale)
    return shared


@pytest.mark.parametrize("rounds", [10, 20])
@pytest.mark.parametrize("law", ["normal", "heavy tails", "only slower", "remembers"])
def test_the_intervals_hold_the_truth_about_as_often_as_they_say(law, rounds, without_floors):
    generator = np.random.default_rng(0)
    held_median = held_ratio = 0
    for _ in range(TRIALS):
        calls = [np.exp(error + 0.01 * generator.standard_normal(25)) for error in errors(law, generator, rounds)]
        low, high = median_interval(calls)
        held_median += low <= 1 <= high
        ratio = ratio_of_rounds(np.exp(errors(law, generator, rounds)), np.ones(rounds))
        held_ratio += ratio.low <= 1 <= ratio.high
    assert held_median / TRIALS >= 0.87
    assert held_ratio / TRIALS >= 0.87
    if law == "normal":
        assert 0.9 <= held_median / TRIALS <= 0.99


def drift(kind, generator, turns):
    """How much slower than its best a machine is in each turn."""
    if kind == "grows hot":
        return np.linspace(1, 1.5, turns)
    if kind == "swings":
        return 1.2 + 0.2 * np.sin(np.arange(turns) / generator.uniform(3, 12) + generator.uniform(0, 6))
    if kind == "two speeds":
        switches = np.cumsum(generator.random(turns) < 0.1)
        return np.where(switches % 2, 1.25, 1.0)
    return np.exp(np.cumsum(generator.normal(0, 0.02, turns)))


@pytest.mark.parametrize("noise", [0.002, 0.01, 0.05])
@pytest.mark.parametrize("kind", ["grows hot", "swings", "two speeds", "wanders"])
def test_equal_files_are_not_told_apart_on_a_machine_that_drifts(kind, noise):
    generator = np.random.default_rng(1)
    claims = 0
    for _ in range(TRIALS):
        slowness, turn = drift(kind, generator, 2 * ROUNDS), 0
        times = {"a": [], "b": []}
        for number in range(ROUNDS):
            for key in _order(["a", "b"], number):
                calls = slowness[turn] * np.exp(generator.normal(0, noise, 15))
                times[key].append(float(np.median(calls)))
                turn += 1
        ratio = ratio_of_rounds(times["a"], times["b"])
        claims += verdict(ratio.low, ratio.high) in ("faster", "slower")
    assert claims <= 0.05 * TRIALS


@pytest.mark.parametrize("speedup", [1.15, 1.5, 1 / 1.15])
def test_a_difference_is_told_through_drift(speedup):
    generator = np.random.default_rng(2)
    told = 0
    for _ in range(50):
        slowness = drift("two speeds", generator, ROUNDS)
        theirs = slowness * np.exp(generator.normal(0, 0.01, ROUNDS))
        ours = slowness / speedup * np.exp(generator.normal(0, 0.01, ROUNDS))
        ratio = ratio_of_rounds(theirs, ours)
        told += verdict(ratio.low, ratio.high) == ("faster" if speedup > 1 else "slower")
    assert told == 50


def test_a_difference_in_some_rounds_only_is_not_claimed():
    """However sure the median is: of a machine with two speeds, the next run may meet the other one."""
    ratio = ratio_of_rounds([1.3] * 13 + [1.0] * 7, [1.0] * 20)
    assert ratio.value == 1.3
    assert verdict(ratio.low, ratio.high) == "too noisy to tell"


@pytest.mark.slow
def test_runs_on_a_machine_of_changing_speed_agree():
    generator = np.random.default_rng(6)
    intervals = []
    for _ in range(100):
        slowness = drift("two speeds", generator, ROUNDS)
        intervals.append(median_interval([one * np.exp(generator.normal(0, 0.01, 25)) for one in slowness]))
    changed = [high / low > 1.1 for low, high in intervals]
    agree = [a[0] <= b[1] and b[0] <= a[1] for a, b in itertools.pairwise(intervals)]
    assert np.mean(changed) > 0.5  # most runs saw both speeds, and say so
    assert np.mean(agree) >= 0.9


def test_noise_that_hides_a_difference_is_said_to():
    generator = np.random.default_rng(3)
    verdicts = set()
    for _ in range(50):
        ratio = ratio_of_rounds(np.exp(generator.normal(0, 0.4, ROUNDS)), np.exp(generator.normal(0, 0.4, ROUNDS)))
        verdicts.add(verdict(ratio.low, ratio.high))
    assert "too noisy to tell" in verdicts
    assert "no difference" not in verdicts


@given(medians)
def test_a_ratio_and_its_inverse_say_the_same(numerators):
    denominators = list(reversed(numerators))
    ratio, inverse = ratio_of_rounds(numerators, denominators), ratio_of_rounds(denominators, numerators)
    assert ratio.value == pytest.approx(1 / inverse.value)
    assert (ratio.low is None) == (len(numerators) < 5)
    if ratio.low is not None:
        assert ratio.low <= ratio.value <= ratio.high
        assert ratio.low <= ratio.value / 1.0099
        assert ratio.high >= ratio.value * 1.0099


@given(medians, st.floats(0.01, 100))
def test_what_slows_every_round_of_both_leaves_the_ratio(numerators, slowness):
    denominators = sorted(numerators)
    ratio = ratio_of_rounds(numerators, denominators)
    slower = ratio_of_rounds([slowness * one for one in numerators], [slowness * one for one in denominators])
    assert slower.value == pytest.approx(ratio.value)


@given(st.lists(st.lists(positive, min_size=1, max_size=20), min_size=5, max_size=25))
def test_a_median_lies_in_its_interval_and_that_among_the_calls(rounds):
    low, high = median_interval([np.array(durations) for durations in rounds])
    every = np.concatenate(rounds)
    middle = np.median(every)
    assert low <= 0.98 * middle * (1 + 1e-9)
    assert high >= 1.02 * middle * (1 - 1e-9)
    assert low >= min(every.min(), 0.98 * middle) * (1 - 1e-9)
    assert high <= max(every.max(), 1.02 * middle) * (1 + 1e-9)


def test_the_interval_is_that_of_rounds_put_together(without_floors):
    """The sums over rounds that are searched give what drawing and sorting would."""
    generator = np.random.default_rng(4)
    rounds = [generator.normal(10 + generator.normal(0, 1), 0.5, 41) for _ in range(15)]
    drawn = [np.median(np.concatenate([rounds[index] for index in draw])) for draw in timing_statistics._draws(15)]
    low, high = np.quantile(drawn, timing_statistics._tails(15))
    assert median_interval(rounds) == pytest.approx((low, high), rel=0.002)


def test_rounds_that_do_not_match_are_no_ratio():
    assert ratio_of_rounds([1.0], [1.0, 2.0]) is None
    assert ratio_of_rounds([], []) is None
    assert ratio_of_rounds([4.0], [2.0]) == Ratio(2.0)


@given(st.floats(0.2, 5), st.floats(1, 2))
def test_verdicts_are_symmetric(middle, width):
    low, high = middle / width, middle * width
    mirrored = {"faster": "slower", "slower": "faster"}
    told = verdict(low, high)
    assert verdict(1 / high, 1 / low) == mirrored.get(told, told)


def test_outliers_are_those_far_out_only():
    generator = np.random.default_rng(5)
    calls = generator.normal(1, 0.01, 1000)
    assert outlier_share(calls) == 0
    calls[:100] = 5
    assert outlier_share(calls) == 0.1
    assert outlier_share(np.array([1.0] * 99 + [1.05])) == 0  # a tick of the clock


@given(medians, st.floats(0.01, 100))
def test_the_spread_has_no_unit(values, unit):
    assert relative_spread([unit * value for value in values]) == pytest.approx(relative_spread(values), abs=1e-9)
