"""A score less what exceeds a budget."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfopt.tuning.budget_penalty import BudgetPenalty, penalized

scores = st.floats(-10, 10)
penalties = st.floats(0.01, 10)


@given(scores, st.floats(0, 1), st.floats(0, 1), penalties)
def test_within_the_budget_the_score_alone_counts(score, used, other, penalty) -> None:
    assert penalized(score, used, penalty) == penalized(score, other, penalty) == score


@given(scores, st.floats(0, 10), st.floats(0, 1), st.floats(1.001, 5), penalties)
def test_what_keeps_the_budget_beats_what_does_not_and_is_no_better(score, less, used, too_much, penalty) -> None:
    assert penalized(score, used, penalty) > penalized(score - less, too_much, penalty)


@given(scores, st.floats(1, 5), st.floats(0.001, 5), penalties)
def test_the_penalty_grows_with_the_excess(score, used, more, penalty) -> None:
    assert penalized(score, used + more, penalty) < penalized(score, used, penalty)
    assert penalized(score, used + more, penalty) >= score - penalty


def test_near_the_budget_it_grows_by_the_penalty() -> None:
    assert penalized(0.5, 1.001, penalty=2.0) == pytest.approx(0.5 - 2.0 * 0.001, abs=1e-5)


def logged(**changed) -> dict[str, list[float]]:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x = np.ones((4, 1))
    uses = iter([2.0, 1.0])
    arguments = {"monitor": "val_loss", "direction": "min", "used": lambda: next(uses), "penalty": 3.0, **changed}
    callback = BudgetPenalty(**arguments)
    return model.fit(x, x, validation_data=(x, 2 * x), epochs=2, verbose=0, callbacks=[callback]).history


@pytest.mark.slow
def test_both_values_are_logged_for_each_epoch() -> None:
    history = logged()
    assert history["budget_used"] == [2.0, 1.0]
    assert history["val_objective"] == [-4.0 - 1.5, -4.0]
    assert logged(direction="max")["val_objective"] == [4.0 - 1.5, 4.0]
    assert "val_objective" not in logged(monitor="absent")
