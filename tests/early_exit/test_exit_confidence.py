"""How sure an exit is, and where samples leave."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tfopt.early_exit.confidence import (
    CONFIDENCES,
    as_probabilities,
    confidence_of,
    exit_of_each,
    predicted_classes,
)
from tfopt.errors import ConfigError

LOGITS = arrays(np.float64, st.tuples(st.integers(1, 8), st.integers(1, 5)), elements=st.floats(-30, 30))


@pytest.mark.parametrize("kind", CONFIDENCES)
@given(logits=LOGITS)
def test_confidence_is_a_fraction_and_the_same_from_logits_and_probabilities(kind, logits) -> None:
    confidence = confidence_of(logits, kind=kind, from_logits=True)
    assert confidence.shape == (len(logits),)
    assert np.all((confidence >= 0) & (confidence <= 1))
    probabilities = as_probabilities(logits, from_logits=True)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1)
    np.testing.assert_allclose(confidence_of(probabilities, kind=kind, from_logits=False), confidence, atol=1e-9)


@pytest.mark.parametrize("kind", CONFIDENCES)
def test_a_clearer_answer_is_a_surer_one(kind) -> None:
    logits = np.stack([np.zeros(4), [1, 0, 0, 0], [3, 0, 0, 0], [40, 0, 0, 0]])
    confidence = confidence_of(logits, kind=kind, from_logits=True)
    assert np.all(np.diff(confidence) > 0)
    assert confidence[0] == pytest.approx(0.25 if kind == "probability" else 0.0)
    assert confidence[-1] == pytest.approx(1.0)


def test_one_value_tells_the_second_of_two_classes() -> None:
    assert predicted_classes(np.array([[0.2], [0.7]]), from_logits=False).tolist() == [0, 1]
    assert predicted_classes(np.array([[-2.0], [3.0]]), from_logits=True).tolist() == [0, 1]
    sigmoid = 1 / (1 + np.exp(-3.0))
    np.testing.assert_allclose(as_probabilities(np.array([[3.0]]), from_logits=True), [[1 - sigmoid, sigmoid]])


@given(
    arrays(np.float64, st.tuples(st.integers(1, 20), st.just(3)), elements=st.floats(0, 1)),
    st.lists(st.floats(0, 1), min_size=3, max_size=3),
)
def test_samples_leave_at_the_first_exit_that_is_sure(confidences, thresholds) -> None:
    exits = exit_of_each(confidences, thresholds)
    for row, exit_ in zip(confidences, exits, strict=True):
        sure = [index for index in range(3) if row[index] >= thresholds[index]]
        assert exit_ == (sure[0] if sure else 3)


def test_each_exit_needs_a_threshold() -> None:
    with pytest.raises(ConfigError, match=r"shape \(n, 2\)\. Received: \(4, 3\)"):
        exit_of_each(np.zeros((4, 3)), (0.5, 0.5))
