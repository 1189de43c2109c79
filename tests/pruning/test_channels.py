import keras
import numpy as np
import pytest
from keras import layers
from zeroed_channels import randomize, relative_error, samples, zeroed

import tfopt
from tfopt.errors import ConfigError, DataError, ModelError
from tfopt.pruning import channels
from tfopt.pruning.channel_coverage import channel_coverage
from tfopt.pruning.channel_groups import find_channel_groups
from tfopt.pruning.channels import prune_channels
from tfopt.surgery.flops import costs
from tfopt.surgery.graph import read_graph

rng = np.random.default_rng(0)
X = rng.normal(size=(40, 12, 12, 3)).astype(np.float32)
Y = rng.integers(0, 4, 40)


def residual_net():
    """A stem, two residual blocks and a head: `(12, 12, 3)` to 4 scores."""
    keras.utils.set_random_seed(0)
    x = keras.Input((12, 12, 3))
    y = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(x)
    y = layers.ReLU()(layers.BatchNormalization(name="stem_norm")(y))
    for index in range(2):
        z = layers.Conv2D(24, 3, padding="same", use_bias=False, name=f"block_{index}_expand")(y)
        z = layers.ReLU()(layers.BatchNormalization(name=f"block_{index}_norm")(z))
        z = layers.Conv2D(16, 3, padding="same", use_bias=False, name=f"block_{index}_project")(z)
        y = layers.Add()([y, layers.BatchNormalization(name=f"block_{index}_out")(z)])
    y = layers.Dense(20, "relu", name="features")(layers.GlobalAveragePooling2D()(y))
    return keras.Model(x, layers.Dense(4, "softmax", name="scores")(y))


def ratio(smaller, model, kind="flops"):
    return getattr(costs(smaller), kind) / getattr(costs(model), kind)


def widths(model):
    return {call.name: call.output.shape[-1] for call in read_graph(model).calls if hasattr(call.operation, "kernel")}


@pytest.fixture
def removed(monkeypatch):
    """What `prune_channels` removed last: the groups, and the mask of the channels that stay."""
    seen = []
    remove_channels = channels.remove_channels

    def remember(groups, stays):
        seen[:] = [groups, stays]
        return remove_channels(groups, stays)

    monkeypatch.setattr(channels, "remove_channels", remember)
    return seen


@pytest.mark.parametrize(("kind", "cost"), [("flops", "flops"), ("params", "parameters")])
@pytest.mark.parametrize("percent", [100, 75, 50, 25])
def test_target_is_reached_and_hardly_passed(kind, cost, percent, removed):
    model = randomize(residual_net())
    smaller = prune_channels(model, target=f"{kind}: {percent}%")
    assert percent / 100 - 0.05 < ratio(smaller, model, cost) <= percent / 100
    assert relative_error(smaller, zeroed(*removed), samples(model)) < 1e-4
    assert [layer.name for layer in smaller.layers[1:]] == [layer.name for layer in model.layers[1:]]
    assert smaller.output_shape == model.output_shape
    assert widths(smaller)["stem"] == widths(smaller)["block_0_project"] == widths(smaller)["block_1_project"]
    assert (widths(smaller) == widths(model)) == (percent == 100)


@pytest.mark.usefixtures("conversion_in_this_process")
@pytest.mark.thorough
def test_trained_model_is_left_alone_and_the_result_trains_and_exports(tmp_path):
    model = residual_net()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(X, Y, epochs=1, verbose=0)
    before, config = model.get_weights(), model.get_config()
    smaller = prune_channels(model, target="flops: 50%")
    assert model.get_config() == config
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not smaller.compiled
    smaller.compile("adam", "sparse_categorical_crossentropy")
    losses = smaller.fit(X, Y, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.fit(X, Y, epochs=1, verbose=0)
    artifact = tfopt.export_tflite(smaller, tmp_path / "smaller.tflite", calibration=X)
    assert artifact.verification["full_integer"] is True
    smaller.save(tmp_path / "smaller.keras")
    loaded = keras.saving.load_model(tmp_path / "smaller.keras")
    np.testing.assert_allclose(loaded(X), smaller(X), atol=1e-6)


def test_channels_of_least_magnitude_go():
    model = residual_net()
    layer = model.get_layer("block_0_expand")
    weak = [1, 5, 7, 20]
    layer.kernel.assign(np.where(np.isin(np.arange(24), weak), 0.01, 1.0) * np.asarray(layer.kernel))
    # 4 of 24 channels, and so a sixth of the operations of two kernels that have the same number
    smaller = prune_channels(model, target="flops: 100%", layers="block_0_expand")
    assert widths(smaller) == widths(model)
    expand = costs(model).layers[2].flops
    target = 100 * (1 - 2 * expand / 6 / costs(model).flops)
    smaller = prune_channels(model, target=f"flops: {target + 1e-4:.6f}%", layers="block_0_expand")
    stays = [channel for channel in range(24) if channel not in weak]
    np.testing.assert_array_equal(smaller.get_layer("block_0_expand").kernel, np.asarray(layer.kernel)[..., stays])
    np.testing.assert_array_equal(
        smaller.get_layer("block_0_project").kernel, np.asarray(model.get_layer("block_0_project").kernel)[:, :, stays]
    )


def test_batch_norm_importance_reads_gamma():
    model = residual_net()
    gamma = np.linspace(-1.0, 1.0, 24)
    model.get_layer("block_0_norm").gamma.assign(gamma)
    smaller = prune_channels(
        model, target="params: 90%", importance="batch_norm", layers="block_.*_expand", minimum_channels=1
    )
    kept = np.asarray(smaller.get_layer("block_0_norm").gamma)
    assert 1 < len(kept) < 24
    np.testing.assert_allclose(np.sort(np.abs(kept)), np.sort(np.abs(gamma))[24 - len(kept) :], rtol=1e-6)
    assert widths(smaller)["block_1_expand"] == 24  # its gammas are 1


@pytest.mark.slow
def test_batch_norm_importance_names_the_layers_without():
    with pytest.raises(ConfigError, match=r"There is none after features. Leave these out with layers="):
        prune_channels(residual_net(), target="flops: 50%", importance="batch_norm")


def test_taylor_importance_keeps_what_the_loss_needs(removed):
    # Only the first three units reach the output with weights worth mentioning.
    keras.utils.set_random_seed(0)
    x = keras.Input((5,))
    hidden, head = layers.Dense(8, "sigmoid", name="hidden"), layers.Dense(2, name="head")
    model = keras.Model(x, head(hidden(x)))
    kernel = np.full((8, 2), 1e-4, np.float32)
    kernel[[2, 4, 6]] = [[1.0, -2.0], [2.0, 1.0], [-1.5, 1.0]]
    head.kernel.assign(kernel)
    hidden.kernel.assign(np.asarray(hidden.kernel) * np.where(kernel[:, 0] == np.float32(1e-4), 100.0, 1.0))
    data = (rng.normal(size=(50, 5)), rng.normal(size=(50, 2)))
    smaller = prune_channels(
        model, target="params: 50%", importance="taylor", data=data, loss="mse", floors={"hidden": 3}
    )
    np.testing.assert_array_equal(smaller.get_layer("head").kernel, kernel[[2, 4, 6]])
    by_magnitude = prune_channels(model, target="params: 50%", floors={"hidden": 3})
    assert not set(np.asarray(by_magnitude.get_layer("head").kernel)[:, 0]) & {1.0, 2.0, -1.5}


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_taylor_importance_of_a_compiled_model(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = residual_net()
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = model.get_weights()
    smaller = prune_channels(model, target="flops: 60%", importance="taylor", data=(X, Y))
    assert 0.5 < ratio(smaller, model) <= 0.6
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert smaller.get_layer("stem").compute_dtype == model.get_layer("stem").compute_dtype


def test_taylor_importance_of_several_inputs_and_outputs():
    keras.utils.set_random_seed(0)
    inputs = {"a": keras.Input((4,), name="a"), "b": keras.Input((3,), name="b")}
    y = layers.Add()([layers.Dense(8, name=f"from_{name}")(x) for name, x in inputs.items()])
    model = keras.Model(
        inputs, {"first": layers.Dense(2, name="first")(y), "second": layers.Dense(1, name="second")(y)}
    )
    x = {"a": rng.normal(size=(20, 4)), "b": rng.normal(size=(20, 3))}
    y = {"first": rng.normal(size=(20, 2)), "second": rng.normal(size=(20, 2))}
    given = prune_channels(model, target="params: 60%", importance="taylor", data=(x, y), loss=["mse", "mse"])
    model.compile("sgd", "mse")
    compiled = prune_channels(model, target="params: 60%", importance="taylor", data=(x, y))
    assert widths(given)["from_a"] == widths(given)["from_b"] < 8
    for one, other in zip(given.get_weights(), compiled.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_measured_latency_is_bisected():
    model = residual_net()
    asked = []

    def measure(candidate):
        asked.append(candidate.count_params())
        return 3.0 + costs(candidate).flops / 1e5

    smaller = prune_channels(model, target="latency: 60%", measure=measure)
    whole = 3.0 + costs(model).flops / 1e5
    assert 0.55 < (3.0 + costs(smaller).flops / 1e5) / whole <= 0.6
    assert asked[0] == model.count_params()
    assert len(asked) <= 10


@pytest.mark.parametrize("multiple", [4, 8])
def test_channels_stay_in_multiples(multiple):
    model = residual_net()
    smaller = prune_channels(model, target="flops: 50%", multiple_of=multiple, minimum_channels=1)
    assert ratio(smaller, model) <= 0.5
    before = widths(model)
    for name, width in widths(smaller).items():
        assert width % multiple == 0 or width == before[name]
    assert sum(widths(smaller).values()) < sum(before.values())


def test_multiples_count_filters_of_grouped_convolutions():
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(16, 3, name="a")(x)
    y = layers.Conv2D(32, 3, groups=8, name="grouped")(y)
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)))
    smaller = prune_channels(model, target="flops: 60%", multiple_of=8, minimum_channels=1)
    assert (smaller.get_layer("a").filters, smaller.get_layer("grouped").filters) == (8, 16)
    assert smaller.get_layer("grouped").groups == 4


def test_floors_hold_by_fraction_and_by_count():
    model = residual_net()
    smaller = prune_channels(
        model, target="flops: 48%", minimum_channels=2, floors={"stem": 0.75, "block_0_.*": 20, "features": 1.0}
    )
    found = widths(smaller)
    assert found["stem"] == found["block_1_project"] == 16  # tied to a layer whose floor is all of them
    assert found["block_0_expand"] >= 20
    assert found["features"] == 20
    assert 2 <= found["block_1_expand"] < 16


def test_every_layer_keeps_a_tenth_by_default():
    with pytest.raises(ConfigError, match="the target 'flops: 1%' cannot be reached") as caught:
        prune_channels(residual_net(), target="flops: 1%")
    least = str(caught.value).partition("Choose '")[2].partition("'")[0]
    smaller = prune_channels(residual_net(), target=least)
    found = widths(smaller)
    assert (found["stem"], found["block_0_expand"], found["block_1_expand"]) == (2, 3, 3)
    assert found["features"] >= 2


def test_layers_choose_what_loses_channels():
    model = residual_net()
    smaller = prune_channels(model, target="flops: 70%", layers=r"block_\d_expand")
    changed = {name for name, width in widths(smaller).items() if width != widths(model)[name]}
    assert changed == {"block_0_expand", "block_1_expand"}
    with pytest.raises(ConfigError, match=r"no channel of the model .* may go.*layers= leaves 'block_0_project' out"):
        prune_channels(model, target="flops: 70%", layers="stem")


def test_coverage_is_a_table():
    lines = str(channel_coverage(residual_net())).splitlines()
    assert [line.split() for line in lines[1:-1]] == [
        ["stem", "+", "block_0_project", "+", "block_1_project", "16"],
        ["block_0_expand", "24"],
        ["block_1_expand", "24"],
        ["features", "20"],
    ]
    assert lines[-1].startswith("scores")
    assert "its activation 'softmax' runs over the channels" in lines[-1]
    chosen = channel_coverage(residual_net(), layers="stem|features")
    assert [group.layers for group in chosen.removable] == [("features",)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "50%"}, r"target must tell what remains, as 'flops: 50%'.*Received: '50%'"),
        ({"target": "flops: 0%"}, "Received: 'flops: 0%'"),
        ({"target": "flops: 120%"}, "Received: 'flops: 120%'"),
        ({"target": "macs: 50%"}, "Received: 'macs: 50%'"),
        ({"target": 0.5}, "Received: 0.5"),
        ({"target": "latency: 50%"}, r"measure=\.\.\. is what a target of latency is measured with"),
        ({"measure": len}, "and nothing else uses it"),
        ({"target": "latency: 50%", "measure": lambda model: 0.0}, "must return a positive number. Received: 0.0"),
        ({"importance": "l3"}, "importance must be one of 'l1', 'batch_norm', 'taylor'. Received: 'l3'"),
        ({"importance": "taylor"}, r"data=\(x, y\) is what importance='taylor' measures the loss on"),
        ({"data": (X, Y)}, "Received: importance='l1' and data="),
        ({"importance": "taylor", "data": (X, Y)}, "needs a loss. Compile the model with one, or give loss="),
        (
            {"importance": "taylor", "data": (X, Y), "loss": ["mse", "mse"]},
            "one loss for each of the",
        ),
        ({"minimum_channels": 1.5}, r"minimum_channels must be a fraction in \[0, 1\].*Received: 1.5"),
        ({"minimum_channels": -1}, "Received: -1"),
        ({"floors": {"stem": True}}, r"floors\['stem'\] must be a fraction.*Received: True"),
        ({"floors": {"nothing": 0.5}}, "floors='nothing' matches no layer that makes channels. Those: block_0_expand"),
        ({"floors": {"(": 0.5}}, "must be regular expressions"),
        ({"multiple_of": 0}, "multiple_of must be an integer from 1 on. Received: 0"),
        ({"multiple_of": 8.0}, "Received: 8.0"),
        ({"layers": "nothing"}, "layers='nothing' matches no layer"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ConfigError, match=message):
        prune_channels(residual_net(), **{"target": "flops: 50%", **options})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([X, Y], r"data must be a tuple \(x, y\) of samples and targets. Received: list"),
        ((X[:, :5], Y), "must have shape"),
        ((X, Y[:7]), r"must hold a target for each of the 40 samples. Received targets of shape \(7,\)"),
        ((X * np.float32(np.nan), Y), "must be finite"),
    ],
)
def test_bad_data(data, message):
    with pytest.raises(DataError, match=message):
        prune_channels(
            residual_net(),
            target="flops: 50%",
            importance="taylor",
            data=data,
            loss="sparse_categorical_crossentropy",
        )


def test_flops_of_unknown_sizes_are_refused():
    x = keras.Input((None, None, 3))
    y = layers.Conv2D(8, 3, name="conv")(x)
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)))
    with pytest.raises(ConfigError, match=r"FLOPs of 'conv' are not counted.*or take target='params: 50%'"):
        prune_channels(model, target="flops: 50%")
    assert prune_channels(model, target="params: 50%").get_layer("conv").filters < 8


def test_models_without_removable_channels_are_refused():
    x = keras.Input((4,))
    with pytest.raises(ModelError, match=r"no channel .* may go. scores: the model returns them"):
        prune_channels(keras.Model(x, layers.Dense(2, name="scores")(x)), target="params: 50%")


def test_quantize_aware_models_are_refused():
    aware = tfopt.quantize_aware(residual_net(), calibration=X)
    with pytest.raises(ModelError, match="no channel"):
        prune_channels(aware, target="params: 50%")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50V2", "EfficientNetB0", "DenseNet121", "MobileNetV3Small"])
def test_networks_of_keras_applications(name, removed):
    # In float64, a wrong channel cannot pass for a rounding error.
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        keras.utils.set_random_seed(0)
        make = getattr(keras.applications, name)
        model = randomize(make(input_shape=(96, 96, 3), weights=None, classifier_activation=None))
        smaller = prune_channels(model, target="flops: 50%")
        assert 0.49 < ratio(smaller, model) <= 0.5
        assert relative_error(smaller, zeroed(*removed), samples(model)) < 1e-8
        [kept] = [group for group in find_channel_groups(read_graph(model)).groups if group.reason]
        assert kept.reason == "the model returns them"
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
