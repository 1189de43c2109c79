import contextlib

import keras
import numpy as np
import pytest
from keras import layers, ops

from tfopt.errors import ModelError
from tfopt.surgery.graph import copy_call, read_graph, rebuild

MODELS = {}


def model(build):
    MODELS[build.__name__] = build
    return build


@model
def functional():
    x = keras.Input((8, 8, 3))
    y = layers.BatchNormalization()(layers.Conv2D(4, 3, activation="relu")(x))
    return keras.Model(x, layers.Dense(3)(layers.Flatten()(y)))


@model
def sequential():
    return keras.Sequential([keras.Input((5,)), layers.Dense(4, activation="relu"), layers.Dense(2)])


@model
def sequential_built_on_data():
    built = keras.Sequential([layers.Dense(4), layers.Dense(2)])
    built(np.zeros((1, 5), np.float32))
    return built


@model
def nested_twice():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="dense"), layers.ReLU()])
    x = keras.Input((4,))
    middle = keras.Model(x, layers.Dense(4, name="dense")(inner(x)) + x)
    outer = keras.Input((4,))
    return keras.Model(outer, layers.Dense(2, name="dense")(middle(middle(outer))))


@model
def layers_and_inputs_that_share_names():
    nested = keras.Sequential([keras.Input((4,), name="x"), layers.Dense(3, name="same")], name="inner")
    again = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="x")], name="inner_same")
    x = keras.Input((4,), name="x")
    y = layers.ReLU(name="inner_x")(again(nested(x)))
    return keras.Model(x, layers.Dense(2, name="same")(y))


@model
def nested_in_sequential():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    return keras.Sequential([keras.Input((4,)), inner, layers.ReLU()])


@model
def shared_layers():
    x, shared = keras.Input((4,)), layers.Dense(4)
    return keras.Model(x, layers.Add()([shared(x), shared(shared(x))]))


@model
def layer_shared_with_a_nested_model():
    shared = layers.Dense(4)
    nested = keras.Sequential([keras.Input((4,)), shared])
    x = keras.Input((4,))
    return keras.Model(x, shared(nested(x)))


@model
def list_of_inputs():
    x, z = keras.Input((4,)), keras.Input((3,))
    return keras.Model([x, z], layers.Concatenate()([layers.Dense(2)(z), x]))


@model
def dict_of_inputs():
    x, z = keras.Input((4,), name="x"), keras.Input((3,), name="z")
    return keras.Model({"x": x, "z": z}, layers.Concatenate()([layers.Dense(2)(z), x]))


@model
def nested_with_dict_of_inputs():
    x, z = keras.Input((4,), name="x"), keras.Input((4,), name="z")
    nested = keras.Model({"x": x, "z": z}, {"sum": layers.Dense(4)(x) + z, "product": x * z})
    a, b = keras.Input((4,)), keras.Input((4,))
    first = nested({"z": a, "x": b})
    second = nested({"x": first["sum"], "z": first["product"]})
    return keras.Model([a, b], second["sum"])


@model
def list_of_outputs():
    x = keras.Input((4,))
    return keras.Model(x, [layers.Dense(2)(x), x, layers.Dense(3)(x)])


@model
def dict_of_outputs():
    x = keras.Input((4,))
    y = layers.Dense(2, name="y")(x)
    return keras.Model(x, {"b": y, "a": layers.Softmax(name="scores")(y)})


@model
def operators_and_slices():
    x = keras.Input((6, 4))
    y = 2.0 * x[:, 1:4:2] + ops.mean(x, axis=1, keepdims=True)
    first, second = ops.split(y, 2, axis=-1)
    stacked = ops.stack([first, ops.sqrt(ops.abs(second))], axis=1)
    return keras.Model(x, 1.0 - ops.where(stacked > 0.5, stacked, -stacked)[..., 0])


@model
def layers_with_keyword_arguments():
    x, mask = keras.Input((5, 4)), keras.Input((5,), dtype="bool")
    y = layers.LSTM(3, return_sequences=True)(x, mask=mask)
    y = layers.Softmax(axis=1)(y, mask=ops.cast(ops.expand_dims(mask, -1), "bool"))
    return keras.Model([x, mask], layers.Dropout(0.5)(y, training=False))


@model
def attention_over_several_tensors():
    query, value = keras.Input((5, 8)), keras.Input((7, 8))
    attention = layers.MultiHeadAttention(2, 4)
    y, scores = attention(query, value, key=layers.Dense(8)(value), return_attention_scores=True)
    return keras.Model([query, value], [layers.LayerNormalization()(y + query), scores])


@model
def embedding_of_integers():
    x = keras.Input((5,), dtype="int32")
    return keras.Model(x, layers.Bidirectional(layers.GRU(3))(layers.Embedding(10, 4)(x)))


def build(name):
    keras.utils.set_random_seed(0)
    original = MODELS[name]()
    generator = np.random.default_rng(0)
    original.set_weights([generator.uniform(0.1, 1.0, weight.shape) for weight in original.weights])
    return original


def samples(original, count=6):
    generator = np.random.default_rng(1)

    def draw(tensor):
        x = generator.normal(size=(count, *tensor.shape[1:]))
        match tensor.dtype:
            case "bool":
                return x > -0.5
            case "int32":
                return (np.abs(x) * 3).astype(np.int32)
        return x.astype(np.float32)

    inputs = original.inputs[0] if isinstance(original, keras.Sequential) else original.input
    return keras.tree.map_structure(draw, inputs)


def outputs_of_layers(original):
    """Of each layer that has been called once; of others `layer.output` raises."""
    found = {}
    for layer in original.layers:
        with contextlib.suppress(AttributeError):
            found[layer.name] = keras.tree.map_structure(id, layer.output)
    assert found
    return found


def assert_equal_outputs(original, other, x):
    expected, received = original(x, training=False), other(x, training=False)
    keras.tree.assert_same_structure(expected, received)
    for a, b in zip(keras.tree.flatten(expected), keras.tree.flatten(received), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", MODELS)
def test_rebuilt_model_gives_the_same_outputs(name):
    original = build(name)
    rebuilt = rebuild(read_graph(original))
    assert_equal_outputs(original, rebuilt, samples(original))
    assert rebuilt.name == original.name
    assert [tensor.shape for tensor in rebuilt.inputs] == [tensor.shape for tensor in original.inputs]
    assert [tensor.name for tensor in rebuilt.inputs] == [tensor.name for tensor in original.inputs]
    assert rebuilt.count_params() == original.count_params()


@pytest.mark.parametrize("name", MODELS)
def test_rebuilt_model_can_be_rebuilt_and_saved(name, tmp_path):
    original = build(name)
    twice = rebuild(read_graph(rebuild(read_graph(original))))
    twice.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_equal_outputs(original, loaded, samples(original))


@pytest.mark.parametrize("name", MODELS)
def test_original_is_left_as_it_is(name):
    original = build(name)
    config, before, outputs = original.get_config(), original.get_weights(), outputs_of_layers(original)
    rebuilt = rebuild(read_graph(original))
    assert original.get_config() == config
    assert outputs_of_layers(original) == outputs
    for weight in rebuilt.weights:
        weight.assign(keras.ops.zeros_like(weight))
    for old, new in zip(before, original.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("name", MODELS)
def test_layer_names_are_unique(name):
    original = build(name)
    calls = read_graph(original).calls
    owners = {call.name: call.operation for call in calls}
    assert all(owners[call.name] is call.operation for call in calls)
    rebuilt = rebuild(read_graph(original))
    assert len({operation.name for operation in rebuilt.operations}) == len(rebuilt.operations)


def test_equal_names_in_nested_models_get_their_models_name():
    def dense():
        return [keras.Input((4,)), layers.Dense(4, name="dense")]

    deepest = keras.Sequential(dense(), name="deepest")
    nested = keras.Sequential([keras.Input((4,)), deepest, layers.Dense(4, name="dense")], name="nested")
    x, last = dense()
    graph = read_graph(keras.Model(x, last(nested(x))))
    # The model's own layers come first: losses and clients know them by their names.
    names = ["nested_deepest_dense", "nested_dense", "dense"]
    assert [call.name for call in graph.calls] == names
    assert [layer.name for layer in rebuild(graph).layers[1:]] == names


def test_shared_layer_is_copied_once():
    rebuilt = rebuild(read_graph(build("shared_layers")))
    assert [type(layer) for layer in rebuilt.layers] == [layers.InputLayer, layers.Dense, layers.Add]
    dense = [call for call in read_graph(rebuilt).calls if isinstance(call.operation, layers.Dense)]
    assert len(dense) == 3
    assert len({id(call.operation) for call in dense}) == 1


def test_calls_run_in_order_and_know_their_consumers():
    x = keras.Input((4,))
    hidden = layers.Dense(4, name="hidden")(x)
    total = layers.Add(name="total")([hidden, hidden, x])
    graph = read_graph(keras.Model(x, [total, hidden]))
    first, second = graph.calls
    assert (first.name, second.name) == ("hidden", "total")
    assert first.inputs == [graph.inputs]
    assert second.inputs == [first.output, first.output, graph.inputs]
    assert graph.consumers == {graph.inputs: [first, second], first.output: [second]}
    assert graph.is_output(first.output)
    assert graph.is_output(second.output)
    assert not graph.is_output(graph.inputs)
    assert first.output.shape == (None, 4)
    assert first.output.dtype == "float32"


def test_reading_starts_where_a_model_is_cut_out():
    x = keras.Input((4,))
    hidden = layers.Dense(3, name="hidden")(x)
    whole = keras.Model(x, layers.Dense(2, name="head")(hidden))
    head = keras.Model(hidden, whole.output)
    assert [call.name for call in read_graph(head).calls] == ["head"]
    assert_equal_outputs(head, rebuild(read_graph(head)), np.ones((2, 3), np.float32))


def test_visitors_replace_calls_and_change_what_consumers_see():
    original = build("sequential")

    def without_activation(call, copy, args, kwargs):
        outputs = copy_call(call, copy, args, kwargs)
        copy(call.operation).activation = keras.activations.linear
        return outputs

    seen = []

    def doubled(value, tensor):
        seen.append(value)
        return 2.0 * tensor

    graph = read_graph(original)
    changed = rebuild(graph, on_call=without_activation, on_value=doubled)
    x = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    first, second = original.layers
    expected = 2 * ((2 * ((2 * x) @ first.kernel + first.bias)) @ second.kernel + second.bias)
    np.testing.assert_allclose(changed(x), expected, rtol=1e-5)
    assert seen == [graph.inputs, *(call.output for call in graph.calls)]


def test_layer_can_be_given_a_name_at_its_first_use():
    def renamed(call, copy, args, kwargs):
        copy(call.operation, name=f"my_{call.name}")
        return copy_call(call, copy, args, kwargs)

    x, shared = keras.Input((4,)), layers.Dense(4, name="shared")
    rebuilt = rebuild(read_graph(keras.Model(x, shared(shared(x)))), on_call=renamed)
    assert [layer.name for layer in rebuilt.layers[1:]] == ["my_shared"]


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)


def test_subclassed_model_is_refused():
    subclassed = Subclassed()
    subclassed(np.zeros((1, 4), np.float32))
    with pytest.raises(ModelError, match=r"is subclassed \(Subclassed\).*Build it as a Functional model"):
        read_graph(subclassed)


def test_nested_subclassed_model_is_refused():
    x = keras.Input((4,))
    with pytest.raises(ModelError, match="is subclassed"):
        read_graph(keras.Model(x, Subclassed()(x)))


class WithConstructor(keras.Model):
    """A Functional model whose class has a constructor of its own."""

    def __init__(self, units):
        x = keras.Input((4,))
        super().__init__(x, layers.Dense(units)(x))


def test_functional_model_with_a_constructor_of_its_own_is_read():
    original = WithConstructor(3)
    x = np.ones((2, 4), np.float32)
    assert_equal_outputs(original, rebuild(read_graph(original)), x)
    outer = keras.Input((4,))
    nesting = keras.Model(outer, original(outer))
    assert_equal_outputs(nesting, rebuild(read_graph(nesting)), x)


@pytest.mark.slow
def test_deep_model():
    x = y = keras.Input((3,))
    for _ in range(150):
        y = layers.Add()([layers.ReLU()(y), x])
    deep = keras.Model(x, y)
    graph = read_graph(deep)
    assert len(graph.calls) == 300
    assert_equal_outputs(deep, rebuild(graph), np.ones((2, 3), np.float32))


@pytest.mark.slow
def test_mobilenet_v2():
    keras.utils.set_random_seed(0)
    original = keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, weights=None)
    x = np.random.default_rng(0).normal(size=(2, 96, 96, 3)).astype(np.float32)
    assert_equal_outputs(original, rebuild(read_graph(original)), x)
