"""The measures of error, against their definitions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tfopt.output_error import ErrorDistribution, sqnr_db

values = arrays(np.float32, (7, 2), elements=st.floats(-100, 100, width=32))


@given(expected=values, error=values)
@settings(derandomize=True)
def test_the_distribution_is_that_of_the_signed_error(expected: np.ndarray, error: np.ndarray) -> None:
    expected, error = expected.astype(np.float64), error.astype(np.float64)
    measured = ErrorDistribution.of(expected, expected + error)
    assert measured.bias == pytest.approx(np.mean(error), abs=1e-9)
    assert measured.standard_deviation == pytest.approx(np.std(error), abs=1e-6)
    assert measured.quantiles == pytest.approx(np.quantile(error, [0.01, 0.05, 0.5, 0.95, 0.99]), abs=1e-9)
    assert measured.max_absolute == pytest.approx(np.abs(error).max(), abs=1e-9)
    # What the mean square hides: it is bias and spread together.
    assert measured.bias**2 + measured.standard_deviation**2 == pytest.approx(np.mean(error**2), rel=1e-6, abs=1e-9)
    assert ErrorDistribution.model_validate_json(measured.model_dump_json()) == measured


def test_a_bias_has_no_spread() -> None:
    measured = ErrorDistribution.of(np.array([[0.0], [4.0]]), np.array([[-0.5], [3.5]]))
    assert (measured.bias, measured.standard_deviation) == (-0.5, 0.0)
    assert measured.quantiles == (-0.5,) * 5
    assert measured.to_dict()["in_output_deviations"] == {
        "bias": -0.25,
        "standard_deviation": 0.0,
        "max_absolute": 0.25,
    }


def test_an_output_that_never_varies_has_no_unit() -> None:
    measured = ErrorDistribution.of(np.ones(3), np.array([1.0, 2.0, 3.0]))
    assert measured.in_output_deviations(measured.bias) is None
    assert set(measured.to_dict()["in_output_deviations"].values()) == {None}


@given(expected=values, error=values)
@settings(derandomize=True)
def test_the_noise_ratio_is_that_of_the_energies(expected: np.ndarray, error: np.ndarray) -> None:
    signal, noise = (np.sum(array.astype(np.float64) ** 2) for array in (expected, error))
    if signal and noise:
        assert sqnr_db(expected, error) == pytest.approx(10 * math.log10(signal / noise))


def test_the_noise_ratio_at_its_ends() -> None:
    ones, zeros = np.ones(3), np.zeros(3)
    assert sqnr_db(ones, ones) == 0
    assert sqnr_db(ones, zeros) == math.inf
    assert sqnr_db(zeros, ones) == -math.inf
    assert sqnr_db(ones, np.array([0.0, np.nan, 0.0])) == -math.inf
