import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfopt import schedules
from tfopt.errors import ConfigError

values = st.floats(-1e3, 1e3, allow_nan=False)
steps = st.integers(1, 10_000)


@st.composite
def any_schedule(draw):
    """A schedule, the values it must stay between, and whether it falls."""
    initial, final, length = draw(values), draw(values), draw(steps)
    kind = draw(st.sampled_from(["constant", "polynomial", "cosine", "step_decay"]))
    if kind == "constant":
        return schedules.constant(initial), initial, initial
    if kind == "polynomial":
        begin = draw(st.integers(0, 1000))
        power = draw(st.floats(0.1, 6))
        ramp = schedules.polynomial(initial, final, begin_step=begin, end_step=begin + length, power=power)
        return ramp, initial, final
    if kind == "cosine":
        return schedules.cosine(initial, steps=length, final=final), initial, final
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
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
