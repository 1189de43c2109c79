import keras
import numpy as np
import pytest
from keras import layers

from tfopt.export.tflite import export_tflite
from tfopt.quantization import quantize_aware
from tfopt.surgery.precision import in_float32


@pytest.fixture
def mixed():
    keras.utils.set_random_seed(0)
    policy = "mixed_float16"
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, activation="relu", dtype=policy),
            layers.BatchNormalization(dtype=policy),
            layers.Flatten(dtype=policy),
            layers.Dense(3, activation="softmax", dtype="float32"),
        ]
    )


def test_a_float32_model_is_returned_as_it_is():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    assert in_float32(model) is model


def test_a_mixed_model_computes_in_float32_with_the_same_weights(mixed):
    wide = in_float32(mixed)
    assert {layer.compute_dtype for layer in wide.layers} == {"float32"}
    assert mixed.layers[0].compute_dtype == "float16"
    x = np.random.default_rng(0).random((16, 8, 8, 2)).astype(np.float32)
    np.testing.assert_allclose(wide(x), mixed(x), atol=2e-3)


@pytest.mark.thorough
def test_a_mixed_quantize_aware_model_exports_to_int8(mixed, tmp_path):
    x = np.random.default_rng(0).random((32, 8, 8, 2)).astype(np.float32)
    artifact = export_tflite(quantize_aware(mixed, calibration=x), tmp_path / "m.tflite", calibration=x)
    assert artifact.verification["full_integer"]
    assert artifact.verification["max_lsb"] <= 2
