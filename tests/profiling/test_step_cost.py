from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfopt.profiling.step_cost import StepCost, fit_step_cost

SIZES = st.lists(st.sampled_from([2**power for power in range(12)]), min_size=2, max_size=6, unique=True)
COSTS = st.floats(1e-3, 1e3)


@given(SIZES, COSTS, COSTS)
def test_a_line_is_found_again(sizes, fixed, per_sample):
    truth = StepCost(fixed, per_sample)
    found = fit_step_cost(sizes, [truth.step_ms(size) for size in sizes])
    for size in sizes:
        assert found.step_ms(size) == pytest.approx(truth.step_ms(size), rel=1e-3)


@given(SIZES, st.lists(st.floats(1e-2, 1e3), min_size=6, max_size=6))
def test_whatever_was_measured_costs_are_not_negative_and_throughput_does_not_fall(sizes, times):
    cost = fit_step_cost(sizes, times[: len(sizes)])
    assert cost.fixed_ms >= 0
    assert cost.per_sample_ms >= 0
    throughputs = [cost.samples_per_second(2**power) for power in range(12)]
    assert all(later >= earlier * (1 - 1e-9) for earlier, later in pairwise(throughputs))


def test_one_size_tells_the_cost_of_its_samples_only():
    assert fit_step_cost([8], [4.0]) == StepCost(0.0, 0.5)
