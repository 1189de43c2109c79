"""One monitored value: improvement, patience, smoothing."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfopt.callbacks.improvement import Improvement, mode_of
from tfopt.callbacks.moving_average import MovingAverage
from tfopt.errors import ConfigError


class Stand(keras.Model):
    """As much of a model as Keras's callback looks at."""


@given(
    st.lists(st.floats(-10, 10) | st.just(math.nan), min_size=1, max_size=12),
    st.sampled_from(["min", "max"]),
    st.integers(0, 4),
    st.floats(0, 1),
)
def test_it_stops_where_keras_stops(values, mode, patience, min_delta):
    theirs = keras.callbacks.EarlyStopping("value", mode=mode, patience=patience, min_delta=min_delta)
    model = Stand()
    model.stop_training = False
    theirs.set_model(model)
    theirs.on_train_begin()
    ours = Improvement(mode, patience=patience, min_delta=min_delta)
    for epoch, value in enumerate(values):
        theirs.on_epoch_end(epoch, {"value": value})
        ours.update(value)
        if not (epoch == 0 and math.isnan(value)):  # Keras takes a first NaN for the best so far
            assert ours.exhausted == model.stop_training or math.isnan(values[0])
        if ours.exhausted or model.stop_training:
            return


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=10), st.floats(0, 0.99))
def test_the_moving_average_is_a_weighted_mean(values, smoothing):
    average = MovingAverage(smoothing)
    received = [average.update(value) for value in values][-1]
    weights = smoothing ** np.arange(len(values) - 1, -1, -1.0)
    assert received == pytest.approx(np.average(values, weights=weights), abs=1e-9)


def test_a_relative_delta_is_a_fraction_of_the_best():
    loss = Improvement("min", min_delta=0.1, relative=True)
    assert [loss.update(value) for value in (100.0, 91.0, 89.0, 81.0, 80.0)] == [True, False, True, False, True]
    score = Improvement("max", min_delta=0.1, relative=True)
    assert [score.update(value) for value in (-1.0, -0.95, -0.85)] == [True, False, True]


def test_smoothing_sees_through_a_lucky_value():
    values = [1 - 0.02 * step for step in range(40)]
    values[15] -= 0.3

    def stops_at(smoothing):
        loss = Improvement("min", patience=5, smoothing=smoothing)
        for step, value in enumerate(values):
            loss.update(value)
            if loss.exhausted:
                return step
        return None

    assert stops_at(0.0) == 20
    assert stops_at(0.9) is None


def test_nan_is_no_improvement_and_does_not_spoil_the_average():
    loss = Improvement("min", patience=2, smoothing=0.5)
    assert [loss.update(value) for value in (math.nan, 2.0, math.inf, 1.0)] == [False, True, False, True]
    assert loss.best == pytest.approx((0.5 * 2 + 1) / 1.5)


def test_an_improvement_that_does_not_beat_the_baseline_uses_up_patience():
    loss = Improvement("min", patience=2, baseline=0.5)
    assert [loss.update(value) for value in (0.9, 0.8, 0.8)] == [True, True, False]
    assert (loss.waited, loss.exhausted) == (3, True)


def test_its_state_can_be_taken_up():
    first, second = (Improvement("min", patience=3, smoothing=0.7) for _ in range(2))
    for value in (3.0, 2.0, 2.5):
        first.update(value)
    second.restore(first.state())
    for value in (2.4, 2.3, 2.6, 2.7):
        assert first.update(value) == second.update(value)
        assert first.state() == second.state()


def test_keras_knows_which_way_is_better():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae", keras.metrics.R2Score()])
    model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    assert [mode_of(name, model) for name in ("loss", "val_loss", "val_mae", "val_r2_score")] == [*["min"] * 3, "max"]
    with pytest.raises(ConfigError, match=r"whether less or more of 'sparsity' is better.*\{'sparsity': 'min'\}"):
        mode_of("sparsity", model)
