import keras
import numpy as np
import pytest
from keras import layers

from tfopt.surgery.elementary import as_elementary


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
        (lambda x: x * keras.ops.sigmoid(x), layers.Multiply),
        (lambda x: keras.ops.sigmoid(x) - x, layers.Subtract),
    ],
    ids=["add", "from number", "subtract", "per channel", "divide", "tensors", "product", "difference"],
)
def test_operators_become_layers(expression, kind):
    x = keras.Input((5, 3))
    model = keras.Model(x, expression(x))
    rewritten = as_elementary(model)
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
    rewritten = as_elementary(model)
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
    rewritten = as_elementary(model)
    assert [part.name for part in rewritten.layers][1:] == ["sep_depthwise", "sep", "sep_activation"][
        : 2 + (layer.activation is not keras.activations.linear)
    ]
    same_outputs(model, rewritten)


def test_a_separable_convolution_keeps_its_regularizers_and_flags():
    x = keras.Input((9, 9, 3))
    layer = layers.SeparableConv2D(3, 3, depthwise_regularizer="l2", pointwise_regularizer="l1", padding="same")
    model = keras.Model(x, layer(layer(x)))
    layer.trainable = False
    rewritten = as_elementary(model)
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


def test_a_model_of_elementary_layers_is_returned_as_it_is():
    x = keras.Input((8, 8, 3))
    model = keras.Model(x, layers.Add()([layers.BatchNormalization()(layers.Conv2D(3, 1)(x)), x]))
    assert as_elementary(model) is model


def kinds(model):
    return [type(operation).__name__ for operation in model.operations if not isinstance(operation, layers.InputLayer)]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (lambda x: -x, ["Rescaling"]),
        (lambda x: x**2, ["Multiply"]),
        (lambda x: keras.ops.square(x), ["Multiply"]),
        (lambda x: keras.ops.maximum(x, 0), ["ReLU"]),
        (lambda x: keras.ops.relu(x), ["ReLU"]),
        (lambda x: keras.ops.clip(x, 0, 6), ["ReLU"]),
        (lambda x: keras.ops.sqrt(keras.ops.relu6(x)), ["ReLU", "PositiveFunction"]),
        (lambda x: keras.ops.matmul(x, np.ones((3, 2), np.float32)), ["Dense"]),
        (lambda x: keras.ops.softmax(x, axis=1), ["Permute", "Softmax", "Permute"]),
        (lambda x: layers.Softmax(axis=1)(x), ["Permute", "Softmax", "Permute"]),
        (lambda x: layers.Average()([x, x * 2.0, x * 3.0]), ["Rescaling", "Add", "Rescaling", "Add", "Rescaling"]),
        (lambda x: layers.Multiply()([x, x, x]), ["Multiply", "Multiply"]),
        (lambda x: keras.ops.maximum(x, x[:, :1]), ["GetItem", "Maximum"]),
        (lambda x: x**3, ["Power"]),
        (lambda x: keras.ops.clip(x, -1, 1), ["Clip"]),
    ],
)
def test_operations_become_the_layers_that_do_the_same(expression, expected):
    x = keras.Input((5, 3))
    model = keras.Model(x, expression(x))
    rewritten = as_elementary(model)
    assert kinds(rewritten) == expected
    same_outputs(model, rewritten)


def test_the_product_with_a_constant_has_no_trainable_weight():
    x = keras.Input((5, 3))
    model = keras.Model(x, keras.ops.matmul(x, np.ones((3, 2), np.float32)))
    assert not as_elementary(model).trainable_weights


def test_operations_get_names_that_are_free():
    x = keras.Input((5, 3))
    y = layers.Dense(3, name="norm_mean")(x)
    y = layers.LayerNormalization(name="norm")(y)
    model = keras.Model(x, layers.Dense(2, name="norm_variance")(y))
    rewritten = as_elementary(model)
    names = [operation.name for operation in rewritten.operations]
    assert len(set(names)) == len(names)
    assert {"norm_mean", "norm_mean_1", "norm_variance", "norm_variance_1", "norm"} <= set(names)


@pytest.mark.parametrize(
    "masking", [layers.Masking(), layers.Embedding(9, 4, mask_zero=True)], ids=["values", "tokens"]
)
def test_where_masks_flow_what_would_lose_them_stays(masking):
    x = keras.Input((5, 4) if isinstance(masking, layers.Masking) else (5,))
    y = layers.LayerNormalization(name="norm")(masking(x))
    y = layers.Dense(4, activation="relu")(y)
    y = layers.LSTM(4)(y)
    model = keras.Model(x, layers.LayerNormalization(name="after")(y))
    rewritten = as_elementary(model)
    assert isinstance(rewritten.get_layer("norm"), layers.LayerNormalization)
    assert isinstance(rewritten.get_layer("after"), layers.DepthwiseConv1D)
    assert any(isinstance(layer, layers.ReLU) for layer in rewritten.layers)
    data = np.random.default_rng(0).integers(0, 2, (6, *x.shape[1:])).astype(np.float32)
    data[:, 3:] = 0
    np.testing.assert_allclose(rewritten(data), model(data), rtol=1e-5, atol=1e-5)
