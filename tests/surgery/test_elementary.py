import keras
import numpy as np
import pytest
from keras import layers

from tfopt.surgery.elementary import as_elementary, split_operators, split_separable_convolutions


def same_outputs(model, rewritten):
    data = [np.random.default_rng(0).normal(size=(4, *x.shape[1:])).astype(np.float32) for x in model.inputs]
    data = data if len(data) > 1 else data[0]
    np.testing.assert_allclose(rewritten(data), model(data), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        (lambda x: x + 1.5, layers.Rescaling),
        (lambda x: 1.5 - x, layers.Rescaling),
        (lambda x: x - 1.5, layers.Rescaling),
        (lambda x: x * np.array([1.0, 2.0, 3.0], np.float32), layers.Rescaling),
        (lambda x: x / 4.0, layers.Rescaling),
        (lambda x: x + x, layers.Add),
        (lambda x: x * keras.ops.relu(x), layers.Multiply),
        (lambda x: keras.ops.relu(x) - x, layers.Subtract),
    ],
    ids=["add", "from number", "subtract", "per channel", "divide", "tensors", "product", "difference"],
)
def test_operators_become_layers(expression, kind):
    x = keras.Input((5, 3))
    model = keras.Model(x, expression(x))
    rewritten = split_operators(model)
    assert isinstance(rewritten.operations[-1], kind)
    same_outputs(model, rewritten)


@pytest.mark.parametrize(
    "expression",
    [
        lambda x: x / keras.ops.exp(x),
        lambda x: 2.0 / (keras.ops.exp(x)),
        lambda x: x + np.arange(5, dtype=np.float32)[:, np.newaxis],
        lambda x: x[:, 0],
        lambda x: x[:, :, :1] + np.arange(3, dtype=np.float32),
    ],
    ids=["quotient", "reciprocal", "not per channel", "slice", "broadcast to more channels"],
)
def test_what_is_no_layer_stays(expression):
    x = keras.Input((5, 3))
    model = keras.Model(x, expression(x))
    rewritten = split_operators(model)
    assert [type(operation) for operation in rewritten.operations] == [type(o) for o in model.operations]
    same_outputs(model, rewritten)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.SeparableConv2D(6, 3, strides=2, depth_multiplier=2, bias_initializer="normal"), (9, 9, 3)),
        (layers.SeparableConv2D(6, (3, 5), padding="same", activation="relu", use_bias=False), (9, 9, 3)),
        (layers.SeparableConv1D(6, 3, dilation_rate=2, bias_initializer="normal"), (9, 3)),
    ],
    ids=["strides", "kernel", "1-D"],
)
def test_separable_convolutions_become_two(layer, shape):
    layer.name = "sep"
    x = keras.Input(shape)
    model = keras.Model(x, layer(layer(x)) if layer.filters == shape[-1] else layer(x))
    rewritten = split_separable_convolutions(model)
    assert [part.name for part in rewritten.layers][1:] == ["sep_depthwise", "sep"]
    same_outputs(model, rewritten)


def test_a_separable_convolution_keeps_its_regularizers_and_flags():
    x = keras.Input((9, 9, 3))
    layer = layers.SeparableConv2D(3, 3, depthwise_regularizer="l2", pointwise_regularizer="l1", padding="same")
    model = keras.Model(x, layer(layer(x)))
    layer.trainable = False
    rewritten = split_separable_convolutions(model)
    assert len(rewritten.layers) == 3  # shared before, shared after
    assert not rewritten.trainable_weights
    same_outputs(model, rewritten)


def test_hard_sigmoid_is_made_of_three_layers():
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(3, activation="hard_sigmoid", name="gate")(x))
    rewritten = as_elementary(model)
    names = [layer.name for layer in rewritten.layers][1:]
    assert names == ["gate", "gate_activation_shift", "gate_activation_relu6", "gate_activation"]
    same_outputs(model, rewritten)
