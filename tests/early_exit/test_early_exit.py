"""Exits put on a model, trained in one fit, saved and loaded."""

from pathlib import Path

import keras
import numpy as np
import pytest
from exit_networks import classifier, flat_head, samples, trained

import tfopt
from tfopt.callbacks import MagnitudePruning
from tfopt.early_exit import EarlyExitNetwork
from tfopt.errors import ConfigError, ModelError

pytestmark = pytest.mark.slow

layers = keras.layers
SPARSE = "sparse_categorical_crossentropy"


def test_the_last_exit_is_the_model_as_it_was() -> None:
    model = classifier()
    before = [weight.copy() for weight in model.get_weights()]
    x, _ = samples(16)
    network = tfopt.early_exit(model, ["early", "middle"])
    assert isinstance(network, EarlyExitNetwork)
    assert network.output_names == ["exit_1", "exit_2", "classes"]
    outputs = network.predict(x, verbose=0)
    np.testing.assert_allclose(outputs[-1], model.predict(x, verbose=0), atol=1e-6)
    np.testing.assert_allclose([output.sum(axis=1) for output in outputs], 1, rtol=1e-5)
    network.get_layer("early").kernel.assign(0 * network.get_layer("early").kernel)
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


@pytest.mark.parametrize(
    ("shape", "layer", "activation"),
    [
        ((6,), layers.Dense(5), "softmax"),
        ((6, 3), layers.Conv1D(4, 3), None),
        ((4, 4, 4, 1), layers.Conv3D(4, 3), "sigmoid"),
    ],
)
def test_the_default_head_fits_the_features_and_the_answer(shape, layer, activation) -> None:
    units = 1 if activation == "sigmoid" else 3
    model = keras.Sequential([keras.Input(shape), layer, layers.Flatten(), layers.Dense(units, activation)])
    network = tfopt.early_exit(model, [layer.name])
    head = network.get_layer("exit_1")
    assert head.activation is keras.activations.get(activation)
    assert network.outputs[0].shape == network.outputs[1].shape


def test_nested_models_and_a_softmax_layer_are_looked_through() -> None:
    nested = keras.Sequential([keras.Input((4,)), layers.Dense(8, name="inner")], name="backbone")
    model = keras.Sequential([keras.Input((4,)), nested, layers.Dense(3), layers.Softmax()])
    network = tfopt.early_exit(model, ["inner"])
    assert network.get_layer("exit_1").activation is keras.activations.softmax


def test_a_name_that_is_taken_gets_a_number() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, name="exit_1"), layers.Dense(3, name="classes")])
    assert tfopt.early_exit(model, ["exit_1"]).output_names == ["exit_1_1", "classes"]


def test_one_set_of_targets_trains_all_exits() -> None:
    x, y = samples()
    network = tfopt.early_exit(classifier(), ["early", "middle"], head=flat_head)
    network.compile("adam", SPARSE, loss_weights=[0.25, 0.5, 1.0], metrics=["accuracy"])
    losses = network.evaluate(x, y, verbose=0, return_dict=True)
    parts = [0.25 * losses["exit_1_loss"], 0.5 * losses["exit_2_loss"], losses["classes_loss"]]
    assert losses["loss"] == pytest.approx(sum(parts), rel=1e-5)
    before = {layer: network.get_layer(layer).get_weights()[0] for layer in ("exit_1", "exit_2", "classes")}
    history = network.fit(x, y, epochs=3, validation_data=(x, y), verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert {"exit_1_accuracy", "val_exit_2_accuracy", "val_classes_loss"} <= history.keys()
    assert all(np.any(network.get_layer(layer).get_weights()[0] != old) for layer, old in before.items())


def test_weights_and_metric_objects_count_for_each_exit() -> None:
    x, y = samples(64)
    network = tfopt.early_exit(classifier(), ["early"])
    network.compile("adam", SPARSE, metrics=[keras.metrics.SparseCategoricalAccuracy(name="right")])
    expected = [float(np.mean(output.argmax(-1) == y)) for output in network.predict(x, verbose=0)]
    measured = network.evaluate(x, y, verbose=0, return_dict=True)
    assert [measured["exit_1_right"], measured["classes_right"]] == pytest.approx(expected)
    weights = np.where(y == 0, 3.0, 0.0)
    weighted = network.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
    alone = network.evaluate(x[y == 0], y[y == 0], verbose=0, return_dict=True)
    assert weighted["loss"] == pytest.approx(3 * alone["loss"] * np.mean(y == 0), rel=1e-4)
    network.fit(x, y, class_weight={0: 1.0, 1: 2.0, 2: 0.5}, verbose=0)


def test_targets_losses_and_metrics_may_be_given_by_exit() -> None:
    x, y = samples(64)
    network = tfopt.early_exit(classifier(), ["early"])
    network.compile("adam", [SPARSE, SPARSE], metrics=[[], ["accuracy"]])
    history = network.fit(x, [y, y], verbose=0).history
    assert "classes_accuracy" in history
    assert "exit_1_accuracy" not in history


def test_a_compiled_network_is_saved_and_trains_on(tmp_path: Path) -> None:
    x, y = samples(64)
    network = tfopt.early_exit(classifier(), ["early", "middle"])
    network.compile("adam", SPARSE, loss_weights=[0.3, 0.3, 1.0], metrics=["accuracy"])
    network.fit(x, y, verbose=0)
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    assert isinstance(loaded, EarlyExitNetwork)
    for one, other in zip(network.predict(x, verbose=0), loaded.predict(x, verbose=0), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert loaded.evaluate(x, y, verbose=0) == pytest.approx(network.evaluate(x, y, verbose=0), rel=1e-4)
    loaded.fit(x, y, verbose=0)


def test_pruning_works_in_the_same_fit() -> None:
    x, y = samples(64)
    network = tfopt.early_exit(classifier(), ["early"])
    network.compile("adam", SPARSE)
    network.fit(x, y, epochs=2, verbose=0, callbacks=[MagnitudePruning(0.5, end_step=2, frequency=1)])
    kernel = network.get_layer("middle").get_weights()[0]
    assert np.mean(kernel == 0) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("exits", "message"),
    [
        ([], r"at least one\. Received: \[\]"),
        ("early", "list of layer names"),
        (["absent"], r"'absent', which is not there\. Available: early, middle"),
        (["middle", "early"], r"\['early', 'middle'\]\. Received: \['middle', 'early'\]"),
        (["early", "early"], "named once"),
        (["classes"], "makes the output"),
    ],
)
def test_exits_that_cannot_be_are_refused(exits, message) -> None:
    with pytest.raises(ConfigError, match=message):
        tfopt.early_exit(classifier(), exits)


def test_a_layer_that_is_called_twice_is_refused() -> None:
    x = keras.Input((4,))
    twice = layers.Dense(4, name="twice")
    with pytest.raises(ConfigError, match="'twice', which is called 2 times"):
        tfopt.early_exit(keras.Model(x, layers.Dense(3)(twice(twice(x)))), ["twice"])


def test_a_head_of_another_shape_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"shape of the model's: \(None, 3\)\. Received: \(None, 2\)"):
        tfopt.early_exit(classifier(), ["early"], head=lambda x, name: layers.Dense(2, name=name)(layers.Flatten()(x)))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (keras.Sequential([keras.Input((4, 4)), layers.Dense(4), layers.Dense(3)]), r"\(batch, classes\)\. Received"),
        (keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.Dense(3, "sigmoid")]), "3 sigmoids"),
        (keras.Sequential([layers.Dense(4)]), "not built"),
        ("model", "Received: str"),
    ],
)
def test_models_that_are_no_classifiers_are_refused(model, message) -> None:
    with pytest.raises(ModelError, match=message):
        tfopt.early_exit(model, ["dense"])


def test_a_network_with_exits_gets_no_more() -> None:
    with pytest.raises(ModelError, match=r"one output\. Received: .* with 3"):
        tfopt.early_exit(trained(), ["early"])
