import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt.errors import DataError, ModelError
from tfopt.profiling.training_trial import check_compiled, left_as_it_was, time_steps, training_arrays
from tfopt.training_batches import endless_batches

rng = np.random.default_rng(0)
X = rng.normal(size=(64, 6)).astype(np.float32)
Y = rng.normal(size=(64, 2)).astype(np.float32)


def compiled(optimizer="adam", **options):
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Dense(5),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(2),
    ]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile(optimizer, "mse", metrics=["mae"], **options)
    return model


def state(model):
    return [np.array(value) for value in (*model.variables, *model.metrics_variables, *model.optimizer.variables)]


def assert_equal(first, second):
    assert len(first) == len(second)
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def fit(model, **options):
    return model.fit(X, Y, shuffle=False, verbose=0, **options)


@pytest.mark.slow
def test_a_trial_changes_nothing_that_a_later_training_would_see():
    model, plain = compiled(), compiled()
    for one in (model, plain):
        fit(one)
    before, step, history = state(model), model.train_function, model.history
    with left_as_it_was(model):
        durations = time_steps(model, endless_batches((X, Y), 16), seconds=0.0, min_steps=4)
        assert not np.array_equal(before[0], state(model)[0])
    assert len(durations) == 4
    assert np.all(durations > 0)
    assert_equal(state(model), before)
    assert model.train_function is step
    assert model.history is history
    # Dropout's random state and Adam's moments too.
    assert fit(model).history == fit(plain).history
    assert_equal(state(model), state(plain))


@pytest.mark.slow
def test_a_model_that_was_never_fitted_trains_as_if_there_had_been_no_trial():
    model, plain = compiled(), compiled()
    with left_as_it_was(model):
        time_steps(model, endless_batches((X, Y), 16), seconds=0.0)
    assert fit(model).history == fit(plain).history
    assert_equal(state(model), state(plain))


def test_a_trial_that_fails_is_undone_too():
    model = compiled()
    before = model.get_weights()

    class Fail(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), left_as_it_was(model):
        fit(model, callbacks=[Fail()])
    assert_equal(model.get_weights(), before)


@pytest.mark.slow
def test_executions_of_several_steps_are_timed_by_step():
    model = compiled(steps_per_execution=4)
    with left_as_it_was(model):
        assert len(time_steps(model, endless_batches((X, Y), 16), seconds=0.0, min_steps=3)) == 3
        assert int(model.optimizer.iterations) == 4 * (3 + 3)


def test_data_comes_as_fit_takes_it():
    model = compiled()
    weights = np.ones(64)
    assert_equal(training_arrays((X, Y, weights), model, limit=10), (X[:10], Y[:10], weights[:10]))
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(24)
    assert_equal(training_arrays(dataset, model, limit=40), (X[:40], Y[:40]))


def test_several_inputs_and_outputs():
    first, second = keras.Input((6,), name="first"), keras.Input((3,), name="second")
    outputs = {"one": keras.layers.Dense(1, name="one")(first), "two": keras.layers.Dense(1, name="two")(second)}
    model = keras.Model([first, second], outputs)
    model.compile("sgd", "mse")
    data = ({"second": X[:, :3], "first": X}, {"one": Y[:, :1], "two": Y[:, 1:]})
    arrays = training_arrays(data, model, limit=64)
    assert_equal(arrays[0], (X, X[:, :3]))
    with left_as_it_was(model):
        assert len(time_steps(model, endless_batches(arrays, 8), seconds=0.0)) == 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (X, "Received: an array of shape"),
        ((X,), "Received: a tuple of 1"),
        ((X[:, :5], Y), "must have shape .n, 6.. Received"),
        ((X, Y[:7]), "as many targets as samples. Received: .7, 64."),
        ((X, [1, [2, 3]]), "one shape"),
        (tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).take(0), "empty tf.data.Dataset"),
        (tf.data.Dataset.from_tensor_slices(X).batch(8), "Received: an array"),
    ],
)
def test_other_data_is_refused(data, message):
    with pytest.raises(DataError, match=message):
        training_arrays(data, compiled(), limit=64)


def test_a_model_that_is_not_compiled_is_refused():
    with pytest.raises(ModelError, match=r"verb: the model must be compiled.*Received: 'net'"):
        check_compiled(keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)], name="net"), verb="verb")
