"""What a trial promises: the closed form against samples, and what the product leads to."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfopt.tuning.constrained_improvement import constrained_improvement, expected_improvement

# A hyperparameter that does nothing has the longest of length scales.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
NONE = np.zeros((0, 2))


def trials(count: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores grow with the first coordinate, and so does what is used; the second does nothing."""
    places = np.random.default_rng(0).random((count, 2))
    return places, places[:, 0] ** 2, 2 * places[:, 0]


def line(points: int = 21) -> np.ndarray:
    return np.stack([np.linspace(0, 1, points), np.full(points, 0.5)], axis=1)


@given(mean=st.floats(-3, 3), deviation=st.floats(0.01, 3), best=st.floats(-3, 3))
@settings(max_examples=30, deadline=None)
def test_the_closed_form_is_the_mean_of_what_samples_gain(mean: float, deviation: float, best: float) -> None:
    drawn = mean + deviation * np.random.default_rng(0).standard_normal(200_000)
    sampled = np.maximum(drawn - best, 0).mean()
    (found,) = expected_improvement(np.array([mean]), np.array([deviation]), best=best)
    assert found == pytest.approx(sampled, abs=0.02 * deviation)


def test_it_leads_to_the_edge_of_the_limit() -> None:
    places, scores, used = trials()
    gains = constrained_improvement(places, scores, used, NONE, line(), seed=1)
    assert np.isfinite(gains).all()
    assert (gains >= 0).all()
    # 0.5 takes the whole limit; a little below it is the best that surely keeps it.
    assert 0.4 <= line()[gains.argmax(), 0] <= 0.55


def test_without_a_trial_within_the_limit_it_looks_for_one() -> None:
    places, scores, used = trials()
    gains = constrained_improvement(places, scores, used + 1.5, NONE, line(), seed=1)
    assert gains.argmax() == 0
    assert gains[0] <= 1


def test_a_place_where_a_trial_runs_promises_less() -> None:
    places, scores, used = trials(6)
    candidates = line()
    alone = constrained_improvement(places, scores, used, NONE, candidates, seed=1)
    best = alone.argmax()
    beside = constrained_improvement(places, scores, used, candidates[[best]], candidates, seed=1)
    assert beside[best] < 0.9 * alone[best]


def test_scores_that_are_all_the_same_give_numbers() -> None:
    places, scores, used = trials()
    assert np.isfinite(constrained_improvement(places, 0 * scores, used, NONE, line(), seed=1)).all()
