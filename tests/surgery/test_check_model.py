import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from tfopt.errors import ModelError
from tfopt.surgery.model import check_model


def small_model():
    return keras.Sequential([keras.Input((8,)), layers.Dense(4, name="hidden"), layers.BatchNormalization()])


def test_built_model_with_finite_weights_comes_back():
    model = small_model()
    assert check_model(model) is model


def test_subclassed_model_that_was_called_comes_back():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    model = Subclassed()
    with pytest.raises(ModelError, match="is not built"):
        check_model(model)
    model(np.zeros((1, 4), np.float32))
    assert check_model(model) is model


@pytest.mark.parametrize("model", [None, "model.keras", layers.Dense(2), keras.Sequential], ids=str)
def test_what_is_no_model_is_refused(model):
    with pytest.raises(ModelError, match=rf"Expected a Keras 3 model.*Received: {type(model).__name__}\."):
        check_model(model)


def test_unbuilt_model_is_refused():
    with pytest.raises(ModelError, match=r"The model 'late' is not built.*Give it a keras\.Input or call it once"):
        check_model(keras.Sequential([layers.Dense(2)], name="late"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_weights_that_are_not_finite_are_refused(value, dtype):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="hidden", dtype=dtype)])
    kernel = np.zeros((3, 2), np.float32)
    kernel[1, 1] = value
    model.layers[0].kernel.assign(kernel)
    with pytest.raises(ModelError, match=r"weight '.*hidden/kernel' .* has NaN or infinite values.*learning rate"):
        check_model(model)


def test_batch_norm_statistics_that_are_not_finite_are_refused():
    model = small_model()
    model.layers[1].moving_variance.assign(np.full(4, np.inf))
    with pytest.raises(ModelError, match="moving_variance"):
        check_model(model)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method:UserWarning")
@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_model_converted_by_keras_is_refused(mode):
    model = small_model()
    model.quantize(mode)
    with pytest.raises(ModelError, match=r"converted by model\.quantize\(\).*Give the float model"):
        check_model(model)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method:UserWarning")
def test_model_with_an_embedding_converted_by_keras_is_refused():
    model = keras.Sequential([keras.Input((8,), dtype="int32"), layers.Embedding(9, 3, name="words")])
    model.quantize("int8")
    with pytest.raises(ModelError, match=r"converted by model\.quantize\(\).*'words"):
        check_model(model)


TF_KERAS = """
import tf_keras
from tfopt.errors import ModelError
from tfopt.surgery.model import check_model
models = [
    tf_keras.Sequential([tf_keras.layers.InputLayer(4), tf_keras.layers.Dense(2)]),
    type("Mine", (tf_keras.Model,), {})(),
]
for model in models:
    try:
        check_model(model)
    except ModelError as error:
        print(error)
"""


@pytest.mark.slow
def test_tf_keras_model_is_refused():
    # In a process of its own: tf_keras registers itself with TensorFlow.
    done = subprocess.run([sys.executable, "-c", TF_KERAS], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    message = (
        "Expected a Keras 3 model (keras.Model). Received: a tf_keras (Keras 2) model. "
        "Translate it with tfopt.from_tf_keras(model), or its file with `tfopt migrate FILE`."
    )
    assert done.stdout.splitlines() == [message, message]
