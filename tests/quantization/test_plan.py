import keras
import pytest
from keras import layers

from tfopt.errors import ConfigError
from tfopt.quantization.plan import plan_quantization
from tfopt.recipe import QuantizationConfig
from tfopt.surgery.elementary import as_elementary
from tfopt.surgery.graph import read_graph


def plan_of(inputs, outputs):
    return plan_quantization(read_graph(as_elementary(keras.Model(inputs, outputs))))


def image():
    return keras.Input((8, 8, 4), name="x")


def shared(plan):
    """For each range, by name, how many tensors share it."""
    return {grid.name: len(grid.members) for grid in plan.ranges.values()}


def fixed(plan):
    return {grid.name: grid.fixed for grid in plan.ranges.values() if grid.fixed is not None}


def remarks(plan):
    return {row.layer: row.remark for row in plan.coverage}


def conv(name="conv", **options):
    return layers.Conv2D(4, 3, padding="same", name=name, **options)


@pytest.mark.parametrize("relu", [layers.ReLU(name="relu"), layers.ReLU(6, name="relu")], ids=["relu", "relu6"])
def test_convolution_batch_norm_and_relu_are_rounded_once(relu):
    x = image()
    plan = plan_of(x, relu(layers.BatchNormalization(name="norm")(conv()(x))))
    assert shared(plan) == {"x": 1, "relu": 1}
    assert remarks(plan) == {
        "conv": "int8 weights per output channel, int8 output",
        "norm": "fused into conv",
        "relu": "fused into conv",
    }


@pytest.mark.parametrize("layer", [layers.Dense(3, name="w"), layers.DepthwiseConv2D(3, name="w")])
def test_other_layers_with_weights_fuse_too(layer):
    x = image()
    plan = plan_of(x, layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(layer(x))))
    assert shared(plan) == {"x": 1, "relu": 1}


def test_fused_activation_argument_is_rounded_after_it():
    x = image()
    plan = plan_of(x, conv(activation="relu")(x))
    assert shared(plan) == {"x": 1, "conv_activation": 1}


def test_two_batch_norms_in_a_row_are_not_fused_into_one():
    x = image()
    y = layers.BatchNormalization(name="second")(layers.BatchNormalization(name="first")(conv()(x)))
    assert shared(plan_of(x, y)) == {"x": 1, "first": 1, "second": 1}


def test_batch_norm_after_relu_is_not_fused():
    x = image()
    y = layers.BatchNormalization(name="norm")(conv(activation="relu")(x))
    assert shared(plan_of(x, y)) == {"x": 1, "conv_activation": 1, "norm": 1}


def test_output_used_twice_is_rounded_before_both_uses():
    x = image()
    y = conv()(x)
    total = layers.Add(name="total")([y, layers.ReLU(name="relu")(y)])
    assert shared(plan_of(x, total)) == {"x": 1, "conv": 1, "relu": 1, "total": 1}


def test_output_that_the_model_returns_too_is_not_fused():
    x = image()
    y = conv()(x)
    plan = plan_of(x, [y, layers.ReLU(name="relu")(y)])
    assert shared(plan) == {"x": 1, "conv": 1, "relu": 1}
    assert remarks(plan)["relu"] == "int8; output has a range of its own"


def test_add_fuses_a_relu_but_no_batch_norm():
    x = image()
    first = layers.ReLU(name="relu")(layers.Add(name="sum")([x, conv("a")(x)]))
    second = layers.BatchNormalization(name="norm")(layers.Add(name="total")([x, first]))
    assert shared(plan_of(x, second)) == {"x": 1, "a": 1, "relu": 1, "total": 1, "norm": 1}


def test_standalone_batch_norm_has_a_range_of_its_own_and_fuses_a_relu():
    x = image()
    plan = plan_of(x, layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x)))
    assert shared(plan) == {"x": 1, "relu": 1}
    assert remarks(plan) == {"norm": "int8; output has a range of its own", "relu": "fused into norm"}


def test_concatenation_shares_one_range_with_its_inputs():
    x = image()
    joined = layers.Concatenate(name="joined")([conv("a")(x), conv("b", activation="relu")(x)])
    plan = plan_of(x, conv("c")(joined))
    assert shared(plan) == {"x": 1, "a": 3, "c": 1}


def test_concatenations_that_share_an_input_share_one_range():
    x = image()
    a, b, c = (conv(name)(x) for name in "abc")
    ends = [layers.Concatenate()([a, b]), layers.Concatenate()([b, c])]
    assert shared(plan_of(x, ends)) == {"x": 1, "a": 5}


def test_concatenation_of_a_tensor_and_its_pooling_shares_their_range():
    x = image()
    joined = layers.Concatenate(name="joined")([x, layers.MaxPooling2D(3, 1, "same")(x)])
    assert shared(plan_of(x, joined)) == {"x": 2}  # a maximum needs no rounding of its own


def test_softmax_has_a_fixed_range():
    x = image()
    plan = plan_of(x, layers.Dense(3, "softmax", name="scores")(layers.Flatten()(x)))
    assert shared(plan) == {"x": 1, "scores": 1, "scores_activation": 1}
    assert fixed(plan) == {"scores_activation": (0.0, 255 / 256)}


@pytest.mark.parametrize(("activation", "limits"), [("sigmoid", (0.0, 255 / 256)), ("tanh", (-1.0, 127 / 128))])
def test_sigmoid_and_tanh_have_fixed_ranges(activation, limits):
    x = image()
    plan = plan_of(x, conv(activation=activation)(x))
    assert fixed(plan) == {"conv_activation": limits}


def test_what_passes_a_fixed_range_on_keeps_it():
    x = image()
    y = layers.AveragePooling2D(2, name="pool")(conv(activation="sigmoid")(x))
    plan = plan_of(x, layers.Flatten()(y))
    assert shared(plan) == {"x": 1, "conv": 1, "conv_activation": 2}
    assert fixed(plan) == {"conv_activation": (0.0, 255 / 256)}


def test_concatenation_does_not_impose_a_fixed_range_on_the_others():
    x = image()
    joined = layers.Concatenate(name="joined")([conv("a")(x), conv("b", activation="sigmoid")(x)])
    plan = plan_of(x, joined)
    assert shared(plan) == {"x": 1, "a": 2, "b": 1, "b_activation": 1}
    assert fixed(plan) == {"b_activation": (0.0, 255 / 256)}


def test_average_pooling_rounds_to_its_inputs_range():
    x = image()
    assert shared(plan_of(x, layers.AveragePooling2D(2, name="pool")(conv()(x)))) == {"x": 1, "conv": 2}


def test_global_average_pooling_has_a_range_of_its_own():
    x = image()
    plan = plan_of(x, layers.GlobalAveragePooling2D(name="pool")(conv()(x)))
    assert shared(plan) == {"x": 1, "conv": 1, "pool": 1}


@pytest.mark.parametrize(
    "layer",
    [
        layers.MaxPooling2D(),
        layers.GlobalMaxPooling2D(),
        layers.Flatten(),
        layers.Reshape((64, 4)),
        layers.Permute((2, 1, 3)),
        layers.ZeroPadding2D(),
        layers.Cropping2D(),
        layers.Dropout(0.5),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_that_move_values_round_nothing(layer):
    x = image()
    plan = plan_of(x, layer(conv()(x)))
    assert shared(plan) == {"x": 1, "conv": 1}
    assert all(row.quantized for row in plan.coverage)


@pytest.mark.parametrize("pool", [layers.MaxPooling2D(2, name="pool"), layers.AveragePooling2D(2, name="pool")])
def test_relu_after_pooling_keeps_the_poolings_range(pool):
    x = image()
    plan = plan_of(x, layers.ReLU(name="relu")(pool(conv()(x))))
    members = 3 if isinstance(pool, layers.AveragePooling2D) else 2
    assert shared(plan) == {"x": 1, "conv": members}
    assert remarks(plan)["relu"].startswith("int8; output has the input's range")


def test_shared_layer_has_a_range_for_each_use_and_one_row():
    x, both = image(), conv("both")
    plan = plan_of(x, layers.Add(name="total")([both(x), both(layers.ReLU(name="relu")(x))]))
    assert shared(plan) == {"x": 1, "both": 1, "relu": 1, "both_2": 1, "total": 1}
    assert sorted(row.layer for row in plan.coverage) == ["both", "relu", "total"]


def test_integer_inputs_are_not_rounded():
    x = keras.Input((5,), dtype="int32", name="words")
    plan = plan_of(x, layers.Dense(3, name="dense")(layers.Embedding(9, 4, name="embedding")(x)))
    assert shared(plan) == {"embedding": 1, "dense": 1}


def test_scale_axes_of_each_layer_with_weights():
    x = image()
    kinds = {
        "dense": (layers.Dense(3), (0,)),
        "conv": (conv(), (0, 1, 2)),
        "depthwise": (layers.DepthwiseConv2D(3), (0, 1)),
    }
    graph = read_graph(keras.Model(x, [layer(x) for layer, _ in kinds.values()]))
    assert {key: weights.scale_axes for key, weights in plan_quantization(graph).weights.items()} == {
        id(layer): axes for layer, axes in kinds.values()
    }


def test_layer_without_a_rule_stays_in_float_with_its_reason():
    x = image()
    y = layers.Activation("squareplus", name="squash")(conv("a", activation="squareplus")(x))
    plan = plan_of(x, conv("b")(y))
    weights = ("int8", "int8 weights per output channel, int8 output", False)
    reason = ("float", "the activation 'squareplus' has no int8 kernel", True)
    rows = {row.layer: (row.arithmetic, row.remark, row.unsupported) for row in plan.coverage}
    assert rows == {"a": weights, "a_activation": reason, "squash": reason, "b": weights}
    # between two layers in float nothing is rounded
    assert shared(plan) == {"x": 1, "a": 1, "squash": 1, "b": 1}


@pytest.mark.parametrize(
    ("mode", "axes", "remark"),
    [
        ("none", {}, "mode none"),
        ("float16", {"conv": None}, "float16 weights; mode float16"),
        ("dynamic", {"conv": (0, 1, 2)}, "int8 weights; mode dynamic"),
        ("weight_only_int8", {"conv": (0, 1, 2)}, "int8 weights; mode weight_only_int8"),
    ],
)
def test_float_modes_round_weights_alone(mode, axes, remark):
    x = image()
    graph = read_graph(keras.Model(x, layers.ReLU()(conv("conv")(x))))
    plan = plan_quantization(graph, QuantizationConfig(mode=mode))
    assert plan.ranges == {}
    names = {id(call.operation): call.name for call in graph.calls}
    assert {names[key]: weights.scale_axes for key, weights in plan.weights.items()} == axes
    row = plan.coverage[0]
    assert (row.arithmetic, row.remark, row.unsupported) == ("float", remark, False)


def test_a_layer_kept_in_float_has_rounded_neighbours():
    x = image()
    graph = read_graph(keras.Model(x, conv("c")(conv("b")(conv("a")(x)))))
    plan = plan_quantization(graph, exceptions={"b": QuantizationConfig(mode="none")})
    assert [row.arithmetic for row in plan.coverage] == ["int8", "float", "int8"]
    assert shared(plan) == {"x": 1, "a": 1, "b": 1, "c": 1}
    assert len(plan.weights) == 2


def test_a_batch_norm_kept_in_float_is_not_fused():
    x = image()
    graph = read_graph(keras.Model(x, layers.BatchNormalization(name="norm")(conv("a")(x))))
    assert shared(plan_quantization(graph)) == {"x": 1, "norm": 1}
    assert shared(plan_quantization(graph, exceptions={"norm": QuantizationConfig(mode="none")})) == {
        "x": 1,
        "a": 1,
        "norm": 1,
    }


def test_int16_ranges_have_16_bits_and_fixed_ones_are_symmetric():
    x = keras.Input((4,), name="x")
    plan = plan_quantization(
        read_graph(keras.Model(x, layers.Softmax(name="shares")(x))), QuantizationConfig(mode="int16x8")
    )
    assert {grid.bits for grid in plan.ranges.values()} == {16}
    assert fixed(plan) == {"shares": (-1.0, 32767 / 32768)}
    assert plan.coverage[0].arithmetic == "int16"


def test_int8_and_int16_layers_do_not_mix():
    x = image()
    graph = read_graph(keras.Model(x, conv("b")(conv("a")(x))))
    with pytest.raises(ConfigError, match="int16x8 is for a whole model"):
        plan_quantization(graph, exceptions={"b": QuantizationConfig(mode="int16x8")})


def test_dense_kernels_with_one_scale_on_request():
    x = keras.Input((4,))
    dense = layers.Dense(3)
    plan = plan_quantization(read_graph(keras.Model(x, dense(x))), QuantizationConfig(per_channel_dense=False))
    assert plan.weights[id(dense)].scale_axes == (0, 1)


def test_every_float_output_of_a_layer_without_a_rule_is_rounded():
    x = image()
    parts = keras.ops.split(x, 2, axis=-1)
    plan = plan_of(x, layers.Add(name="total")(parts))
    names = set(shared(plan))
    assert len(names) == 4
    assert {"x", "total"} < names
    assert len({name.removesuffix("_1") for name in names - {"x", "total"}}) == 1


def test_ranges_have_names_of_their_own():
    x, both = image(), conv("conv")
    plan = plan_of(x, [both(both(x)), conv("conv_2")(x)])
    grids = set(plan.ranges.values())
    assert len(grids) == 4
    assert len({grid.name for grid in grids}) == 4


def test_equal_relus_of_one_tensor_share_a_range():
    """The converter makes one operator of the two; the pooling would otherwise widen the range of the second."""
    x = keras.Input((8, 8, 4))
    y = layers.Conv2D(4, 3, padding="same")(x)
    first, second, other = layers.ReLU()(y), layers.ReLU()(y), layers.ReLU(6.0)(y)
    plan = plan_quantization(read_graph(keras.Model(x, [first, layers.AveragePooling2D(1, 2)(second), other])))
    shared = [sorted(len(grid.members) for grid in set(plan.ranges.values()))]
    assert shared == [[1, 1, 1, 3]]  # the input, the convolution and the ReLU6; the two ReLUs and the pooling
