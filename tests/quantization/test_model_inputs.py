"""Inputs as users have them: dicts in any order, odd names, layers as tf_keras saved them."""

import keras
import numpy as np
import pytest
from keras import layers

import tfopt
from tfopt.quantization import coverage, quantize_aware


def test_dict_inputs_keep_their_order() -> None:
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    model = keras.Model({"b": b, "a": a}, layers.Subtract()([layers.Rescaling(1.0)(b), a]))
    x = {"b": np.full((8, 3), 5.0, np.float32), "a": np.full((8, 3), 2.0, np.float32)}
    aware = quantize_aware(model, calibration=x)
    np.testing.assert_allclose(aware.predict(x, verbose=0), 3.0, atol=0.05)


def test_batch_norm_over_the_last_axis_by_its_number() -> None:
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.BatchNormalization(axis=3), layers.ReLU()]
    )
    rows = coverage(model).rows
    assert rows[1].remark == f"fused into {rows[0].layer}"


@pytest.mark.slow
def test_an_input_name_with_a_space(tmp_path) -> None:
    x = keras.Input((4,), name="a name")
    samples = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    aware = quantize_aware(keras.Model(x, layers.Dense(2)(x)), calibration=samples)
    artifact = tfopt.export_tflite(aware, tmp_path / "m.tflite", calibration=samples)
    assert artifact.inputs[0].name == "a_name"


def test_images_without_a_channel_axis() -> None:
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(2)])
    samples = np.random.default_rng(0).random((16, 8, 8))
    aware = quantize_aware(model, calibration=samples)
    assert float(aware.layers[1].range()[1]) == np.float32(samples.max())
