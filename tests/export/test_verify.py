"""The measures of agreement, against their definitions."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tfopt.export.verify import compare

values = st.floats(-100, 100, width=32)


@given(
    expected=arrays(np.float32, (6, 4), elements=values),
    error=arrays(np.float32, (6, 4), elements=st.floats(-1, 1, width=32)),
)
@settings(derandomize=True)
def test_the_measures_follow_their_definitions(expected: np.ndarray, error: np.ndarray) -> None:
    received = expected.astype(np.float64) + error
    measured = compare([expected], [received])
    noise = np.abs(expected - received)
    assert measured.samples == 6
    assert measured.max_absolute_error == pytest.approx(noise.max())
    assert measured.top1_agreement == np.mean(expected.argmax(-1) == received.argmax(-1))
    assert measured.max_lsb is None
    if np.any(noise) and np.any(expected):
        ratio = np.sum(expected.astype(np.float64) ** 2) / np.sum(noise**2)
        assert measured.sqnr_db == pytest.approx(10 * math.log10(ratio), abs=1e-6)


@given(array=arrays(np.float32, (3, 2), elements=values))
@settings(derandomize=True)
def test_equal_outputs_are_exact(array: np.ndarray) -> None:
    measured = compare([array], [array])
    assert measured.sqnr_db == math.inf
    assert measured.to_dict()["sqnr_db"] == "exact"
    assert measured.max_absolute_error == 0
    assert measured.top1_agreement == 1


@pytest.mark.parametrize("expected", [np.ones((4, 2)), np.full((4, 2), 1e-30)])
def test_an_error_of_the_size_of_the_signal_is_zero_db(expected: np.ndarray) -> None:
    assert compare([expected], [np.zeros((4, 2))]).sqnr_db == pytest.approx(0)


def test_noise_without_signal_is_told() -> None:
    measured = compare([np.zeros((4, 2))], [np.ones((4, 2))])
    assert measured.sqnr_db == -math.inf
    assert measured.to_dict()["sqnr_db"] == "no signal"


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_an_output_that_is_not_finite_never_agrees(broken: float) -> None:
    received = np.array([[1.0, broken]])
    assert not compare([np.ones((1, 2))], [received]).sqnr_db >= -1000


def test_the_worst_output_counts() -> None:
    large, small = np.full((4, 2), 1000.0), np.full((4, 2), 0.01)
    measured = compare([large, small], [large, -small])
    assert measured.sqnr_db == pytest.approx(10 * math.log10(0.25))
    assert measured.top1_agreement == 1


def test_steps_are_those_of_each_output() -> None:
    expected = [np.zeros((2, 1)), np.zeros((2, 1)), np.zeros((2, 1))]
    received = [np.full((2, 1), 0.5), np.full((2, 1), 0.5), np.full((2, 1), 9.0)]
    assert compare(expected, received, scales=[0.5, 0.125, None]).max_lsb == 4
    assert compare(expected, received, scales=[None, None, None]).max_lsb is None


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 3, 1)])
def test_one_value_has_no_largest_place(shape: tuple[int, ...]) -> None:
    assert compare([np.zeros(shape)], [np.ones(shape)]).top1_agreement is None


def test_places_are_compared_along_the_last_axis() -> None:
    expected = np.zeros((1, 4, 2))
    expected[..., 0] = 1
    received = expected.copy()
    received[0, 0] = [0, 1]
    assert compare([expected], [received]).top1_agreement == 0.75


def test_another_number_of_outputs_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        compare([np.zeros((1, 2))] * 2, [np.zeros((1, 2))])


def test_quantities_come_with_the_distribution_of_their_error() -> None:
    expected = np.array([[1.0], [3.0], [5.0]])
    measured = compare([expected], [expected + np.array([[0.2], [0.0], [0.1]])])
    assert measured.error is not None
    assert measured.error.bias == pytest.approx(0.1)
    assert measured.error.max_absolute == pytest.approx(0.2)
    plain = measured.to_dict()["error"]
    assert json.loads(json.dumps(plain)) == plain
    assert plain["in_output_deviations"]["bias"] == pytest.approx(0.1 / expected.std())


def test_class_probabilities_come_without() -> None:
    probabilities = np.array([[0.9, 0.1], [0.25, 0.75]], np.float32)
    assert "error" not in compare([probabilities], [probabilities[::-1]]).to_dict()
    assert compare([10 * probabilities], [probabilities]).error is not None  # not those of classes


def test_the_error_is_that_of_the_output_with_the_largest_beside_its_spread() -> None:
    small, large = np.array([[0.0], [0.1]]), np.array([[0.0], [100.0]])
    measured = compare([large, small], [large + 0.5, small + 0.05])
    assert measured.error is not None
    assert measured.error.bias == pytest.approx(0.05)


def test_what_is_not_finite_has_no_distribution() -> None:
    assert compare([np.ones((2, 1))], [np.array([[1.0], [np.nan]])]).error is None
