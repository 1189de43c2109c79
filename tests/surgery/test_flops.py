import keras
import numpy as np
import pytest
from keras import layers, ops

from tfopt.errors import ModelError
from tfopt.surgery.flops import costs


def counted(layer, *shapes):
    inputs = [keras.Input(shape) for shape in shapes]
    return costs(keras.Model(inputs, layer(*inputs)))


@pytest.mark.parametrize(
    ("layer", "shape", "multiplications"),
    [
        (layers.Dense(5), (7,), 7 * 5),
        (layers.Dense(5), (3, 4, 7), 12 * 7 * 5),
        (layers.Conv1D(5, 3, padding="same", strides=2), (8, 7), 4 * 3 * 7 * 5),
        (layers.Conv2D(5, (2, 3)), (8, 8, 4), 7 * 6 * 2 * 3 * 4 * 5),
        (layers.Conv2D(6, 3, groups=2, padding="same"), (8, 8, 4), 64 * 9 * 2 * 6),
        (layers.Conv2D(6, 3, dilation_rate=2), (8, 8, 4), 16 * 9 * 4 * 6),
        (layers.Conv3D(2, 2), (4, 4, 4, 3), 27 * 8 * 3 * 2),
        (layers.Conv2DTranspose(5, 3, strides=2), (8, 8, 4), 64 * 9 * 4 * 5),
        (layers.DepthwiseConv2D(3, depth_multiplier=2), (8, 8, 4), 36 * 9 * 8),
        (layers.DepthwiseConv1D(3), (8, 4), 6 * 3 * 4),
        (layers.SeparableConv2D(5, 3, depth_multiplier=2), (8, 8, 4), 36 * (9 * 8 + 8 * 5)),
        (layers.EinsumDense("abc,cde->abde", (None, 3, 2)), (6, 4), 6 * 4 * 3 * 2),
        (layers.LSTM(3), (6, 4), 6 * (4 + 3) * 12),
        (layers.GRU(3), (6, 4), 6 * (4 + 3) * 9),
        (layers.Bidirectional(layers.SimpleRNN(3)), (6, 4), 2 * 6 * (4 + 3) * 3),
        (layers.TimeDistributed(layers.Conv2D(5, 3)), (2, 8, 8, 4), 2 * 36 * 9 * 4 * 5),
        (layers.BatchNormalization(), (8, 8, 4), 0),
        (layers.PReLU(), (8, 8, 4), 0),
        (layers.Embedding(10, 4), (6,), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, layers.Layer) else "",
)
def test_multiply_accumulates(layer, shape, multiplications):
    found = counted(layer, shape)
    assert found.flops == 2 * multiplications
    assert found.parameters == layer.count_params()
    assert found.not_counted == ()


def test_attention_counts_its_projections_and_products():
    attention = layers.MultiHeadAttention(2, 3, value_dim=5)
    found = counted(attention, (7, 8), (9, 4))
    projections = 7 * 8 * 6 + 9 * 4 * 6 + 9 * 4 * 10 + 7 * 10 * 8
    assert found.flops == 2 * (projections + 2 * 7 * 9 * (3 + 5))


def test_product_of_tensors():
    assert counted(ops.matmul, (3, 4), (4, 5)).flops == 2 * 3 * 4 * 5


def test_a_layer_used_twice_computes_twice_and_holds_its_weights_once():
    shared = layers.Dense(4, name="shared")
    found = counted(lambda x: shared(shared(x)), (4,))
    [row] = found.layers
    assert (row.name, row.flops, row.parameters) == ("shared", 2 * 32, 20)
    assert found.parameters == 20


def test_nested_models_are_laid_flat():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="dense")], name="inner")
    found = counted(lambda x: layers.Dense(2, name="dense")(inner(x)), (4,))
    assert [row.name for row in found.layers] == ["inner_dense", "dense"]


def test_what_is_not_counted_is_named():
    class Own(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 2))

        def call(self, x):
            return x @ self.kernel

    found = counted(lambda x: layers.Attention()([Own(name="first")(x), Own(name="second")(x)]), (6, 4))
    assert found.flops == 0
    assert [row.kind for row in found.not_counted] == ["Own", "Own", "Attention"]
    assert "not counted: what a Own computes is not known" in str(found)


def test_unknown_size_is_named():
    found = counted(layers.Conv2D(5, 3, name="conv"), (None, None, 4))
    [row] = found.not_counted
    assert "known only when the model runs" in row.remark
    assert row.parameters == 185
    assert "?" in str(found)


def test_subclassed_model_is_refused():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    model = Subclassed()
    model(np.zeros((1, 2)))
    with pytest.raises(ModelError, match="is subclassed"):
        costs(model)


@pytest.mark.slow
def test_mobilenet_v2_costs_what_its_paper_says():
    model = keras.applications.MobileNetV2(weights=None)
    found = costs(model)
    assert found.flops / 2 == pytest.approx(300e6, rel=0.01)  # Sandler et al. 2018, table 4
    assert found.parameters == model.count_params() == 3_538_984
