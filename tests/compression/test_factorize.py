import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfopt.compression.factorization_plan import plan_factorization
from tfopt.compression.factorize import factorize
from tfopt.compression.low_rank import tucker2_error_bound
from tfopt.errors import ConfigError, ModelError

layers = keras.layers


def low_rank(shape, rank, seed=0, noise=0.01):
    """A matrix of a rank, and some noise."""
    generator = np.random.default_rng(seed)
    left, right = generator.normal(size=(shape[0], rank)), generator.normal(size=(rank, shape[1]))
    return (left @ right + noise * generator.normal(size=shape)).astype(np.float32)


def low_rank_convolution(shape, ranks, seed=0):
    generator = np.random.default_rng(seed)
    core = generator.normal(size=(*shape[:2], *ranks))
    first, last = generator.normal(size=(shape[2], ranks[0])), generator.normal(size=(ranks[1], shape[3]))
    return np.einsum("hwrs,ir,so->hwio", core, first, last).astype(np.float32)


def convolutional(strides=1, padding="same", data_format="channels_last", **options):
    shape = (9, 9, 12) if data_format == "channels_last" else (12, 9, 9)
    conv = layers.Conv2D(
        16, 3, strides=strides, padding=padding, activation="relu", name="conv", data_format=data_format, **options
    )
    model = keras.Sequential([keras.Input(shape), conv])
    conv.kernel.assign(low_rank_convolution((3, 3, 12, 16), (3, 4)))
    conv.bias.assign(np.linspace(-1, 1, 16))
    return model


def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(32, 3, activation="relu", name="stem"),
            layers.Conv2D(48, 3, strides=2, activation="relu", name="conv"),
            layers.Conv2D(32, 1, activation="relu", name="pointwise"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Flatten(name="flat"),
            layers.Dense(64, activation="relu", name="hidden"),
            layers.Dense(10, activation="softmax", name="head"),
        ]
    )


def composed(model, name):
    """The one kernel that the factors of a layer multiply to."""
    kernels = [
        np.array(part.kernel, np.float64)
        for part in model.layers
        if part.name in (f"{name}_reduce", f"{name}_core", name)
    ]
    product = kernels[0]
    for kernel in kernels[1:]:
        before, after = int(np.prod(product.shape[:-2])), int(np.prod(kernel.shape[:-2]))
        assert 1 in (before, after)
        product = product @ kernel if after == 1 else np.einsum("...ab,hwbc->hwac", product[0, 0], kernel)
    return product


@pytest.mark.slow
@given(st.integers(4, 24), st.integers(4, 24), st.floats(0.05, 0.95), st.integers(0, 99))
@settings(max_examples=25, derandomize=True, deadline=None)
def test_the_error_of_a_dense_kernel_is_that_of_the_singular_values_left_out(inputs, outputs, energy, seed):
    dense = layers.Dense(outputs, name="it")
    model = keras.Sequential([keras.Input((inputs,)), dense])
    kernel = low_rank((inputs, outputs), 1, seed) + 0.5 * low_rank((inputs, outputs), 2, seed + 1)
    dense.kernel.assign(kernel)
    try:
        smaller = factorize(model, energy=energy)
    except ConfigError:
        rank = int(np.argmax(np.cumsum(np.linalg.svd(kernel, compute_uv=False) ** 2) >= energy * np.sum(kernel**2))) + 1
        assert rank * (inputs + outputs) >= inputs * outputs
        return
    [row] = plan_factorization(model, energy=energy).rows
    product = composed(smaller, "it")
    discarded = np.linalg.svd(kernel.astype(np.float64), compute_uv=False)[row.ranks[0] :]
    error = np.linalg.norm(kernel - product)
    np.testing.assert_allclose(error, np.linalg.norm(discarded), rtol=1e-3, atol=1e-5 * np.linalg.norm(kernel))
    np.testing.assert_allclose(error / np.linalg.norm(kernel), row.error_bound, rtol=1e-3, atol=1e-5)
    assert row.error_bound <= np.sqrt(1 - energy) + 1e-9


@pytest.mark.slow
@given(st.integers(2, 16), st.integers(2, 16), st.sampled_from([(3, 3), (1, 5), (2, 3)]), st.floats(0.3, 0.95))
@settings(max_examples=25, derandomize=True, deadline=None)
def test_the_error_of_a_convolution_is_within_the_bound(inputs, outputs, size, energy):
    conv = layers.Conv2D(outputs, size, name="it")
    model = keras.Sequential([keras.Input((8, 8, inputs)), conv])
    shape = (*size, inputs, outputs)
    kernel = low_rank_convolution(shape, (1, 1)) + 0.3 * low_rank_convolution(shape, (2, 2), 1)
    conv.kernel.assign(kernel)
    try:
        smaller = factorize(model, energy=energy)
    except ConfigError:
        return  # test_a_layer_that_would_not_be_smaller_stays
    [row] = plan_factorization(model, energy=energy).rows
    error = np.linalg.norm(kernel - composed(smaller, "it"))
    assert error <= tucker2_error_bound(kernel, *row.ranks) * (1 + 1e-3) + 1e-4 * np.linalg.norm(kernel)
    assert error / np.linalg.norm(kernel) <= row.error_bound + 1e-4
    assert row.error_bound <= np.sqrt(1 - energy) + 1e-6
    assert smaller.count_params() < model.count_params()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strides": 2},
        {"strides": 2, "padding": "valid"},
        {"strides": (2, 1)},
        {"dilation_rate": 2},
        {"padding": "valid", "dilation_rate": (1, 2)},
    ],
    ids=str,
)
def test_a_convolution_of_low_rank_computes_the_same(options):
    model = convolutional(**options)
    smaller = factorize(model, energy=0.999999)
    assert [layer.name for layer in smaller.layers[1:]] == ["conv_reduce", "conv_core", "conv"]
    assert [tuple(layer.kernel.shape) for layer in smaller.layers[1:]] == [(1, 1, 12, 3), (3, 3, 3, 4), (1, 1, 4, 16)]
    x = np.random.default_rng(1).normal(size=(2, 9, 9, 12))
    expected = np.array(model(x))
    np.testing.assert_allclose(smaller(x), expected, atol=1e-4 * np.abs(expected).max())
    assert smaller.layers[-1].activation is keras.activations.relu
    assert not smaller.layers[1].use_bias


def test_channels_first_has_the_same_plan():
    last, first = (
        plan_factorization(convolutional(2, data_format=data_format), energy=0.999)
        for data_format in ("channels_last", "channels_first")
    )
    assert last == first
    smaller = factorize(convolutional(data_format="channels_first"), energy=0.999)
    assert {layer.data_format for layer in smaller.layers[1:]} == {"channels_first"}


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_a_pointwise_convolution_becomes_two_of_which_the_first_has_the_strides(strides, padding):
    conv = layers.Conv2D(20, 1, strides=strides, padding=padding, name="conv")
    model = keras.Sequential([keras.Input((7, 8, 24)), conv])
    conv.kernel.assign(low_rank((24, 20), 3)[np.newaxis, np.newaxis])
    smaller = factorize(model, energy=0.999)
    assert [layer.strides for layer in smaller.layers[1:]] == [(strides, strides), (1, 1)]
    x = np.random.default_rng(1).normal(size=(2, 7, 8, 24))
    np.testing.assert_allclose(smaller(x), model(x), atol=0.5)
    [row] = plan_factorization(model, energy=0.999).rows
    positions = -(-7 // strides) * -(-8 // strides)
    assert row.multiply_accumulates == (positions * 24 * 20, positions * 3 * 44)


def test_outer_factors_of_full_rank_are_left_out():
    conv = layers.Conv2D(40, 3, name="conv")
    model = keras.Sequential([keras.Input((8, 8, 2)), conv])
    conv.kernel.assign(low_rank_convolution((3, 3, 2, 40), (2, 3)))
    smaller = factorize(model, energy=0.9999)
    assert [layer.name for layer in smaller.layers[1:]] == ["conv_core", "conv"]
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 2))
    np.testing.assert_allclose(smaller(x), model(x), rtol=1e-3, atol=1e-3)
    conv = layers.Conv2D(2, 3, name="conv")
    model = keras.Sequential([keras.Input((8, 8, 40)), conv])
    conv.kernel.assign(low_rank_convolution((3, 3, 40, 2), (3, 2)))
    smaller = factorize(model, energy=0.9999)
    assert [layer.name for layer in smaller.layers[1:]] == ["conv_reduce", "conv"]
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 40))
    np.testing.assert_allclose(smaller(x), model(x), rtol=1e-3, atol=1e-3)


def counted(model):
    """Multiply-accumulates, counted from what each layer is built of."""
    total = 0
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            total += int(np.prod(layer.output.shape[1:-1])) * int(np.prod(layer.kernel.shape))
    return total


@pytest.mark.parametrize("share", [80, 60, 30])
@pytest.mark.parametrize("what", ["flops", "params"])
def test_a_target_is_reached_and_not_by_much_more(what, share):
    model = network()
    plan = plan_factorization(model, target=f"{what}: {share}%")
    smaller = factorize(model, target=f"{what}: {share}%")
    assert plan.parameters == (model.count_params(), smaller.count_params())
    assert plan.multiply_accumulates == (counted(model), counted(smaller))
    before, after = plan.parameters if what == "params" else plan.multiply_accumulates
    assert share / 100 - 0.1 < after / before <= share / 100
    x = np.ones((2, 16, 16, 3))
    assert smaller(x).shape == model(x).shape


def test_more_energy_keeps_more_and_errs_less():
    model = network()
    x = np.random.default_rng(0).normal(size=(16, 16, 16, 3))
    expected, sizes, errors = np.array(model(x)), [], []
    for energy in (0.3, 0.6, 0.9):
        smaller = factorize(model, energy=energy)
        sizes.append(smaller.count_params())
        errors.append(np.linalg.norm(np.array(smaller(x)) - expected))
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)


def test_a_layer_that_would_not_be_smaller_stays_and_the_plan_says_why():
    model = network()
    plan = plan_factorization(model, energy=0.5)
    rows = {row.layer: row for row in plan.rows}
    assert list(rows) == ["stem", "conv", "pointwise", "hidden", "head"]
    smaller = factorize(model, energy=0.5)
    for name, row in rows.items():
        kept = np.array_equal(smaller.get_layer(name).kernel, model.get_layer(name).kernel)
        assert kept == (row.ranks is None) == bool(row.remark)
    text = str(plan)
    assert "would need rank" in str(plan_factorization(model, target="params: 90%"))
    assert text.splitlines()[0].split() == [
        "layer",
        "kind",
        "ranks",
        "parameters",
        "multiply-accumulates",
        "error",
        "remark",
    ]
    assert text.splitlines()[-1].startswith("total")


def test_layers_that_cannot_be_factorized_are_named():
    x = keras.Input((8, 8, 16))
    y = layers.Conv2D(16, 3, groups=4, name="grouped")(x)
    y = layers.Conv2DTranspose(16, 3, name="transposed")(y)
    y = layers.TimeDistributed(layers.Dense(16, name="within"))(y)
    y = layers.Dense(16, name="good")(y)
    model = keras.Model(x, y)
    model.get_layer("good").kernel.assign(low_rank((16, 16), 2))
    remarks = {row.layer: row.remark for row in plan_factorization(model, energy=0.99).rows}
    assert remarks == {
        "grouped": "has groups, whose channels are apart already",
        "transposed": "is neither a Dense nor a Conv2D layer",
        "within": "lies within another layer",
        "good": "",
    }
    with pytest.raises(ConfigError, match=r"no layer .* would be smaller: 'grouped' \(Conv2D\) has groups"):
        factorize(model, energy=0.99, layers="grouped|transposed")
    words = keras.Sequential([keras.Input((8,), dtype="int32"), layers.Embedding(99, 16, name="words")])
    with pytest.raises(ConfigError, match=r"'words' \(Embedding\) is neither a Dense nor a Conv2D layer"):
        factorize(words, energy=0.5, layers="words")


def test_a_shared_layer_stays_shared_and_names_stay_unique():
    shared = layers.Dense(32, name="same")
    x = keras.Input((32,))
    inner = keras.Model(x, layers.Dense(32, name="same")(x), name="inner")
    model = keras.Model(x, [inner(shared(shared(x))), layers.ReLU(name="same_reduce")(x)])
    for index, weight in enumerate(weight for weight in model.weights if weight.name == "kernel"):
        weight.assign(low_rank((32, 32), 2, index, noise=0))
    smaller = factorize(model, energy=0.9999)
    assert len([weight for weight in smaller.weights if weight.name == "kernel"]) == 4
    assert len({layer.name for layer in smaller.layers}) == len(smaller.layers)
    x = np.random.default_rng(0).normal(size=(4, 32))
    for expected, received in zip(model(x), smaller(x), strict=True):
        np.testing.assert_allclose(received, expected, atol=1e-4 * np.abs(expected).max())
    row = plan_factorization(model, energy=0.9999).rows[0]
    assert row.multiply_accumulates == (2 * 32 * 32, 2 * 2 * 64)


def test_settings_of_the_layer_go_where_they_belong():
    model = convolutional(
        kernel_regularizer="l2",
        bias_regularizer="l1",
        kernel_constraint="non_neg",
        activity_regularizer="l2",
        dtype="mixed_float16",
        trainable=False,
    )
    reduce, core, last = factorize(model, energy=0.999999).layers[1:]
    for part in (reduce, core, last):
        assert part.dtype_policy.name == "mixed_float16"
        assert not part.trainable
        assert part.kernel_constraint is None
        assert isinstance(part.kernel_regularizer, keras.regularizers.L2)
    assert (reduce.activity_regularizer, core.activity_regularizer) == (None, None)
    assert isinstance(last.activity_regularizer, keras.regularizers.L2)
    assert isinstance(last.bias_regularizer, keras.regularizers.L1)


@pytest.mark.slow
def test_a_factorized_model_is_trained_saved_and_loaded(tmp_path):
    smaller = factorize(network(), target="params: 50%")
    smaller.compile("adam", "sparse_categorical_crossentropy")
    x, y = np.random.default_rng(0).random((16, 16, 16, 3)), np.arange(16) % 10
    losses = smaller.fit(x, y, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    smaller.save(tmp_path / "model.keras")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "model.keras")(x), smaller(x), atol=1e-6)


def test_unknown_sizes_have_no_flops():
    model = keras.Sequential([keras.Input((None, None, 12)), layers.Conv2D(16, 3, strides=2, name="conv")])
    model.layers[0].kernel.assign(low_rank_convolution((3, 3, 12, 16), (3, 4)))
    with pytest.raises(ModelError, match="unknown size, so its FLOPs are not known"):
        factorize(model, target="flops: 50%")
    assert factorize(model, energy=0.99).count_params() < model.count_params()
    assert factorize(model, target="params: 50%").count_params() < model.count_params() / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"expected either energy=.* or target=.*Received: energy=None, target=None"),
        ({"energy": 0.9, "target": "flops: 60%"}, "expected either energy="),
        ({"energy": 90}, r"energy must be in \(0, 1\]. Received: 90"),
        ({"energy": 0}, r"energy must be in \(0, 1\]"),
        ({"energy": "0.9"}, r"energy must be in \(0, 1\]"),
        ({"target": "60%"}, r"target must tell what remains.*Received: '60%'"),
        ({"target": "flops: 0%"}, "above 0 and at most 100%"),
        ({"target": "params: 100%"}, "no layer of the model .* would be smaller"),
        ({"target": 0.6}, "target must tell what remains"),
        ({"target": "params: 1%"}, r"at least \d+\.\d% of the params remain, with rank 1"),
        ({"target": "flops: 50%", "layers": "head"}, r"at least 9\d\.\d% of the flops remain"),
        ({"energy": 0.9, "layers": "nowhere"}, "matches no layer"),
        ({"energy": 1.0}, r"no layer of the model .* would be smaller: 'stem' \(Conv2D\) would need rank"),
    ],
    ids=str,
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        factorize(network(), **options)
    with pytest.raises(ModelError, match="Expected a Keras 3 model"):
        factorize("model", energy=0.5)
