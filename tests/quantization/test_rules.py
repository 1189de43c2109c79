import keras
import numpy as np
import pytest
from keras import layers

from tfopt.quantization.rules import Output, Rule, rule_for
from tfopt.surgery.elementary import as_elementary
from tfopt.surgery.graph import read_graph


@pytest.mark.parametrize(
    "layer",
    [
        layers.AlphaDropout(0.1),
        layers.AugMix(),
        layers.RandomContrast(0.1),
        layers.RandomFlip(),
        layers.RandomZoom(0.1),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_what_does_nothing_at_inference_passes_values_on(layer):
    assert rule_for(layer, 4) == Rule(Output.SAME)
    x = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(layer(x, training=False), x)


@pytest.mark.parametrize(
    ("layer", "scale_axes", "weights"),
    [
        (layers.Conv3D(2, 3), (0, 1, 2, 3), ("kernel",)),
        (layers.Conv3DTranspose(2, 3), (0, 1, 2, 4), ("kernel",)),
        (layers.LSTM(2), (0,), ("cell.kernel", "cell.recurrent_kernel")),
        (layers.GRU(2), (0,), ("cell.kernel", "cell.recurrent_kernel")),
        (layers.SimpleRNN(2), (0,), ("cell.kernel", "cell.recurrent_kernel")),
        (
            layers.Bidirectional(layers.LSTM(2)),
            (0,),
            (
                "forward_layer.cell.kernel",
                "forward_layer.cell.recurrent_kernel",
                "backward_layer.cell.kernel",
                "backward_layer.cell.recurrent_kernel",
            ),
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, keras.Layer) else "",
)
def test_weights_of_layers_that_compute_in_float(layer, scale_axes, weights):
    layer.build((None, 5, 5, 5, 3) if "Conv" in type(layer).__name__ else (None, 5, 3))
    rule = rule_for(layer, 5)
    assert isinstance(rule, Rule)
    assert rule.in_float
    assert (rule.scale_axes, rule.weights) == (scale_axes, weights)
    for path in rule.weights:
        variable = layer
        for attribute in path.split("."):
            variable = getattr(variable, attribute)
        assert isinstance(variable, keras.Variable)


@pytest.mark.parametrize(
    ("equation", "scale_axes"),
    [("abc,cd->abd", (0,)), ("abc,cde->abde", (0,)), ("abcd,cde->abe", (0, 1)), ("...c,cd->...d", (0,))],
)
def test_einsum_dense_has_a_scale_per_output_channel(equation, scale_axes):
    assert rule_for(layers.EinsumDense(equation, (None, 5)), 3) == Rule(Output.OWN, scale_axes=scale_axes)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (layers.EinsumDense("abc,bcd->abd", (5, 4)), "in input, kernel and output alike"),
        (layers.Lambda(lambda x: x), "the code of a Lambda is unknown"),
        (layers.RandomCrop(3, 3), "CenterCrop"),
        (layers.Rescaling([[1.0], [2.0]]), "one number, or one for each channel"),
        (layers.Resizing(4, 4, interpolation="bicubic"), "nearest and bilinear"),
        (layers.Resizing(4, 4, crop_to_aspect_ratio=True), "aspect ratio"),
        (layers.UpSampling2D(2, interpolation="bicubic"), "nearest and bilinear"),
        (layers.Embedding(5, 4, mask_zero=True), "mask_zero"),
        (layers.Masking(), "masks"),
        (layers.Activation("squareplus"), "'squareplus' has no int8 kernel"),
        (layers.Activation(lambda x: x), "the model's own"),
        (layers.MultiHeadAttention(2, 2), "without masks"),
        (layers.MaxPooling3D(), "three dimensions"),
        (layers.Dot(axes=1), "no int8 operator for Dot"),
        (layers.Bidirectional(layers.RNN(layers.LSTMCell(3))), "LSTM, GRU and SimpleRNN"),
        (layers.Conv2D(3, 3, data_format="channels_first"), "channels last"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, keras.Layer) else "",
)
def test_what_stays_in_float_says_why(layer, reason):
    assert reason in rule_for(layer, 4)


def test_a_layer_of_the_model_itself_says_so():
    class Dense(layers.Dense):
        pass

    assert rule_for(Dense(3), 2) == "Dense is the model's own: what it computes is known to its code alone"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (lambda x: keras.ops.mean(x, axis=-1), Output.OWN),
        (lambda x: keras.ops.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0))), Output.SAME),
        (lambda x: keras.ops.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)), mode="reflect"), "only padding by a constant"),
        (lambda x: keras.ops.softmax(x, axis=(1, 2)), "softmax over the last axis"),
        (lambda x: keras.ops.log_softmax(x, axis=1), "log-softmax over the last axis"),
        (lambda x: keras.ops.image.resize(x, (3, 3), interpolation="bicubic"), "nearest and bilinear"),
        (lambda x: keras.ops.max_pool(x, 2), Output.SAME),
        (lambda x: keras.ops.sin(x), "TFLite has no int8 operator for Sin"),
    ],
)
def test_operations_have_a_rule_or_a_reason(expression, expected):
    x = keras.Input((8, 8, 3))
    [call] = read_graph(as_elementary(keras.Model(x, expression(x)))).calls
    rule = rule_for(call.operation, 4)
    assert expected in rule if isinstance(rule, str) else rule.output is expected
