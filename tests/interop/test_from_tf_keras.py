"""Translated models compute as in tf_keras, and what cannot be translated is named."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tf_keras_networks import (
    L,
    functions_network,
    image_network,
    nested_network,
    plain_network,
    randomized,
    recurrent_network,
    tf_keras,
    translating_network,
)

from tfopt.errors import ModelError
from tfopt.interop.legacy import import_tfmot, is_tf_keras
from tfopt.interop.tfmot import from_tf_keras

pytestmark = pytest.mark.slow

MLPERF = Path(__file__).parents[3] / "shared" / "data" / "mlperf_tiny"

NETWORKS = [
    image_network,
    functions_network,
    nested_network,
    recurrent_network,
    translating_network,
    plain_network,
]


def samples_of(model, count=4):
    generator = np.random.default_rng(1)

    def sample(tensor):
        shape = (count, *tensor.shape[1:])
        return (generator.integers(0, 20, shape) if tensor.dtype.is_integer else generator.normal(size=shape)).astype(
            tensor.dtype.as_numpy_dtype
        )

    return tf.nest.map_structure(sample, model.input)


def assert_same(old, new, samples):
    expected, received = old(samples, training=False), new(samples, training=False)
    assert tf.nest.map_structure(lambda x: x.shape, expected) == tf.nest.map_structure(lambda x: x.shape, received)
    for a, b in zip(tf.nest.flatten(expected), tf.nest.flatten(received), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5, rtol=0)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
def test_outputs_are_the_same(network, tmp_path):
    old = randomized(network())
    before = [weight.copy() for weight in old.get_weights()]
    new = from_tf_keras(old)
    samples = samples_of(old)
    assert isinstance(new, keras.Model)
    assert new.count_params() == old.count_params()
    assert_same(old, new, samples)
    new.save(tmp_path / "new.keras")
    assert_same(old, keras.models.load_model(tmp_path / "new.keras"), samples)
    for weight, values in zip(before, old.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, values)


def test_layers_keep_names_settings_and_their_sharing():
    new = from_tf_keras(nested_network())
    inner = new.get_layer("inner")
    assert isinstance(inner, keras.Sequential)
    assert [tensor.name for tensor in new.inputs] == ["first", "second"]
    assert set(new.output) == {"a", "b"}
    assert sum(weight is new.get_layer("shared").kernel for weight in new.weights) == 1
    assert next(layer for layer in new.layers if isinstance(layer, keras.layers.TimeDistributed)).layer is inner
    recurrent = from_tf_keras(recurrent_network())
    convolution = recurrent.layers[-2]
    assert isinstance(convolution.kernel_regularizer, keras.regularizers.L2)
    assert isinstance(convolution.kernel_constraint, keras.constraints.MaxNorm)


def test_frozen_layers_stay_frozen():
    old = image_network()
    old.get_layer("norm").trainable = False
    new = from_tf_keras(old)
    assert len(new.trainable_weights) == len(old.trainable_weights)
    old.trainable = False
    assert not from_tf_keras(old).trainable_weights


def test_mixed_precision_stays():
    old = tf_keras.Sequential([L.Input((4,)), L.Dense(3, dtype="mixed_float16", name="half"), L.Dense(2, name="whole")])
    new = from_tf_keras(old)
    assert new.get_layer("half").dtype_policy.name == "mixed_float16"
    assert new.get_layer("whole").dtype_policy.name == "float32"


@pytest.mark.data
@pytest.mark.skipif(not MLPERF.exists(), reason="the data folder is absent")
@pytest.mark.parametrize("name", ["vww_96.h5", "ad01.h5"])
def test_files_of_mlperf_tiny(name):
    old = tf_keras.models.load_model(MLPERF / name, compile=False)
    assert_same(old, from_tf_keras(old), np.random.default_rng(0).random((8, *old.input_shape[1:])).astype(np.float32))


def test_tfmot_is_imported_without_a_trace():
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    import_tfmot()
    assert os.environ.get("TF_USE_LEGACY_KERAS") == before
    assert tf.keras.version().startswith("3")


def test_what_is_of_tf_keras():
    assert is_tf_keras(image_network())
    assert is_tf_keras(L.Dense(2))
    assert not is_tf_keras(keras.layers.Dense(2))


class Doubled(L.Layer):
    """A layer of the user's."""

    def call(self, x):
        return 2 * x


class DoubledInKeras3(keras.layers.Layer):
    """The same for Keras 3."""

    def call(self, x):
        return 2 * x


class TripledInKeras3(keras.layers.Layer):
    """Not the same."""

    def call(self, x):
        return 3 * x


def shifted(x):
    return x + 1.0


class Subclassed(tf_keras.Model):
    def __init__(self):
        super().__init__(name="mine")
        self.dense = L.Dense(2)

    def call(self, x):
        return self.dense(x)


def of(*layers):
    return tf_keras.Sequential([L.Input((4,)), *layers], name="model")


def called(model):
    model(np.zeros((1, 4), np.float32))
    return model


def test_layers_and_functions_of_the_users():
    old = of(L.Dense(3, activation=shifted), Doubled(name="twice"))
    new = from_tf_keras(old, custom_objects={"Doubled": DoubledInKeras3, "shifted": shifted})
    assert_same(old, new, samples_of(old))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: of(Doubled(name="twice")), r"no layer Doubled \(the layer 'twice'\).*custom_objects=\{'Doubled'"),
        (lambda: of(L.Lambda(lambda x: x)), r"no layer Lambda"),
        (lambda: of(L.Dense(3, activation=shifted, name="hidden")), r"no activation 'shifted' \(the layer 'hidden'\)"),
        (lambda: of(L.Reshape((4, 1)), L.LocallyConnected1D(2, 2)), r"no layer LocallyConnected1D"),
        (
            lambda: of(L.Reshape((2, 2)), L.LSTM(2, time_major=True, return_sequences=True, name="memory")),
            r"'memory' \(LSTM\) has time_major=True",
        ),
        (lambda: called(Subclassed()), r"'mine' is subclassed \(Subclassed\)"),
        (lambda: tf_keras.Sequential([L.Dense(2)], name="late"), r"'late' is not built"),
        (lambda: keras.Sequential([keras.Input((4,))]), r"expected a tf_keras model\. Received: keras"),
    ],
    ids=["custom", "lambda", "activation", "gone", "setting", "subclassed", "unbuilt", "keras 3"],
)
@pytest.mark.filterwarnings("ignore:`tf.keras.layers.LocallyConnected")
def test_what_cannot_be_translated_is_named(make, message):
    with pytest.raises(ModelError, match=message):
        from_tf_keras(make())


def test_an_unknown_function_of_tensorflow_is_named():
    inputs = L.Input((4,))
    with pytest.raises(ModelError, match=r"calls tf\.math\.erf .*Put a layer"):
        from_tf_keras(tf_keras.Model(inputs, tf.math.erf(inputs)))


def test_a_translation_that_computes_otherwise_is_refused():
    with pytest.raises(ModelError, match="computes otherwise: outputs differ by"):
        from_tf_keras(of(Doubled()), custom_objects={"Doubled": TripledInKeras3})
