import keras
import numpy as np
import pytest
from keras import layers

from tfopt.errors import ModelError
from tfopt.quantization import CoverageRow, coverage, quantize_aware


def small_model():
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    y = layers.Flatten(name="flat")(layers.Activation("squareplus", name="squash")(y))
    return keras.Model(x, layers.Dense(3, activation="softmax", name="scores")(y))


def test_table_names_each_layer_its_kind_and_what_int8_does():
    assert str(coverage(small_model())).splitlines() == [
        "layer              kind        computes  remark",
        "conv               Conv2D      int8      int8 weights per output channel, int8 output",
        "conv_activation    ReLU        int8      fused into conv",
        "squash             Activation  float     the activation 'squareplus' has no int8 kernel",
        "flat               Flatten     int8      int8; output has the input's range: values pass unchanged",
        "scores             Dense       int8      int8 weights per output channel, int8 output",
        "scores_activation  Softmax     int8      int8; output has a range that TFLite fixes",
    ]


def test_layers_in_float_come_with_their_reason():
    assert coverage(small_model()).in_float == (
        CoverageRow(
            "squash", "Activation", "float", "the activation 'squareplus' has no int8 kernel", unsupported=True
        ),
    )


def test_model_of_quantizable_layers_has_none_in_float():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="relu")])
    assert coverage(model).in_float == ()


@pytest.mark.parametrize("layers", [{}, {"conv|scores": "none"}, {"flat": "dynamic"}])
def test_quantize_aware_model_keeps_its_coverage(layers, tmp_path):
    model = small_model()
    aware = quantize_aware(model, calibration=np.ones((4, 8, 8, 3)), layers=layers)
    aware.save(tmp_path / "aware.keras")
    rows = coverage(keras.models.load_model(tmp_path / "aware.keras")).rows
    assert rows == coverage(aware).rows
    if not layers:
        assert rows == coverage(model).rows
    else:
        kept = {row.layer for row in rows if row.remark.endswith(f"mode {next(iter(layers.values()))}")}
        assert kept == ({"flat"} if "flat" in layers else {"conv", "conv_activation", "scores", "scores_activation"})


def test_layers_of_nested_models_have_rows():
    nested = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="inner"), layers.ReLU()])
    model = keras.Sequential([keras.Input((8, 8, 3)), nested, layers.Flatten(name="flat")])
    assert [row.layer for row in coverage(model).rows][::2] == ["inner", "flat"]


def test_subclassed_model_is_refused():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    model = Subclassed()
    model(np.zeros((1, 2), np.float32))
    with pytest.raises(ModelError, match="is subclassed"):
        coverage(model)
