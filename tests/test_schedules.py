import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfopt import schedules
from tfopt.errors import ConfigError

values = st.floats(-1e3, 1e3, allow_nan=False)
steps = st.integers(1, 10_000)
positive = st.floats(1e-8, 1e3)


@st.composite
def any_schedule(draw):
    """A schedule, the values it must stay between, and whether it falls."""
    initial, final, length = draw(values), draw(values), draw(steps)
    kind = draw(st.sampled_from(["constant", "polynomial", "cosine", "step_decay", "exponential"]))
    if kind == "constant":
        return schedules.constant(initial), initial, initial
    if kind == "polynomial":
        begin = draw(st.integers(0, 1000))
        power = draw(st.floats(0.1, 6))
        ramp = schedules.polynomial(initial, final, begin_step=begin, end_step=begin + length, power=power)
        return ramp, initial, final
    if kind == "cosine":
        return schedules.cosine(initial, steps=length, final=final), initial, final
    if kind == "exponential":
        initial, final = draw(positive), draw(positive)
        return schedules.exponential(initial, steps=length, final=final), initial, final
    decay = schedules.step_decay(initial, factor=draw(st.floats(0.01, 1)), every_steps=length)
    return decay, initial, 0.0


@given(any_schedule(), st.lists(st.integers(0, 20_000), min_size=2, max_size=20))
def test_schedules_are_bounded_and_monotone(case, at):
    schedule, initial, final = case
    seen = [schedule(step) for step in sorted(at)]
    assert all(min(initial, final) <= value <= max(initial, final) for value in seen)
    assert seen == sorted(seen, reverse=initial > final)


@given(any_schedule(), steps, values, st.integers(0, 20_000))
def test_warmup_rises_to_where_the_schedule_begins_and_then_is_the_schedule(case, length, start, step):
    schedule, _, _ = case
    warm = schedules.warmup(schedule, steps=length, start=start)
    assert warm(0) == pytest.approx(start)
    if step >= length:
        assert warm(step) == schedule(step - length)
    else:
        line = start + (schedule(0) - start) * step / length
        assert warm(step) == pytest.approx(line, abs=1e-9)
        assert min(start, schedule(0)) <= warm(step) <= max(start, schedule(0))


@given(st.floats(0, 0.99), st.floats(0, 0.99), st.integers(0, 500), steps, st.integers(0, 12_000))
def test_polynomial_is_equation_1_of_zhu_and_gupta(initial, final, begin, length, step):
    ramp = schedules.polynomial(initial, final, begin_step=begin, end_step=begin + length)
    clipped = min(max(step, begin), begin + length)
    expected = final + (initial - final) * (1 - (clipped - begin) / length) ** 3
    assert ramp(step) == pytest.approx(expected, abs=1e-12)


def test_ends_are_exact():
    ramp = schedules.polynomial(0.1, 0.3, begin_step=10, end_step=20)
    assert [ramp(step) for step in (0, 10, 20, 21)] == [0.1, 0.1, 0.3, 0.3]
    assert schedules.cosine(0.3, steps=7, final=0.1)(7) == 0.1
    assert schedules.cosine(0.3, steps=7, final=0.1)(0) == 0.3


def test_polynomial_without_length_jumps():
    jump = schedules.polynomial(0.0, 0.8, begin_step=5, end_step=5)
    assert [jump(4), jump(5)] == [0.0, 0.8]


def test_they_compose():
    twice = schedules.warmup(schedules.warmup(schedules.constant(1.0), steps=10), steps=5, start=2.0)
    assert [twice(step) for step in (0, 5, 10, 15, 99)] == [2.0, 0.0, 0.5, 1.0, 1.0]


@given(
    st.lists(st.tuples(any_schedule(), st.integers(1, 50)), min_size=1, max_size=4),
    any_schedule(),
    st.integers(0, 400),
)
def test_a_sequence_is_each_part_from_its_own_step_0(parts, last, step):
    follows = schedules.sequence([(case[0], length) for case, length in parts], then=last[0])
    begin = 0
    for (part, _, _), length in parts:
        if step < begin + length:
            assert follows(step) == part(step - begin)
            return
        begin += length
    assert follows(step) == last[0](step - begin)


def test_a_part_is_asked_for_steps_of_its_own_only():
    asked = []

    def part(step):
        asked.append(step)
        return 1.0

    follows = schedules.sequence([(schedules.constant(0.0), 3), (part, 2)], then=schedules.constant(2.0))
    assert [follows(step) for step in range(7)] == [0, 0, 0, 1, 1, 2, 2]
    assert set(asked) == {0, 1}
    assert all(type(step) is int for step in asked)


@pytest.mark.slow
@given(positive, st.integers(1, 200), st.integers(0, 4), st.floats(1, 3), st.floats(0.1, 1))
def test_cosine_restarts_at_the_height_it_is_told(initial, length, restarts, longer, lower):
    waves = schedules.cosine_restarts(initial, steps=length, restarts=restarts, length_factor=longer, peak_factor=lower)
    begin = 0
    for number in range(restarts + 1):
        steps_of_wave = round(length * longer**number)
        assert waves(begin) == pytest.approx(initial * lower**number)
        wave = [waves(begin + step) for step in range(steps_of_wave)]
        assert wave == sorted(wave, reverse=True)
        begin += steps_of_wave
    assert waves(begin) == waves(begin + 1000) == 0.0


@pytest.mark.slow
@given(positive, st.integers(2, 2000), st.floats(0.01, 0.99))
def test_one_cycle_rises_to_its_peak_and_falls_to_its_end(peak, length, share):
    cycle = schedules.one_cycle(peak, steps=length, warmup_fraction=share)
    values = [cycle(step) for step in range(length + 1)]
    top = values.index(max(values))
    assert values[top] == peak
    assert top == min(max(round(share * length), 1), length - 1)
    assert values[: top + 1] == sorted(values[: top + 1])
    assert values[top:] == sorted(values[top:], reverse=True)
    assert values[0] == peak / 25
    assert cycle(length) == cycle(10 * length) == peak / 25 / 10_000


@given(positive, steps, steps, steps)
def test_warmup_stable_decay_rises_stays_and_falls(peak, rise, stay, fall):
    rate = schedules.warmup_stable_decay(peak, warmup_steps=rise, stable_steps=stay, decay_steps=fall)
    assert rate(0) == 0.0
    assert rate(rise) == rate(rise + stay - 1) == rate(rise + stay) == peak
    assert rate(rise + stay + fall) == rate(rise + stay + 2 * fall) == 0.0
    middle = rise + stay + fall // 2
    assert rate(middle) == pytest.approx(peak * (1 - (fall // 2) / fall))


def test_exponential_changes_by_the_same_factor_at_every_step():
    decay = schedules.exponential(0.5, steps=50, final=0.005)
    assert [decay(step + 1) / decay(step) for step in range(50)] == pytest.approx([0.01 ** (1 / 50)] * 50)
    assert (decay(0), decay(50), decay(51)) == (0.5, 0.005, 0.005)


@st.composite
def composed_schedule(draw):
    """Schedules within schedules."""
    schedule = draw(any_schedule())[0]
    for _ in range(draw(st.integers(0, 2))):
        if draw(st.booleans()):
            schedule = schedules.warmup(schedule, draw(st.integers(1, 100)), start=draw(values))
        else:
            parts = [(draw(any_schedule())[0], draw(st.integers(1, 100)))]
            schedule = schedules.sequence(parts, then=schedule)
    return schedule


@given(composed_schedule(), st.integers(0, 20_000))
def test_a_schedule_is_restored_from_what_is_written_down(schedule, step):
    again = schedules.Formula.from_config(json.loads(json.dumps(schedule.get_config())))
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert repr(again) == repr(schedule)
    assert again(step) == schedule(step)


def test_a_schedule_shows_how_it_was_made():
    assert repr(schedules.warmup(schedules.constant(0.1), 5)) == (
        "sequence(parts=((polynomial(initial=0.0, final=0.1, begin_step=0, end_step=5, power=1.0), 5),), "
        "then=constant(value=0.1))"
    )
    assert schedules.constant(0.1) != schedules.constant(0.2)


def test_a_function_of_ones_own_cannot_be_written_down():
    with pytest.raises(ConfigError, match=r"Received: one with <function .*a function of its own"):
        schedules.warmup(lambda step: 0.1, 5).get_config()
    with pytest.raises(ConfigError, match=r"must be one of constant, .*sequence.* Received: 'sine'"):
        schedules.Formula.from_config({"name": "sine", "arguments": {}})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.constant(math.nan), r"constant: value must be a finite number. Received: nan"),
        (lambda: schedules.constant("fast"), r"Received: 'fast'"),
        (lambda: schedules.polynomial(0, math.inf, end_step=1), r"polynomial: final .* Received: inf"),
        (lambda: schedules.polynomial(0, 1, begin_step=5, end_step=4), r"at least begin_step \(5\).*: 4"),
        (lambda: schedules.polynomial(0, 1, end_step=1.5), r"end_step must be a whole number.*: 1.5"),
        (lambda: schedules.polynomial(0, 1, begin_step=-1, end_step=4), r"begin_step .* at least 0.*: -1"),
        (lambda: schedules.polynomial(0, 1, end_step=4, power=0), r"power must be above 0. Received: 0"),
        (lambda: schedules.cosine(1, steps=0), r"cosine: steps must be .* at least 1. Received: 0"),
        (lambda: schedules.step_decay(1, factor=10, every_steps=5), r"Received: 10. Did you mean 0.1\?"),
        (lambda: schedules.step_decay(1, factor=-1, every_steps=5), r"factor must be above 0. Received: -1"),
        (lambda: schedules.step_decay(1, factor=0.5, every_steps=None), r"every_steps .* Received: None"),
        (lambda: schedules.warmup(0.1, steps=5), r"Received: 0.1. Wrap a number as constant"),
        (lambda: schedules.warmup(schedules.constant(1), steps=0), r"warmup: steps .* Received: 0"),
        (lambda: schedules.exponential(1, steps=5, final=0), r"exponential: final must be above 0. Received: 0"),
        (lambda: schedules.sequence([0.1], then=schedules.constant(1)), r"pairs of a schedule.* Received: \[0.1\]"),
        (lambda: schedules.sequence([(0.1, 5)], then=schedules.constant(1)), r"a part must be a function.* 0.1"),
        (lambda: schedules.sequence([(schedules.constant(1), 0)], then=schedules.constant(1)), r"Received: 0"),
        (lambda: schedules.sequence([], then=0.1), r"sequence: then must be a function.* Received: 0.1"),
        (lambda: schedules.one_cycle(1, steps=1), r"one_cycle: steps .* at least 2. Received: 1"),
        (lambda: schedules.one_cycle(1, steps=9, warmup_fraction=30), r"in \(0, 1\). Received: 30"),
        (lambda: schedules.cosine_restarts(1, steps=9, restarts=-1), r"restarts .* Received: -1"),
        (lambda: schedules.cosine_restarts(1, steps=9, restarts=1, length_factor=0.5), r"at least 1. Received: 0.5"),
        (lambda: schedules.cosine_restarts(1, steps=9, restarts=1, peak_factor=2), r"in \(0, 1\]. Received: 2"),
        (
            lambda: schedules.warmup_stable_decay(1, warmup_steps=0, stable_steps=1, decay_steps=1),
            r"warmup_steps .* Received: 0",
        ),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
