import re

import keras
import pytest

from tfopt.errors import ConfigError, ModelError
from tfopt.surgery.select import input_axis, iterate_layers, select_kernels

layers = keras.layers


@keras.saving.register_keras_serializable("tfopt_tests")
class Block(layers.Layer):
    """A composite layer: it holds layers in attributes, a list and a dict."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(4, name="attribute")
        self.many = [layers.Dense(4, name="in_list")]
        self.named = {"key": layers.Dense(4, name="in_dict")}

    def build(self, shape):
        for layer in (self.first, *self.many, *self.named.values()):
            layer.build((*shape[:-1], 4))

    def call(self, x):
        return self.named["key"](self.many[0](self.first(x)))


class Passing(layers.Wrapper):
    """A wrapper of the user's own."""

    def call(self, x):
        return self.layer(x)


def names(model, chosen=None):
    return [layer.name for layer, _ in select_kernels(model, chosen)]


def sequential(*parts, shape=(8, 4)):
    return keras.Sequential([keras.Input(shape), *parts])


def test_every_kind_of_dense_and_conv_is_selected():
    flat = sequential(
        layers.Conv1D(2, 3, name="conv1d"),
        layers.Conv1DTranspose(2, 3, name="conv1d_transpose"),
        layers.SeparableConv1D(2, 3, name="separable1d"),
        layers.Dense(2, name="dense"),
    )
    image = sequential(
        layers.Conv2D(2, 3, name="conv2d"),
        layers.Conv2DTranspose(2, 3, name="conv2d_transpose"),
        layers.SeparableConv2D(2, 3, name="separable2d"),
        layers.DepthwiseConv2D(3, name="depthwise"),
        shape=(8, 8, 3),
    )
    volume = sequential(
        layers.Conv3D(2, 3, name="conv3d"),
        layers.Conv3DTranspose(2, 3, name="conv3d_transpose"),
        shape=(8, 8, 8, 1),
    )
    assert names(flat) == ["conv1d", "conv1d_transpose", "separable1d", "dense"]
    assert names(image) == ["conv2d", "conv2d_transpose", "separable2d"]
    assert names(volume) == ["conv3d", "conv3d_transpose"]
    assert [tuple(kernel.shape) for _, kernel in select_kernels(image)] == [
        (3, 3, 3, 2),
        (3, 3, 2, 2),
        (1, 1, 2, 2),  # the pointwise part of the separable convolution
    ]


def test_the_kernel_is_the_layers_own_variable():
    dense = layers.Dense(3)
    assert select_kernels(sequential(dense, shape=(4,)))[0] == (dense, dense.kernel)


def test_nested_models_wrappers_and_composite_layers_are_opened_once():
    shared = layers.Dense(4, name="shared")
    inner = sequential(layers.Dense(4, name="inner"), shared)
    inputs = keras.Input((8, 4))
    x = sequential(inner, layers.Dense(4, name="middle"))(inputs)
    x = layers.TimeDistributed(layers.Dense(4, name="timed"))(shared(x))
    x = Passing(Passing(layers.Dense(4, name="wrapped")))(x)
    x = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(x)
    model = keras.Model(inputs, Block(name="block")(x))
    assert sorted(names(model)) == sorted(
        ["inner", "shared", "middle", "timed", "wrapped", "attribute", "in_list", "in_dict"]
    )
    every = list(iterate_layers(model))
    assert len({id(layer) for layer in every}) == len(every)
    assert not any(isinstance(layer, (keras.Model, layers.Wrapper)) for layer in every)


def test_a_dense_with_a_layer_as_activation_is_selected():
    assert names(sequential(layers.Dense(4, activation=layers.ReLU(), name="dense"))) == ["dense"]


def test_a_subclassed_model_is_opened():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.stem = layers.Dense(3, name="stem")
            self.heads = [layers.Dense(2, name="head")]

        def call(self, x):
            return self.heads[0](self.stem(x))

    model = Subclassed()
    model(keras.ops.zeros((1, 4)))
    assert sorted(names(model)) == ["head", "stem"]


def test_an_expression_matches_the_whole_name():
    model = sequential(*(layers.Dense(4, name=f"dense_{i}") for i in (1, 10, 2)))
    assert names(model, "dense_1") == ["dense_1"]
    assert names(model, re.compile(r"dense_1\d*")) == ["dense_1", "dense_10"]


def test_a_filter_reaches_kernels_beyond_the_default():
    model = sequential(layers.Conv2D(2, 3, name="conv"), layers.DepthwiseConv2D(3, name="depthwise"), shape=(8, 8, 3))
    assert names(model, "depthwise") == ["depthwise"]
    assert names(model, lambda layer: layer.name != "conv") == ["depthwise"]


def test_the_table_of_an_embedding_is_a_kernel_where_it_is_chosen():
    words = layers.Embedding(9, 4, name="words")
    model = keras.Sequential([keras.Input((8,), dtype="int32"), words, layers.Dense(2, name="head")])
    assert names(model) == ["head"]
    assert select_kernels(model, "words") == [(words, words.embeddings)]
    assert input_axis(words, words.embeddings) is None
    with pytest.raises(ModelError, match=r"'small' has no Dense or Conv layer. Layers with a kernel: words\."):
        select_kernels(keras.Sequential([keras.Input((8,), dtype="int32"), words], name="small"))


def test_what_matches_nothing_names_what_there_is():
    model = sequential(layers.Dense(4, name="stem"), layers.Dense(4, name="head"))
    with pytest.raises(ConfigError, match=r"layers='tail' matches no layer .* Available: stem, head\."):
        select_kernels(model, "tail")
    with pytest.raises(ConfigError, match=r"Available: stem, head\."):
        select_kernels(model, lambda layer: False)


@pytest.mark.parametrize("bad", ["dense(", 3])
def test_a_filter_of_another_kind_is_refused(bad):
    with pytest.raises(ConfigError, match=re.escape(f"Received: {bad!r}")):
        select_kernels(sequential(layers.Dense(4)), bad)


def test_a_model_without_kernels_is_refused():
    with pytest.raises(ModelError, match=r"has no Dense or Conv layer. Layers with a kernel: depthwise\."):
        select_kernels(sequential(layers.DepthwiseConv2D(3, name="depthwise"), shape=(8, 8, 3)))


def test_an_unbuilt_layer_is_refused():
    with pytest.raises(ModelError, match=r"'dense' is not built"):
        select_kernels(keras.Sequential([layers.Dense(4, name="dense")]))


def test_lora_and_quantized_kernels_are_refused():
    lora, quantized = layers.Dense(4, name="lora"), layers.Dense(4, name="int8")
    model = sequential(lora)
    lora.enable_lora(2)
    with pytest.raises(ModelError, match=r"'lora' is not a float variable"):
        select_kernels(model)
    model = sequential(quantized)
    quantized.quantize("int8")
    with pytest.raises(ModelError, match=r"'int8' is not a float variable"):
        select_kernels(model)


def test_depthwise_kernels_are_selected_on_demand():
    parts = layers.Conv2D(2, 3, name="conv"), layers.DepthwiseConv2D(3, name="depthwise")
    model = sequential(*parts, layers.SeparableConv2D(4, 3, name="separable"), shape=(8, 8, 3))

    def shapes(chosen=None):
        return [(layer.name, tuple(kernel.shape)) for layer, kernel in select_kernels(model, chosen, depthwise=True)]

    assert shapes() == [
        ("conv", (3, 3, 3, 2)),
        ("depthwise", (3, 3, 2, 1)),
        ("separable", (3, 3, 2, 1)),
        ("separable", (1, 1, 2, 4)),
    ]
    assert shapes("separable") == shapes()[2:]


def test_the_axis_of_the_inputs():
    image = sequential(
        layers.Conv2D(5, 3),
        layers.Conv2DTranspose(6, 3),
        layers.SeparableConv2D(7, 3),
        layers.DepthwiseConv2D(3),
        layers.EinsumDense("abcd,de->abce", (None, None, 9), name="einsum"),
        shape=(9, 9, 4),
    )
    steps = sequential(layers.Conv1D(5, 3), layers.GRU(6), layers.Dense(7), shape=(8, 4))

    def inputs(model):
        found = select_kernels(model, lambda layer: True, depthwise=True)
        axes = [(kernel, input_axis(layer, kernel)) for layer, kernel in found]
        return [axis if axis is None else kernel.shape[axis] for kernel, axis in axes]

    assert inputs(image) == [4, 5, None, 6, None, None]
    assert inputs(steps) == [4, 5, 6]
