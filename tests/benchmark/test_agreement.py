import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from tfopt.benchmark.agreement import agreement

ROWS = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.9, 0.05, 0.05]])
FLOATS = st.floats(-1e3, 1e3, width=32)


def test_classes_are_the_largest_outputs():
    other = ROWS[:, [0, 2, 1]]  # the second sample moves to the last class, the third to the second
    assert agreement([ROWS], [other]).top1 == 0.5


def test_a_single_output_is_taken_by_its_side_of_one_half():
    found = agreement([np.array([[0.4], [0.6]])], [np.array([0.45, 0.3])], classes=True)
    assert found.top1 == 0.5


def test_class_maps_are_compared_in_every_place():
    maps = np.zeros((2, 3, 3, 2))
    maps[..., 0] = 1
    other = maps.copy()
    other[0, 0, 0] = [0, 1]
    assert agreement([maps], [other]).top1 == pytest.approx(17 / 18)


def test_logits_are_classes_only_where_one_says_so():
    logits = np.array([[3.0, -1.0], [0.5, 2.0]])
    assert agreement([logits], [logits]).top1 is None
    assert agreement([logits], [logits], classes=True).top1 == 1.0
    assert agreement([ROWS], [ROWS], classes=False).top1 is None


def test_of_several_outputs_the_worst_error_is_told_and_no_class():
    found = agreement([ROWS, np.full((4, 1), 10.0)], [ROWS, np.full((4, 1), 12.0)])
    assert found.top1 is None
    assert found.relative_error == pytest.approx(0.2)


@pytest.mark.parametrize("others", [[ROWS[:2]], [ROWS, ROWS], []])
def test_other_outputs_are_not_compared(others):
    assert agreement([ROWS], others) is None


@pytest.mark.parametrize(("baseline", "value"), [(0.0, 1.0), (1.0, np.nan), (1.0, np.inf), (np.nan, 1.0)])
def test_an_error_that_is_no_number_is_none(baseline, value):
    assert agreement([np.full((2, 1), baseline)], [np.full((2, 1), value)]).relative_error is None


@given(st_numpy.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=FLOATS), st.floats(0, 2))
def test_the_error_of_a_scaled_output_is_the_scale(values, scale):
    found = agreement([values], [values * (1 + scale)], classes=True)
    if np.sqrt(np.mean(values**2)) > 1e-6:
        assert found.relative_error == pytest.approx(scale, abs=1e-9)
    if values.shape[-1] > 1 and np.ptp(values, axis=-1).min() > 1e-6:
        assert found.top1 == 1.0
