"""The median stopping rule."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfopt.tuning.median_stopping import MedianStopping, is_behind

curves = st.lists(st.floats(0, 1), min_size=1, max_size=6)


@given(curves, st.lists(curves, max_size=6), st.integers(1, 4))
def test_small_and_large_values_are_judged_alike(values, others, fewest) -> None:
    negated = [[-value for value in other] for other in others]
    assert is_behind(values, others, "max", fewest) == is_behind([-value for value in values], negated, "min", fewest)


@given(curves, st.lists(curves, max_size=6), st.integers(1, 4), st.floats(0, 1))
def test_a_better_trial_is_never_given_up_where_a_worse_one_goes_on(values, others, fewest, more) -> None:
    if is_behind([value + more for value in values], others, "max", fewest):
        assert is_behind(values, others, "max", fewest)


@given(curves, st.lists(curves, max_size=6))
def test_too_few_others_that_got_so_far_decide_nothing(values, others) -> None:
    far_enough = [other for other in others if len(other) >= len(values)]
    assert not is_behind(values, others, "max", fewest=len(far_enough) + 1)


def fitted(stopping: MedianStopping) -> int:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return len(model.fit(np.ones((8, 1)), np.ones(8), epochs=4, verbose=0, callbacks=[stopping]).epoch)


@pytest.mark.slow
def test_a_fit_that_is_behind_ends() -> None:
    behind = MedianStopping("loss", "min", [[-1.0] * 4] * 3, fewest=3)
    assert fitted(behind) == 1
    assert behind.gave_up
    ahead = MedianStopping("loss", "min", [[1e9] * 4] * 3, fewest=3)
    assert fitted(ahead) == 4
    assert not ahead.gave_up
    assert len(ahead.values) == 4
    assert fitted(MedianStopping("absent", "min", [[-1.0] * 4] * 3, fewest=3)) == 4
