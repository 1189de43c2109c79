"""A trained model compressed as hyperparameters say."""

from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest

from tfopt import Distiller
from tfopt.errors import ConfigError, ModelError
from tfopt.quantization import coverage, is_quantize_aware, quantize_aware
from tfopt.tuning import CompressionHyperModel

pytestmark = pytest.mark.slow

layers = keras.layers
X = np.random.default_rng(0).normal(size=(96, 8)).astype("float32")
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
ALL = ("channels", "sparsity", "quantization", "distillation")
GROUPS = {"first": "first", "rest": "second|scores"}


def model() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(32, "relu", name="first"),
            layers.Dense(32, "relu", name="second"),
            layers.Dense(3, "softmax", name="scores"),
        ]
    )


def hyper_model(**changed: Any) -> CompressionHyperModel:
    arguments: dict[str, Any] = {"budget": "size: 50%", **changed}
    return CompressionHyperModel(arguments.pop("model", None) or model(), (X, Y), **arguments)


def values(**given: Any) -> keras_tuner.HyperParameters:
    hp = keras_tuner.HyperParameters()
    hp.values.update({name.replace("__", "/"): value for name, value in given.items()})
    return hp


def searched(found: CompressionHyperModel) -> set[str]:
    hp = keras_tuner.HyperParameters()
    found.build(hp)
    return {parameter.name for parameter in hp.space}


def fitted(found: CompressionHyperModel, hp: keras_tuner.HyperParameters, **changed: Any) -> tuple[Any, Any]:
    built = found.build(hp)
    arguments = {"epochs": 2, "verbose": 0, "batch_size": 16, **changed}
    history = found.fit(hp, built, X, Y, validation_data=(X, Y), **arguments).history
    return built.student if isinstance(built, Distiller) else built, history


def test_the_space_is_what_the_budget_and_the_model_allow() -> None:
    assert searched(hyper_model()) == {"channels", "quantization", "temperature", "learning_rate"}
    assert searched(hyper_model(budget="flops: 50%")) == {"channels", "temperature", "learning_rate"}
    both = searched(hyper_model(budget="flops: 50%, size: 30%"))
    assert both == {"channels", "quantization", "temperature", "learning_rate"}
    assert searched(hyper_model(budget="download: 50%", groups=GROUPS)) == {
        *("channels/first", "channels/rest", "sparsity/first", "sparsity/rest"),
        *("quantization/first", "quantization/rest", "temperature", "learning_rate"),
    }
    head = {"head": "scores"}  # which the outputs of the model fix
    assert searched(hyper_model(groups=head, techniques=["sparsity"])) == {"sparsity/head", "learning_rate"}


def test_int16_is_for_all_groups_or_none() -> None:
    found = hyper_model(groups=GROUPS, quantizations=("int8", "int16x8", "none"))
    built = found.build(values(int16x8=True)).student
    assert {row.arithmetic for row in coverage(built).rows} == {"int16"}
    hp = values(int16x8=False, quantization__first="none", quantization__rest="int8")
    computes = {row.layer: row.arithmetic for row in coverage(found.build(hp).student).rows}
    assert (computes["first"], computes["second"], computes["scores"]) == ("float", "int8", "int8")


def test_channels_bits_zeros_and_the_teacher_are_as_asked_for() -> None:
    given = model()
    before = given.get_weights()
    found = hyper_model(model=given, budget="download: 50%", groups=GROUPS)
    hp = values(
        **{"channels__first": 0.25, "channels__rest": 0.5, "sparsity__first": 0.5, "sparsity__rest": 0.0},
        **{"quantization__first": "int8", "quantization__rest": "none", "temperature": 2.0, "learning_rate": 1e-3},
    )
    built = found.build(hp)
    assert isinstance(built, Distiller)
    assert is_quantize_aware(built.student)
    student, history = fitted(found, hp)
    weights = {layer.name: layer for layer in student._flatten_layers() if hasattr(layer, "kernel")}
    assert weights["first"].kernel.shape == (8, 8)
    assert weights["second"].kernel.shape == (8, 16)
    assert np.count_nonzero(weights["first"].kernel) == 32
    assert np.count_nonzero(weights["second"].kernel) == 128
    assert all(np.array_equal(now, then) for now, then in zip(given.get_weights(), before, strict=True))
    assert len(history["budget_used"]) == len(history["val_objective"]) == 2


def test_zeros_are_there_from_the_first_epoch_on() -> None:
    hp = values(sparsity=0.75, learning_rate=1e-3)
    found = hyper_model(budget="download: 50%", techniques=["sparsity"])
    student, history = fitted(found, hp)
    assert history["sparsity"] == pytest.approx([0.75, 0.75], abs=0.01)
    assert history["budget_used"][0] < 0.6 / 0.5  # of the budget of a half
    assert np.count_nonzero(student.get_layer("second").kernel) == 256


def test_the_embedding_of_a_group_loses_weights_and_is_counted_in_int8() -> None:
    words = [keras.Input((8,)), layers.Embedding(200, 16, name="words"), layers.Flatten()]
    text = keras.Sequential([*words, layers.Dense(3, "softmax", name="scores")])
    tokens = np.random.default_rng(0).integers(200, size=(96, 8))
    groups = {"words": "words", "rest": "scores"}
    found = CompressionHyperModel(text, (tokens, Y), budget="download: 20%", groups=groups)
    hp = values(sparsity__words=0.9, sparsity__rest=0.0)
    built = found.build(hp)
    history = found.fit(hp, built, tokens, Y, validation_data=(tokens, Y), epochs=1, verbose=0).history
    assert np.mean(np.array(built.student.get_layer("words").embeddings) == 0) == pytest.approx(0.9, abs=0.01)
    assert history["budget_used"][-1] < 1  # a quarter for its int8, less for its zeros


def test_the_objective_is_the_score_less_what_exceeds_the_budget() -> None:
    found = hyper_model(techniques=["channels"], penalty=2.0)
    _, history = fitted(found, values(channels=1.0, learning_rate=1e-3))
    assert history["budget_used"] == [2.0, 2.0]
    np.testing.assert_allclose(history["val_objective"], np.array(history["val_accuracy"]) - 1.0)


def test_a_loss_is_a_score_that_is_to_be_small() -> None:
    y = X[:, :1] - X[:, 1:2]
    regression = keras.Sequential([keras.Input((8,)), layers.Dense(16, "relu"), layers.Dense(1)])
    found = CompressionHyperModel(regression, (X, y), budget="size: 90%")
    assert "temperature" not in searched(found)  # there are no classes
    hp = values(quantization="int8", channels=1.0, learning_rate=1e-3)
    history = found.fit(hp, found.build(hp), X, y, validation_data=(X, y), verbose=0).history
    assert history["val_objective"] == [-history["val_loss"][0]]
    mean = hyper_model(metric="auc", direction="max", loss="categorical_crossentropy")
    assert (mean.score_name, mean.direction) == ("val_auc", "max")


def test_the_given_models_score_is_its_own() -> None:
    given = model()
    expected = np.mean(np.argmax(given.predict(X, verbose=0), axis=1) == Y)
    assert hyper_model(model=given).original_score((X, Y)) == pytest.approx(expected)
    assert not given.compiled


def test_any_tuner_takes_it(tmp_path) -> None:
    found = hyper_model(techniques=["channels"])
    tuner = keras_tuner.RandomSearch(
        found, objective=found.objective, max_trials=2, directory=tmp_path, project_name="p", seed=1
    )
    tuner.search(X, Y, validation_data=(X, Y), epochs=1, verbose=0)
    assert len(tuner.oracle.trials) == 2
    assert all(trial.metrics.exists("budget_used") for trial in tuner.oracle.trials.values())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"budget": "latency: 40%"}, "budget must name what may remain, as 'size: 1 MB', 'download: 300 kB', 'flops"),
        ({"penalty": 0}, "penalty must be above 0"),
        ({"quantizations": ["int4"]}, r"some of int8, int16x8, none. Received: \['int4'\]"),
        ({"quantizations": []}, "Received: "),
        ({"techniques": ["clustering"]}, r"Received: \['clustering'\]"),
        ({"techniques": "channels"}, "Received: 'channels'"),
        ({"techniques": ["channels"], "groups": {"head": "scores"}}, "no layer of the groups may lose channels"),
        ({"metric": "f1"}, "pass direction="),
    ],
)
def test_what_cannot_be_is_refused(changed, message) -> None:
    with pytest.raises(ConfigError, match=message):
        hyper_model(**changed)


def test_operations_must_be_counted_for_a_budget_of_them() -> None:
    nothing = keras.Sequential([keras.Input((8,)), layers.Rescaling(2.0), layers.Softmax()])
    with pytest.raises(ConfigError, match="a budget of flops means nothing"):
        CompressionHyperModel(nothing, (X, Y % 8), budget="flops: 50%", loss="mse", techniques=["quantization"])


def test_a_quantize_aware_model_is_refused() -> None:
    with pytest.raises(ModelError, match="is quantize-aware already"):
        hyper_model(model=quantize_aware(model()))
