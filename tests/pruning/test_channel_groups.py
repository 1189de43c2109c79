import keras
import numpy as np
import pytest
from keras import layers, ops
from zeroed_channels import randomize, relative_error, samples, zeroed

from tfopt.pruning.channel_groups import find_channel_groups
from tfopt.pruning.channel_removal import remove_channels
from tfopt.surgery.graph import read_graph

GRAPHS = {}


@pytest.fixture(autouse=True)
def float64():
    """The models compute in float64, so that a wrong channel cannot pass for a rounding error."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def graph(build):
    """Registers a function from an input `(8, 8, 3)` to the outputs of a model."""
    GRAPHS[build.__name__] = build
    return build


def head(x):
    return layers.Dense(2, name="head")(layers.GlobalAveragePooling2D()(x))


def conv(filters, size=3, name=None, **options):
    return layers.Conv2D(filters, size, padding="same", name=name, **options)


@graph
def plain(x):
    x = conv(6, name="a", activation="relu")(x)
    x = layers.Dropout(0.2)(layers.MaxPooling2D()(layers.BatchNormalization()(x)))
    x = layers.LeakyReLU()(conv(5, name="b", use_bias=False)(layers.ZeroPadding2D()(x)))
    return head(x)


@graph
def dense_on_several_axes(x):
    return head(layers.Dense(5, "gelu", name="a")(layers.Dense(6, "tanh", name="b")(x)))


@graph
def flatten(x):
    x = layers.Flatten()(conv(4, name="a")(x))
    return layers.Dense(2, name="head")(layers.Dense(7, "relu", name="b")(x))


@graph
def flatten_by_reshape(x):
    return layers.Dense(2, name="head")(layers.Reshape((-1,))(conv(4, name="a")(x)))


@graph
def flatten_meets_dense(x):
    x = conv(4, 3, name="a", strides=4)(x)
    flat = layers.Flatten()(x)
    return layers.Dense(2, name="head")(layers.Multiply()([flat, layers.Dense(16, name="b")(layers.Flatten()(x))]))


@graph
def unflatten(x):
    x = layers.Dense(4 * 4 * 6, "relu", name="a")(layers.Flatten()(x))
    x = layers.Reshape((4, 4, 6))(x)
    return conv(2, name="head")(layers.UpSampling2D()(layers.Conv2DTranspose(5, 3, name="b", activation="relu")(x)))


@graph
def split_in_heads(x):
    x = layers.Reshape((8, 8, 2, 3))(layers.Dense(6, name="a")(x))
    return layers.Dense(2, name="head")(layers.Flatten()(layers.Dense(4, name="b")(x)))


@graph
def one_dimensional(x):
    x = layers.Reshape((64, 3))(x)
    x = layers.Conv1D(6, 3, name="a", padding="causal")(x)
    x = layers.MaxPooling1D()(layers.DepthwiseConv1D(3, depth_multiplier=2, activation="relu")(x))
    x = layers.SeparableConv1D(5, 3, name="b", depth_multiplier=2)(layers.ZeroPadding1D()(x))
    x = layers.Conv1DTranspose(4, 3, name="c")(x)
    return layers.Dense(2, name="head")(layers.GlobalMaxPooling1D()(layers.Cropping1D()(x)))


@graph
def three_dimensional(x):
    x = layers.Conv3D(6, 2, name="a", activation="relu")(layers.Reshape((4, 4, 4, 3))(x))
    x = layers.Conv3DTranspose(5, 2, name="b")(layers.SpatialDropout3D(0.1)(x))
    return layers.Dense(2, name="head")(layers.GlobalAveragePooling3D()(layers.Cropping3D()(x)))


@graph
def depthwise(x):
    x = conv(6, name="a")(x)
    x = layers.BatchNormalization()(layers.DepthwiseConv2D(3, name="dw", activation="relu6")(x))
    return head(conv(5, 1, name="b")(x))


@graph
def depthwise_with_multiplier(x):
    x = conv(4, name="a")(x)
    x = layers.BatchNormalization()(layers.DepthwiseConv2D(3, depth_multiplier=3, name="dw")(x))
    return head(layers.ReLU()(x))


@graph
def separable(x):
    x = layers.SeparableConv2D(6, 3, depth_multiplier=2, name="a", activation="silu")(x)
    return head(layers.SeparableConv2D(5, 3, depth_multiplier=3, use_bias=False, name="b")(x))


@graph
def residual(x):
    y = conv(6, name="stem")(x)
    for index in range(2):
        z = conv(5, name=f"inner_{index}", activation="relu")(y)
        y = layers.Add()([y, layers.BatchNormalization()(conv(6, name=f"outer_{index}")(z))])
    return head(y)


@graph
def merges(x):
    parts = [conv(6, name=name)(x) for name in "abcdef"]
    y = layers.Subtract()(parts[:2])
    y = layers.Average()([y, parts[2]])
    y = layers.Maximum()([y, parts[3]])
    y = layers.Minimum()([y, parts[4]])
    return head(layers.Multiply()([y, parts[5]]))


@graph
def squeeze_excite(x):
    x = conv(6, name="a")(x)
    s = layers.Reshape((1, 1, 6))(layers.GlobalAveragePooling2D()(x))
    s = conv(6, 1, name="excite", activation="sigmoid")(conv(4, 1, name="squeeze", activation="relu")(s))
    return head(layers.Multiply()([x, s]))


@graph
def squeeze_excite_of_operators(x):
    x = conv(6, name="a")(x)
    s = ops.expand_dims(ops.mean(x, axis=(1, 2)), (1, 2))
    s = layers.Dense(6, name="excite")(layers.Dense(4, "relu", name="squeeze")(s))
    return head(x * (ops.relu6(s + 3.0) / 6.0))


@graph
def squeeze_excite_of_other_rank(x):
    x = conv(6, name="a")(x)
    return head(layers.Multiply()([x, layers.Dense(6, "sigmoid", name="b")(layers.GlobalMaxPooling2D()(x))]))


@graph
def dense_block(x):
    x = conv(4, name="stem")(x)
    for index in range(3):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Concatenate()([x, conv(3, name=f"growth_{index}")(y)])
    return head(conv(5, 1, name="transition")(x))


@graph
def concatenation_then_residual(x):
    both = layers.Concatenate()([conv(4, name="a")(x), conv(3, name="b")(x)])
    return head(layers.Add()([both, conv(7, name="c")(x)]))


@graph
def concatenation_of_rows(x):
    return head(layers.Concatenate(axis=1)([conv(4, name="a")(x), conv(4, name="b")(x)]))


@graph
def grouped(x):
    x = conv(8, name="a")(x)
    x = layers.BatchNormalization()(layers.Conv2D(12, 3, groups=4, name="grouped", activation="relu")(x))
    return head(x)


@graph
def slopes(x):
    x = layers.PReLU(alpha_initializer="uniform")(conv(5, name="a")(x))
    return head(layers.PReLU(alpha_initializer="uniform", shared_axes=(1, 2))(conv(4, name="b")(x)))


@graph
def values_per_channel(x):
    x = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0])(x)
    x = layers.Rescaling([1.0, 2.0, 3.0, 4.0], [0.4, 0.3, 0.2, 0.1])(conv(4, name="a")(x))
    adapted = layers.Normalization()
    adapted.adapt(np.random.default_rng(2).normal(3.0, np.arange(1, 6), (64, 5)))
    x = adapted(conv(5, name="b")(x))
    return head(layers.Normalization(mean=[0.1, 0.2, 0.3, 0.4, 0.5], variance=[5.0, 4.0, 3.0, 2.0, 1.0])(x))


@graph
def operations(x):
    x = ops.relu(conv(6, name="a")(x)) * 2.0 - 1.0
    x = ops.concatenate([x, ops.sigmoid(conv(4, name="b")(x))], axis=-1)
    x = ops.transpose(x, (0, 2, 1, 3))
    x = ops.squeeze(ops.max(x, axis=1, keepdims=True), 1)
    return layers.Dense(2, name="head")(ops.reshape(x, (-1, 80)))


@graph
def shared_layer(x):
    a, b, shared = conv(4, name="a")(x), conv(4, name="b")(x), conv(5, name="shared")
    norm = layers.BatchNormalization()
    return head(layers.Concatenate()([norm(shared(a)), norm(shared(b))]))


@graph
def layer_called_on_its_output(x):
    shared = conv(5, name="shared", activation="tanh")
    return head(shared(shared(conv(5, name="a")(x))))


@graph
def activation_shared_by_sizes(x):
    relu = layers.ReLU()
    return head(relu(conv(5, name="b")(relu(conv(6, name="a")(x)))))


@graph
def several_outputs(x):
    x = conv(6, name="a")(x)
    y = conv(5, name="b")(x)
    return {"mask": conv(2, name="mask")(y), "class": head(x), "features": conv(4, name="features")(x)}


@graph
def recurrent(x):
    x = layers.Reshape((8, 24))(conv(6, name="a")(layers.Cropping2D(((0, 0), (2, 2)))(x)))
    x = layers.Conv1D(5, 3, name="b")(x)
    x = layers.Conv1D(7, 3, name="c")(layers.Bidirectional(layers.LSTM(3, return_sequences=True))(x))
    return layers.Dense(2, name="head")(layers.GRU(4)(x))


@graph
def permuted(x):
    x = layers.Permute((2, 1, 3))(conv(6, name="a")(x))
    x = layers.RepeatVector(3)(layers.GlobalAveragePooling2D()(x))
    return layers.Dense(2, name="head")(layers.GaussianNoise(0.1)(x))


@graph
def nested(x):
    inputs = keras.Input((8, 8, 4))
    y = layers.Add()([inputs, conv(4, name="a")(inputs)])
    inner = keras.Model(inputs, layers.Activation("hard_silu")(y), name="inner")
    sequential = keras.Sequential(
        [keras.Input((8, 8, 4)), conv(5, name="a"), layers.BatchNormalization()], name="outer"
    )
    return head(sequential(inner(conv(4, name="stem")(x))))


def draw(name):
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 3))
    return keras.Model(x, GRAPHS[name](x))


def build(name):
    return randomize(draw(name))


def groups_of(model):
    return find_channel_groups(read_graph(model))


def table(model):
    """For each group of layers how many channels may go."""
    return {" ".join(group.layers): len(group.channels) for group in groups_of(model).groups if not group.reason}


def reasons(model):
    return {" ".join(group.layers): group.reason for group in groups_of(model).groups if group.reason}


def some_stay(groups, seed):
    """Marks random channels of each group that may lose some; at least one goes and one stays."""
    rng = np.random.default_rng(seed)
    stays = np.ones(groups.count, dtype=bool)
    for group in groups.groups:
        if not group.reason and len(group.channels) > 1:
            gone = rng.integers(1, len(group.channels))
            stays[rng.choice(group.channels, gone, replace=False)] = False
    return stays


@pytest.mark.parametrize("name", GRAPHS)
def test_smaller_model_equals_the_original_with_zeroed_channels(name):
    model = build(name)
    config, before = model.get_config(), model.get_weights()
    groups = groups_of(model)
    for seed in range(2):
        stays = some_stay(groups, seed)
        smaller = remove_channels(groups, stays)
        assert smaller.count_params() < model.count_params()
        assert relative_error(smaller, zeroed(groups, stays), samples(model)) < 1e-9
        assert smaller.count_params() == sum(groups.size(weight, stays) for weight in model.weights)
    assert model.get_config() == config
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("name", ["grouped", "nested", "recurrent", "shared_layer", "values_per_channel"])
def test_nothing_removed_is_the_same_model(name):
    model = build(name)
    groups = groups_of(model)
    whole = remove_channels(groups, np.ones(groups.count, dtype=bool))
    assert relative_error(whole, model, samples(model)) < 1e-9
    assert whole.count_params() == model.count_params()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", {"a": 6, "b": 5}),
        ("flatten", {"a": 4, "b": 7}),
        ("flatten_meets_dense", {"a b": 4}),
        ("unflatten", {"a": 6, "b": 5}),
        ("depthwise", {"a": 6, "b": 5}),
        ("depthwise_with_multiplier", {"a": 4}),
        ("residual", {"stem outer_0 outer_1": 6, "inner_0": 5, "inner_1": 5}),
        ("merges", {"a b c d e f": 6}),
        ("squeeze_excite", {"a excite": 6, "squeeze": 4}),
        ("squeeze_excite_of_operators", {"a excite": 6, "squeeze": 4}),
        ("squeeze_excite_of_other_rank", {"a b": 6}),
        ("dense_block", {"stem": 4, "growth_0": 3, "growth_1": 3, "growth_2": 3, "transition": 5}),
        ("concatenation_then_residual", {"a c": 4, "b c": 3}),
        ("concatenation_of_rows", {"a b": 4}),
        ("grouped", {"a grouped": 4}),
        ("shared_layer", {"a b": 4, "shared": 5}),
        ("layer_called_on_its_output", {"shared a": 5}),
        ("several_outputs", {"a": 6, "b": 5}),
        ("recurrent", {"a": 6, "b": 5, "c": 7}),
        ("nested", {"stem a": 4, "outer_a": 5}),
    ],
)
def test_channels_that_are_tied(name, expected):
    found = {" ".join(sorted(key.split())): count for key, count in table(draw(name)).items()}
    assert found == {" ".join(sorted(key.split())): count for key, count in expected.items()}


def test_groups_of_a_grouped_convolution_go_as_a_whole():
    model = build("grouped")
    groups = groups_of(model)
    group = next(group for group in groups.groups if "grouped" in group.layers)
    assert dict(zip(group.layers, group.widths, strict=True)) == {"a": 2, "grouped": 3}
    stays = np.ones(groups.count, dtype=bool)
    stays[group.channels[[0, 2]]] = False
    smaller = remove_channels(groups, stays)
    layer = smaller.get_layer("grouped")
    assert (layer.groups, layer.filters, smaller.get_layer("a").filters) == (2, 6, 4)
    np.testing.assert_array_equal(layer.kernel[..., :3], model.get_layer("grouped").kernel[..., 3:6])


def test_several_inputs():
    keras.utils.set_random_seed(0)
    image, tokens, extra = keras.Input((8, 8, 3), name="image"), keras.Input((5,), dtype="int32"), keras.Input((4,))
    words = layers.GlobalAveragePooling1D()(layers.Embedding(10, 6, name="words")(tokens))
    seen = layers.GlobalAveragePooling2D()(conv(6, name="seen")(image))
    y = layers.Concatenate()([layers.Add()([words, seen]), extra])
    model = randomize(keras.Model([image, tokens, extra], layers.Dense(2, name="head")(y)))
    assert table(model) == {"words seen": 6}
    groups = groups_of(model)
    stays = some_stay(groups, 0)
    smaller = remove_channels(groups, stays)
    assert smaller.get_layer("words").output_dim == smaller.get_layer("seen").filters < 6
    assert smaller.get_layer("head").kernel.shape[0] == smaller.get_layer("seen").filters + 4
    assert relative_error(smaller, zeroed(groups, stays), samples(model)) < 1e-9


def test_initial_values_of_an_array_do_not_fix_the_size():
    matrix = np.random.default_rng(0).normal(size=(10, 6))
    x = keras.Input((5,), dtype="int32")
    words = layers.Embedding(10, 6, embeddings_initializer=keras.initializers.Constant(matrix), name="words")(x)
    model = keras.Model(x, layers.Dense(2, name="head")(layers.GlobalMaxPooling1D()(words)))
    groups = groups_of(model)
    stays = some_stay(groups, 0)
    smaller = remove_channels(groups, stays)
    np.testing.assert_allclose(smaller.get_layer("words").embeddings, matrix[:, stays[groups.groups[0].channels]])


def test_size_of_the_input_may_be_unknown():
    x = keras.Input((None, None, 3))
    model = randomize(keras.Model(x, head(conv(5, name="b")(conv(6, name="a", activation="relu")(x)))))
    groups = groups_of(model)
    stays = some_stay(groups, 0)
    smaller = remove_channels(groups, stays)
    assert smaller.input_shape == (None, None, None, 3)
    assert relative_error(smaller, zeroed(groups, stays), samples(model)) < 1e-9


@keras.saving.register_keras_serializable("tfopt_channel_tests")
def doubled(x):
    return 2.0 * x


class Unknown(layers.Layer):
    def call(self, x):
        return ops.flip(x, axis=-1)


STAYS = {
    "layer_normalization": (layers.LayerNormalization(), "its statistics run over the channels"),
    "group_normalization": (layers.GroupNormalization(2), "its statistics run over the channels"),
    "unit_normalization": (layers.UnitNormalization(), "its statistics run over the channels"),
    "softmax": (layers.Softmax(), "softmax runs over the channels"),
    "activation": (layers.Activation("softmax"), "its activation 'softmax' runs over the channels"),
    "own_activation": (layers.Activation(doubled), "known to its code alone"),
    "unknown": (Unknown(), r"\(Unknown\) reads them: what it does with channels is not known"),
    "attention": (lambda x: layers.MultiHeadAttention(2, 2)(x, x), r"\(MultiHeadAttention\).* is not known"),
    "time_distributed": (layers.TimeDistributed(layers.Dense(3)), "is not known"),
    "lambda": (layers.Lambda(lambda x: x[..., ::-1]), r"\(Lambda\) reads them"),
    "slice": (lambda x: x[..., :2], r"\(GetItem\) reads them"),
    "mean": (lambda x: ops.mean(x, axis=-1, keepdims=True), "it reduces the axis of the channels to one number"),
    "split": (layers.Reshape((8, 16, 3)), "it splits or mixes the channels"),
    "moved": (layers.Permute((3, 1, 2)), "it moves the axis of the channels"),
    "constant_beside": (lambda x: ops.concatenate([x, np.ones((3, 8, 8, 1))], -1), "is not known"),
    "constant": (lambda x: x + np.arange(6, dtype=np.float32), "constant array"),
    "clip": (lambda x: ops.clip(x, 0.0, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), "constant array"),
    "batch_norm": (layers.BatchNormalization(axis=1), "its channels are not on the last axis"),
    "rescaling": (layers.Rescaling(np.ones((8, 1)).tolist()), "other values at other positions"),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_is_not_understood_keeps_its_channels(name):
    layer, reason = STAYS[name]
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 3))
    y = layer(conv(6, name="kept")(conv(5, name="free")(x)))
    model = keras.Model(x, layers.Dense(2, name="head")(layers.Flatten()(y)))
    assert "free" in table(model)
    found = reasons(model)
    assert found.keys() >= {"kept", "head"}
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(found["kept"])
    groups = groups_of(model)
    stays = some_stay(groups, 0)
    assert relative_error(remove_channels(groups, stays), zeroed(groups, stays), samples(model)) < 1e-9


def test_what_is_tied_to_an_input_or_an_output_stays():
    x = keras.Input((8, 8, 3))
    y = layers.Add()([x, conv(3, name="tied_to_input")(x)])
    a = conv(4, name="output")(y)
    model = keras.Model(x, [a, head(layers.Add()([a, conv(4, name="tied_to_output")(y)]))])
    assert table(model) == {}
    assert reasons(model) == {
        "tied_to_input": "the model takes them",
        "output tied_to_output": "the model returns them",
        "head": "the model returns them",
    }


def test_a_single_channel_that_meets_all_stays():
    x = keras.Input((8, 8, 3))
    gate = conv(1, name="gate", activation="sigmoid")(x)
    model = keras.Model(x, head(layers.Multiply()([conv(4, name="a")(x), gate])))
    assert table(model) == {"a": 4}
    assert "broadcasts a single channel to all" in reasons(model)["gate"]


def test_fused_softmax_keeps_its_channels():
    x = keras.Input((8,))
    model = keras.Model(x, layers.Dense(2, name="head")(layers.Dense(4, "softmax", name="a")(x)))
    assert "its activation 'softmax' runs over the channels" in reasons(model)["a"]


def test_layers_that_enable_lora_keep_their_channels():
    model = build("plain")
    model.get_layer("b").enable_lora(2)
    assert "LoRA is enabled on it" in reasons(model)["a"]


def test_channels_first_is_refused():
    x = keras.Input((3, 8, 8))
    y = layers.Conv2D(4, 3, data_format="channels_first", name="a")(x)
    y = layers.Flatten(data_format="channels_first")(y)
    model = keras.Model(x, layers.Dense(2, name="head")(y))
    assert table(model) == {}
