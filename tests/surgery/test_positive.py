import keras
import numpy as np
import pytest

from tfopt.surgery.positive import PositiveFunction

FUNCTIONS = {"rsqrt": lambda x: 1 / np.sqrt(x), "sqrt": np.sqrt, "log": np.log}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("training", [True, False])
def test_positive_numbers_are_computed_as_they_are(function, training):
    x = np.array([[1e-5, 0.5, 2.0, 300.0]], np.float32)
    np.testing.assert_allclose(PositiveFunction(function)(x, training=training), FUNCTIONS[function](x), rtol=1e-5)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_while_training_zero_counts_as_one_step_and_has_no_gradient(function):
    x = keras.Variable(np.array([0.0, 0.5, 2.55], np.float32))
    layer = PositiveFunction(function)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Rescaling(1.0), layer])
    outputs = np.asarray(model(np.asarray(x)[np.newaxis], training=True))
    np.testing.assert_allclose(outputs, FUNCTIONS[function](np.array([[0.01, 0.5, 2.55]])), rtol=1e-5)


def test_a_dense_layer_before_it_gets_finite_gradients():
    dense = keras.layers.Dense(3, use_bias=False, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((3,)), dense, PositiveFunction("rsqrt")])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 3), np.float32), np.ones((4, 3), np.float32), verbose=0)
    assert np.isfinite(np.asarray(dense.kernel)).all()


def test_at_inference_zero_is_left_to_the_rounding_that_follows():
    assert np.isposinf(np.asarray(PositiveFunction("rsqrt")(np.zeros((1, 2), np.float32), training=False))).all()


def test_it_is_saved_and_loaded_with_its_function(tmp_path):
    model = keras.Sequential([keras.Input((3,)), PositiveFunction("log", name="logarithm")])
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").get_layer("logarithm").function == "log"
