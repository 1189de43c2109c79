"""Schedules of tfmot, taken as they are; and averaged weights, which tfmot leaves dense.

Masks from the same weights are compared in tests/pruning/test_tfmot_parity.py.
"""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tf_keras_networks import L, tf_keras

from tfopt.callbacks import MagnitudePruning
from tfopt.interop.legacy import import_tfmot
from tfopt.pruning.update_steps import DEFAULT_FREQUENCY, read_schedule

sparsity = import_tfmot().sparsity.keras
# tf_keras and tfmot use what NumPy 2 and TensorFlow 2.21 will take away.
pytestmark = pytest.mark.filterwarnings("ignore")
X = np.random.default_rng(0).normal(size=(64, 12)).astype(np.float32)


def assert_equal_schedules(theirs, steps):
    schedule, updates = read_schedule("test", theirs, 0, None, DEFAULT_FREQUENCY)
    for step in range(1, steps):  # tfmot's step t comes before batch t, after t - 1 updates of the weights
        prunes, wanted = theirs(step)
        due = updates.latest(step - 1)
        assert (due == step - 1) == bool(prunes)
        if prunes:
            assert schedule(due) == np.float32(wanted)


@settings(max_examples=15)
@given(
    st.tuples(st.floats(0, 0.875, width=32), st.floats(0, 0.875, width=32)).map(sorted),
    st.integers(0, 6),
    st.integers(1, 20),
    st.integers(1, 7),
    st.integers(1, 4),
)
def test_polynomial_decay(ends, begin, length, frequency, power):
    schedule = sparsity.PolynomialDecay(*ends, begin, begin + length, power=power, frequency=frequency)
    assert_equal_schedules(schedule, begin + length + 5)


@settings(max_examples=10)
@given(st.floats(0, 0.875, width=32), st.integers(0, 6), st.sampled_from([-1, 8, 13]), st.integers(1, 7))
def test_constant_sparsity(wanted, begin, end, frequency):
    assert_equal_schedules(sparsity.ConstantSparsity(wanted, begin, end, frequency=frequency), 20)


def test_the_callback_prunes_by_a_schedule_of_tfmot():
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(10, name="hidden")])
    model.compile("sgd", "mse")
    prune = MagnitudePruning(schedule=sparsity.PolynomialDecay(0.2, 0.6, 1, 7, frequency=2))
    history = model.fit(X, X[:, :10], batch_size=8, verbose=0, callbacks=[prune])
    assert history.history["sparsity"] == [0.6]
    assert np.mean(np.asarray(model.get_layer("hidden").kernel) == 0) == 0.6


@pytest.mark.slow
def test_averaged_weights_are_dense_in_tfmot_and_sparse_here():
    """Divergence: Keras puts the averages in after tfmot has masked; tfopt masks them too."""
    schedule = sparsity.ConstantSparsity(0.5, 0, frequency=1)
    theirs = sparsity.prune_low_magnitude(tf_keras.Sequential([L.Input((12,)), L.Dense(10)]), pruning_schedule=schedule)
    theirs.compile(tf_keras.optimizers.SGD(0.05, use_ema=True, jit_compile=False), "mse")
    theirs.fit(X, X[:, :10], batch_size=8, epochs=2, verbose=0, callbacks=[sparsity.UpdatePruningStep()])
    theirs.optimizer.finalize_variable_values(theirs.trainable_variables)
    assert np.mean(theirs.layers[0].layer.kernel.numpy() == 0) < 0.1

    ours = keras.Sequential([keras.Input((12,)), keras.layers.Dense(10)])
    ours.compile(keras.optimizers.SGD(0.05, use_ema=True), "mse")
    ours.fit(X, X[:, :10], batch_size=8, epochs=2, verbose=0, callbacks=[MagnitudePruning(schedule=schedule)])
    assert np.mean(np.asarray(ours.layers[0].kernel) == 0) == 0.5
