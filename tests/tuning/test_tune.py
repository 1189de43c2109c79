"""A search finds good hyperparameters, stops bad trials, and goes on where it was."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt.errors import ConfigError, DataError, ModelError
from tfopt.tuning import Constraint, TuningResult, tune

layers = keras.layers


def data() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(128, 2)).astype("float32")
    return x, x.sum(axis=1)


def build(hp: Any) -> keras.Model:
    model = keras.Sequential(
        [keras.Input((2,)), layers.Dense(hp.Choice("units", [1, 8]), use_bias=False), layers.Dense(1)]
    )
    model.compile(keras.optimizers.Adam(hp.Float("learning_rate", 1e-5, 0.1, sampling="log")), "mse")
    return model


def found(**changed: Any) -> TuningResult:
    arguments: dict[str, Any] = {"trials": 4, "epochs": 3, **changed}
    return tune(arguments.pop("build_model", build), data(), data(), **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("search", ["bayesian", "random", "hyperband"])
def test_the_best_trial_comes_first_with_its_model(search, tmp_path: Path) -> None:
    result = found(search=search, folder=tmp_path)
    scores = [row.score for row in result.rows]
    assert scores == sorted(scores)
    assert len(scores) == 4 or search == "hyperband"
    assert set(result.best.values) == {"units", "learning_rate"}
    assert result.model.evaluate(*data(), verbose=0) == pytest.approx(result.best.score, rel=1e-4)
    lines = str(result).splitlines()
    assert lines[0].split() == ["trial", "val_loss", "epochs", "units", "learning_rate"]
    assert len(lines) == len(result.rows) + 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 3])  # keras-tuner takes 0 for none
def test_the_same_seed_finds_the_same(seed: int) -> None:
    assert found(seed=seed).rows == found(seed=seed).rows


@pytest.mark.thorough
def test_a_search_goes_on_where_it_was(tmp_path: Path) -> None:
    first = found(trials=2, folder=tmp_path)
    built = []

    def counting(hp: Any) -> keras.Model:
        built.append(dict(hp.values))
        return build(hp)

    second = found(trials=4, folder=tmp_path, build_model=counting)
    assert len(second.rows) == 4
    before = {row.number: row for row in first.rows}
    assert {row.number: row for row in second.rows if row.number <= 2} == before
    assert len([values for values in built if values]) <= 4  # two trials, and the look at the space of values


@pytest.mark.thorough
def test_a_trial_that_is_behind_is_given_up() -> None:
    rates = iter([0.05, 0.05, 0.05, 1e-6])

    def worse_at_last(hp: Any) -> keras.Model:
        hp.Int("number", 0, 1000)
        model = keras.Sequential([keras.Input((2,)), layers.Dense(1, kernel_initializer="zeros")])
        model.compile(keras.optimizers.SGD(next(rates) if hp.values["number"] else 0.05), "mse")
        return model

    result = found(build_model=worse_at_last, search="random", epochs=4)
    last = next(row for row in result.rows if row.number == 4)
    assert last.remark == "given up: behind the median"
    assert last.epochs == 1
    assert {row.epochs for row in result.rows if row.number < 4} == {4}


@pytest.mark.thorough
def test_models_that_are_too_large_are_passed_over() -> None:
    result = found(max_parameters=4, trials=6, search="random")
    large = [row for row in result.rows if row.score is None]
    assert {row.values["units"] for row in large} == {8}
    assert all("Oversized model" in row.remark and row.epochs == 0 for row in large)
    assert result.best.values["units"] == 1
    with pytest.raises(ModelError, match=r"none of 4 trials came to a score.*Oversized model"):
        found(max_parameters=1)


@pytest.mark.slow
def test_a_constrained_search_keeps_the_limit() -> None:
    class PartOfTheLimit(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            assert logs is not None
            logs["part"] = self.model.count_params() / 40
            logs["val_objective"] = logs["val_loss"] + 100 * max(0.0, 1 - 1 / logs["part"])

    def wide(hp: Any) -> keras.Model:
        model = keras.Sequential([keras.Input((2,)), layers.Dense(hp.Int("units", 1, 64), "relu"), layers.Dense(1)])
        model.compile(keras.optimizers.Adam(0.03), "mse")
        return model

    result = found(
        build_model=wide,
        objective="val_objective",
        direction="min",
        constraint=Constraint("val_loss", "min", used="part"),
        callbacks=[PartOfTheLimit()],
        trials=9,
    )
    # 9 units are the most that keep it, and one of seven choices at random does.
    assert 6 <= result.best.values["units"] <= 9


@pytest.mark.slow
def test_a_dataset_and_a_metric_of_known_direction_are_taken() -> None:
    x, y = data()

    def classifier(hp: Any) -> keras.Model:
        model = keras.Sequential([keras.Input((2,)), layers.Dense(2, "softmax")])
        model.compile(
            keras.optimizers.Adam(hp.Choice("rate", [1e-5, 0.1])),
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        return model

    batches = tf.data.Dataset.from_tensor_slices((x, (y > 0).astype(int))).batch(32)
    result = tune(classifier, batches, batches, objective="val_accuracy", search="random", trials=2, epochs=2)
    assert result.best.score == max(row.score for row in result.rows)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"search": "grid"}, "bayesian, hyperband, random"),
        ({"build_model": "model"}, "build_model must be a function or a HyperModel. Received: str"),
        ({"trials": 0}, "tune: trials must be a whole number of at least 1"),
        ({"patience": 0}, "tune: patience"),
        ({"seed": -1}, "tune: seed"),
        ({"max_parameters": 0}, "max_parameters"),
        ({"objective": "val_f1"}, "pass direction='min' or 'max'"),
        ({"direction": "up"}, "Received: 'up'"),
        (
            {"constraint": Constraint("val_mae", "least", used="part")},
            "tune: constraint: direction .* Received: 'least'",
        ),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_is_refused(changed, message) -> None:
    with pytest.raises(ConfigError, match=message):
        found(**changed)


def test_processes_need_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    with pytest.raises(ConfigError, match="need the same folder="):
        found()


def test_other_data_is_refused() -> None:
    with pytest.raises(DataError, match=r"train must be a tuple \(x, y\)"):
        tune(build, data()[0], data())
