"""The search keeps to its bound, and finds what trying all thresholds finds."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfopt.early_exit.threshold_search import Judged, mean_cost, search_for_cost, search_for_drop, share_correct
from tfopt.errors import ConfigError


@st.composite
def judged(draw, max_early: int = 3) -> Judged:
    samples, early = draw(st.integers(1, 25)), draw(st.integers(1, max_early))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Few levels, so that samples of one confidence are common; and neighbouring floats, with none between them.
    levels, step = draw(st.sampled_from([(3, 1e-1), (1000, 1e-3), (4, 2.0**-53)]))
    confidences = 1 - generator.integers(0, levels, (samples, early)) * step
    correct = generator.random((samples, early + 1)) < np.linspace(0.5, 0.9, early + 1)
    return Judged(confidences, correct, np.cumsum(generator.integers(1, 9, early + 1)).astype(float))


def all_settings(judged: Judged) -> list[tuple[float, ...]]:
    levels = [[*np.unique(column), float("inf")] for column in judged.confidences.T]
    return list(itertools.product(*levels))


@given(judged(), st.floats(0, 1))
def test_no_more_is_lost_than_allowed(judged, max_drop) -> None:
    full = judged.correct[:, -1].mean()
    thresholds = search_for_drop(judged, max(0.0, full - max_drop))
    assert share_correct(judged, thresholds) >= full - max_drop - 1e-12
    assert mean_cost(judged, thresholds) <= judged.costs[-1]


@given(judged(), st.floats(0, 1))
def test_no_more_is_spent_than_allowed(judged, fraction) -> None:
    limit = judged.costs[0] + fraction * (judged.costs[-1] - judged.costs[0])
    thresholds = search_for_cost(judged, limit)
    assert mean_cost(judged, thresholds) <= limit * (1 + 1e-9)


@given(judged(), st.lists(st.floats(0, 1), min_size=6, max_size=6))
def test_lower_thresholds_never_cost_more(judged, values) -> None:
    early = judged.confidences.shape[1]
    lower = tuple(np.minimum(values[:early], values[3 : 3 + early]))
    assert mean_cost(judged, lower) <= mean_cost(judged, tuple(values[:early])) + 1e-12


@given(judged(), st.floats(0, 0.3))
def test_a_larger_drop_never_costs_more_with_one_exit(judged, max_drop) -> None:
    one = Judged(judged.confidences[:, :1], judged.correct[:, [0, -1]], judged.costs[[0, -1]])
    full = one.correct[:, -1].mean()
    costs = [mean_cost(one, search_for_drop(one, max(0.0, full - drop))) for drop in (max_drop, 2 * max_drop)]
    assert costs[1] <= costs[0]


@given(judged(max_early=1), st.floats(0, 0.5), st.floats(0, 1))
def test_one_exit_is_searched_exactly(judged, max_drop, fraction) -> None:
    full = judged.correct[:, -1].mean()
    settings = all_settings(judged)
    found = search_for_drop(judged, max(0.0, full - max_drop))
    allowed = [one for one in settings if share_correct(judged, one) >= full - max_drop - 1e-12]
    assert mean_cost(judged, found) == pytest.approx(min(mean_cost(judged, one) for one in allowed))
    limit = judged.costs[0] + fraction * (judged.costs[-1] - judged.costs[0])
    found = search_for_cost(judged, limit)
    allowed = [one for one in settings if mean_cost(judged, one) <= limit * (1 + 1e-12)]
    assert share_correct(judged, found) == pytest.approx(max(share_correct(judged, one) for one in allowed))


@given(judged(max_early=2), st.floats(0, 0.3))
def test_no_threshold_alone_can_be_changed_for_the_better(judged, max_drop) -> None:
    full = judged.correct[:, -1].mean()
    found = search_for_drop(judged, max(0.0, full - max_drop))
    cost = mean_cost(judged, found)
    for exit_ in range(len(found)):
        for value in [*np.unique(judged.confidences[:, exit_]), float("inf")]:
            other = (*found[:exit_], float(value), *found[exit_ + 1 :])
            assert share_correct(judged, other) < full - max_drop or mean_cost(judged, other) >= cost - 1e-9


@pytest.mark.slow
def test_two_exits_come_close_to_the_best_there_is() -> None:
    gaps = []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        hard = generator.random((60, 1))
        correct = generator.random((60, 3)) < 1 - hard * [0.7, 0.5, 0.3]
        confidences = np.clip(1 - hard + generator.normal(0, 0.1, (60, 2)), 0, 1)
        judged = Judged(confidences, correct, np.array([1.0, 2.0, 4.0]))
        full = correct[:, -1].mean()
        best = min(
            mean_cost(judged, one) for one in all_settings(judged) if share_correct(judged, one) >= full - 0.02 - 1e-12
        )
        gaps.append(mean_cost(judged, search_for_drop(judged, full - 0.02)) / best - 1)
    assert np.mean(gaps) < 0.01
    assert np.max(gaps) < 0.1


def test_a_threshold_lies_between_samples() -> None:
    judged = Judged(np.array([[0.9], [0.4]]), np.array([[True, True], [False, True]]), np.array([1.0, 5.0]))
    assert search_for_drop(judged, 1.0) == (pytest.approx(0.65),)
    assert search_for_drop(judged, 0.5) == (pytest.approx(0.4),)  # all leave
    never = Judged(judged.confidences, np.array([[False, True], [False, True]]), judged.costs)
    assert search_for_drop(never, 1.0) == (float("inf"),)


def test_what_is_out_of_reach_is_refused() -> None:
    judged = Judged(np.array([[0.9], [0.4]]), np.array([[True, True], [False, False]]), np.array([1.0, 5.0]))
    with pytest.raises(ConfigError, match=r"at most 0\.5000\. Received: 0\.9000"):
        search_for_drop(judged, 0.9)
    with pytest.raises(ConfigError, match=r"at least 1, that of the first exit\. Received: 0\.5"):
        search_for_cost(judged, 0.5)


@pytest.mark.parametrize(
    ("confidences", "costs", "message"),
    [
        (np.zeros((2, 2)), [1.0, 2.0], "confidences of shape"),
        (np.zeros((2, 1)), [2.0, 1.0], "costs that grow"),
        (np.full((2, 1), np.nan), [1.0, 2.0], "finite confidences"),
    ],
)
def test_what_does_not_fit_is_refused(confidences, costs, message) -> None:
    with pytest.raises(ConfigError, match=message):
        Judged(confidences, np.ones((2, 2), bool), np.array(costs))
