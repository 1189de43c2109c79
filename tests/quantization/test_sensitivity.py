"""The ranking of layers, against models in which one layer is known to lose most."""

import keras
import numpy as np
import pytest
from keras import layers

from tfopt.errors import ConfigError, DataError, ModelError
from tfopt.quantization import quantize_aware
from tfopt.quantization.sensitivity import Sensitivity, SensitivityRow, sensitivity

pytestmark = pytest.mark.slow

X = np.random.default_rng(0).normal(size=(96, 8, 8, 3)).astype(np.float32)


def network():
    """In "wide", the channels' scales differ so much that one grid for all of them loses the small ones."""
    keras.utils.set_random_seed(1)
    x = keras.Input((8, 8, 3), name="image")
    y = layers.Conv2D(6, 3, name="first")(x)
    y = layers.ReLU(name="first_relu")(layers.BatchNormalization(name="first_norm")(y))
    y = layers.MaxPooling2D(2, name="pool")(y)
    z = layers.SeparableConv2D(6, 3, padding="same", activation="relu", name="wide")(y)
    y = layers.Add(name="sum")([y, z])
    model = keras.Model(x, layers.Dense(4, activation="softmax", name="scores")(layers.Flatten(name="flat")(y)))
    wide = model.get_layer("wide")
    scale = np.array([1, 1, 1, 1, 1, 300.0], np.float32)
    wide.pointwise_kernel.assign(wide.pointwise_kernel * scale)
    kernel = model.get_layer("scores").kernel.numpy().reshape(3, 3, 6, 4)
    kernel[..., 5, :] /= 300
    model.get_layer("scores").kernel.assign(10 * kernel.reshape(54, 4))
    return model


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def targets(model):
    return model.predict(X, verbose=0).argmax(-1)


@pytest.fixture(scope="module")
def result(model, targets):
    return sensitivity(model, (X, targets), samples=48)


def measured_sqnr_db(model, names=()):
    chosen = X[np.linspace(0, 95, 48).round().astype(int)]
    aware = quantize_aware(model, calibration=chosen, layers=dict.fromkeys(names, "none"))
    expected, received = (one.predict(chosen, verbose=0).astype(float) for one in (model, aware))
    return 10 * np.log10(np.sum(expected**2) / np.sum((received - expected) ** 2))


def test_every_layer_that_rounds_has_a_row_with_what_belongs_to_it(result):
    rows = {row.layer: row for row in result.rows}
    assert {name: (row.kind, row.layers) for name, row in rows.items()} == {
        "image": ("InputLayer", ("image",)),
        "first": ("Conv2D", ("first", "first_norm", "first_relu", "pool")),
        "wide": ("SeparableConv2D", ("wide",)),
        "sum": ("Add", ("sum", "flat")),
        "scores": ("Dense", ("scores",)),
    }
    assert {name: set(row.read_by) for name, row in rows.items()} == {
        "image": {"first"},
        "first": {"wide", "sum"},
        "wide": {"sum"},
        "sum": {"scores"},
        "scores": {""},
    }
    assert all(row.weight_noise == 0 for row in (rows["image"], rows["sum"]))
    assert all(rows[name].weight_noise > 0 for name in ("first", "wide", "scores"))


def test_the_worst_comes_first(result):
    ratios = [row.sqnr_db for row in result.rows]
    assert ratios == sorted(ratios)
    assert {result.rows[0].layer, result.rows[1].layer} == {"wide", "sum"}  # the wide grid goes through both
    assert ratios[0] < ratios[2] - 9


def test_all_layers_together_are_the_quantize_aware_model(model, result):
    assert result.sqnr_db == pytest.approx(measured_sqnr_db(model), abs=1e-3)


def test_a_layer_alone_is_the_model_with_only_its_roundings(model, result):
    """The last layer: its weights, its output and softmax's, on the float model's activations."""
    chosen = X[np.linspace(0, 95, 48).round().astype(int)]
    aware = quantize_aware(model, calibration=chosen)
    flat = keras.Model(model.input, model.get_layer("flat").output).predict(chosen, verbose=0)
    x = keras.Input((54,))
    y, _ = aware.get_layer("scores_range")(aware.get_layer("scores_int8")(x), member=0)
    y, _ = aware.get_layer("scores_activation_range")(aware.get_layer("scores_activation")(y))
    expected, received = model.predict(chosen, verbose=0).astype(float), keras.Model(x, y).predict(flat, verbose=0)
    ratio = 10 * np.log10(np.sum(expected**2) / np.sum((received - expected) ** 2))
    assert next(row for row in result.rows if row.layer == "scores").sqnr_db == pytest.approx(ratio, abs=1e-3)


def test_the_model_with_the_suggestion_reaches_what_was_predicted(model, result):
    names = result.suggest(minimum_sqnr_db=result.sqnr_db + 8)
    assert {"wide", "sum"} <= set(names)
    assert "first" not in names
    assert result.predicted_sqnr_db(names) >= result.sqnr_db + 8
    assert measured_sqnr_db(model, names) >= result.predicted_sqnr_db(names) - 1


def test_the_drop_is_that_of_the_metric(model, targets, result):
    assert all(row.metric_drop >= 0 for row in result.rows)  # the float model gave the targets
    one_hot = sensitivity(model, (X, np.eye(4)[targets]), samples=48)
    assert [row.metric_drop for row in one_hot.rows] == [row.metric_drop for row in result.rows]

    def constant(y, predictions):
        assert predictions.shape == (48, 4)
        return float(y.sum())

    with_metric = sensitivity(model, (X, np.ones(96)), metric=constant, samples=48)
    assert {row.metric_drop for row in with_metric.rows} == {0.0}


def test_without_targets_there_is_no_drop(model):
    aware = quantize_aware(model, calibration=X)
    before = [weight.numpy() for weight in aware.weights]
    result = sensitivity(aware, X, samples=16)
    assert {row.metric_drop for row in result.rows} == {None}
    assert "metric" not in str(result)
    assert {row.layer for row in result.rows} >= {"image", "first", "wide_depthwise", "wide", "sum"}
    for weight, value in zip(aware.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_several_inputs_and_outputs_and_shared_layers():
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    shared = layers.Dense(5, activation="relu", name="shared")
    joined = layers.Concatenate(name="joined")([shared(left), shared(right)])
    model = keras.Model(
        {"left": left, "right": right}, [layers.Dense(2, name="a")(joined), layers.Dense(1, name="b")(joined)]
    )
    samples = {name: np.random.default_rng(0).normal(size=(20, 4)) for name in ("left", "right")}
    result = sensitivity(model, samples)
    rows = {row.layer: row for row in result.rows}
    assert set(rows) == {"left", "right", "shared", "joined", "a", "b"}
    assert rows["joined"].read_by == {"a", "b"}
    assert rows["a"].sqnr_db < 60  # though the other output has no error by it
    with pytest.raises(ConfigError, match="Give metric=callable"):
        sensitivity(model, (samples, np.zeros(20, int)))


ROWS = (
    SensitivityRow("b", "Dense", 20.0, 0.25, ("b",), frozenset({"c"}), 0.004, 0.006),
    SensitivityRow("c", "Dense", 30.0, 0.0, ("c", "relu"), frozenset({""}), 0.0008, 0.0002),
    SensitivityRow("a", "InputLayer", 40.0, -0.01, ("a",), frozenset({"b"}), 0.0, 0.0001),
)


def test_the_table():
    assert str(Sensitivity(ROWS, 19.0)).splitlines() == [
        "layer  kind        SQNR dB  metric drop",
        "b      Dense          20.0      +0.2500",
        "c      Dense          30.0      +0.0000",
        "a      InputLayer     40.0      -0.0100",
        "all: 19.0 dB, as a sum 19.5 dB",
    ]


def test_noise_of_layers_in_float_leaves_the_sum_but_not_at_borders_with_integers():
    result = Sensitivity(ROWS, 19.0)
    assert result.predicted_sqnr_db() == pytest.approx(-10 * np.log10(0.0111))
    assert result.predicted_sqnr_db(["b"]) == pytest.approx(-10 * np.log10(0.0071))
    assert result.predicted_sqnr_db(["c"]) == result.predicted_sqnr_db()  # its ReLU is not among them
    assert result.predicted_sqnr_db(["b", "c", "relu"]) == pytest.approx(-10 * np.log10(0.0003))


def test_suggestions():
    result = Sensitivity(ROWS, 19.0)
    assert result.suggest(minimum_sqnr_db=10) == []
    assert result.suggest(minimum_sqnr_db=21) == ["b"]
    assert result.suggest(minimum_sqnr_db=30) == ["b", "c", "relu"]
    assert result.suggest(count=1) == ["b"]
    assert result.suggest(count=0) == []
    with pytest.raises(ConfigError, match=r"40\.0 dB cannot be reached: .* leaves 35\.2 dB"):
        result.suggest(minimum_sqnr_db=40)
    for options in ({}, {"count": 3}, {"count": -1}, {"count": 1, "minimum_sqnr_db": 3.0}):
        with pytest.raises(ConfigError, match=r"give either minimum_sqnr_db or a count of at most 2"):
            result.suggest(**options)


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        (X[:0], {}, DataError, "is empty"),
        (X * np.nan, {}, DataError, "must be finite"),
        (X[:, :4], {}, DataError, "must have shape"),
        ((X, np.zeros(3, int)), {}, DataError, r"one target for each of the 96 samples\. Received: 3"),
        ((X, np.full(96, 0.5)), {}, ConfigError, "Give metric=callable"),
        (X, {"metric": lambda y, predictions: 1.0}, ConfigError, "a metric needs targets"),
        (X, {"config": "int4"}, ConfigError, "int4"),
        (X, {"samples": 0}, ConfigError, "samples must be at least 1. Received: 0"),
    ],
)
def test_bad_input_is_refused(data, options, error, message):
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(3)])
    with pytest.raises(error, match=message):
        sensitivity(model, data, **options)


def test_models_that_cannot_be_measured_are_refused(model):
    with pytest.raises(ConfigError, match="is quantize-aware already"):
        sensitivity(quantize_aware(model), X, config="int16x8")
    silent = keras.Sequential([keras.Input((4,)), layers.Dense(3, kernel_initializer="zeros")])
    with pytest.raises(DataError, match="all zero or not finite"):
        sensitivity(silent, np.ones((4, 4)))
    with pytest.raises(ModelError, match="not built"):
        sensitivity(keras.Sequential([layers.Dense(3)]), X)
