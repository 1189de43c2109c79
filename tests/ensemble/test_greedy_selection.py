"""Greedy forward selection: never worse than one model, with replacement, the same every time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfopt.ensemble.greedy_selection import Chosen, select_greedily
from tfopt.errors import ConfigError


@st.composite
def problems(draw):
    models, samples, classes = draw(st.integers(1, 5)), draw(st.integers(1, 12)), draw(st.integers(2, 4))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Few levels, so that equal averages and equal scores are common.
    outputs = generator.integers(0, draw(st.sampled_from([3, 1000])), (models, samples, classes)).astype(float)
    targets = generator.integers(0, classes, samples)
    return outputs, lambda mean: (float(np.mean(mean.argmax(-1) == targets)),)


@given(problems(), st.integers(1, 6), st.integers(1, 12))
def test_no_single_model_is_better(problem, most, rounds) -> None:
    outputs, score = problem
    chosen = select_greedily(outputs, score, most=most, rounds=rounds)
    assert chosen.score >= max(score(one) for one in outputs)


@given(problems(), st.integers(1, 6), st.integers(1, 12))
def test_it_keeps_to_its_bounds_and_its_score_is_that_of_the_average(problem, most, rounds) -> None:
    outputs, score = problem
    chosen = select_greedily(outputs, score, most=most, rounds=rounds)
    assert 1 <= chosen.size <= most
    assert sum(chosen.counts) <= rounds
    assert sum(chosen.weights) == pytest.approx(1)
    total = sum(count * output for count, output in zip(chosen.counts, outputs, strict=True))
    assert score(total / sum(chosen.counts)) == chosen.score


@given(problems(), st.integers(1, 5))
def test_more_rounds_are_never_worse(problem, most) -> None:
    outputs, score = problem
    found = [select_greedily(outputs, score, most=most, rounds=rounds).score for rounds in range(1, 9)]
    assert found == sorted(found)


@given(problems(), st.integers(1, 5))
def test_the_same_comes_out_every_time(problem, most) -> None:
    outputs, score = problem
    assert select_greedily(outputs, score, most=most, rounds=9) == select_greedily(outputs, score, most=most, rounds=9)


def test_of_equal_models_the_first_is_taken() -> None:
    outputs = np.ones((4, 3, 2))
    chosen = select_greedily(outputs, lambda mean: (0.0,), most=4, rounds=5)
    assert chosen == Chosen((1, 0, 0, 0), (0.0,))


def test_a_model_is_taken_again_where_that_helps() -> None:
    outputs = np.array([[[0.0]], [[4.0]]])

    def score(mean: np.ndarray) -> tuple[float, ...]:
        return (-float(np.abs(mean - 1.0).max()),)

    chosen = select_greedily(outputs, score, most=2, rounds=4)
    assert chosen.counts == (3, 1)
    assert chosen.weights == (0.75, 0.25)
    assert select_greedily(outputs, score, most=1, rounds=4).counts == (1, 0)


def test_later_numbers_of_a_score_tell_equal_ones_apart() -> None:
    outputs = np.array([[[0.0]], [[1.0]]])
    assert select_greedily(outputs, lambda mean: (1.0, float(mean.sum())), most=2, rounds=1).counts == (0, 1)


def test_the_rounds_go_on_past_a_local_optimum() -> None:
    # Two models that are wrong in opposite ways are better together than the best one, but each alone makes it worse.
    outputs = np.array([[[1.0]], [[5.0]], [[-5.0]]])

    def score(mean: np.ndarray) -> tuple[float, ...]:
        return (-float(np.abs(mean).max()),)

    chosen = select_greedily(outputs, score, most=3, rounds=20)
    assert chosen.score[0] > -0.5
    assert chosen.size > 1


@pytest.mark.parametrize(("models", "most", "rounds"), [(0, 1, 1), (2, 0, 1), (2, 1, 0)])
def test_what_cannot_be_is_refused(models, most, rounds) -> None:
    with pytest.raises(ConfigError, match=rf"{models} models, most={most}, rounds={rounds}"):
        select_greedily(np.zeros((models, 2, 2)), lambda mean: (0.0,), most=most, rounds=rounds)
