"""A search for how a model keeps a budget."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt.errors import ConfigError, DataError
from tfopt.quantization import is_quantize_aware
from tfopt.tuning import CompressionResult, compress
from tfopt.tuning.compression_cost import estimated_figures

pytestmark = pytest.mark.slow

layers = keras.layers
X = np.random.default_rng(0).normal(size=(256, 8)).astype("float32")
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


@pytest.fixture(scope="module")
def trained() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(64, "relu", name="hidden"), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(X, Y, epochs=10, verbose=0)
    return model


def found(model: keras.Model, **changed: Any) -> CompressionResult:
    arguments: dict[str, Any] = {"budget": "size: 30%", "search": "random", "trials": 3, "epochs": 1, **changed}
    data = arguments.pop("train", (X, Y))
    return compress(model, data, arguments.pop("validation", (X, Y)), **arguments)


def test_the_best_that_keeps_the_budget_comes_first_with_its_model(trained) -> None:
    before = trained.get_weights()
    result = found(trained, budget="size: 12%", seed=3)
    within = [row.is_within_budget for row in result.rows]
    assert within == sorted(within, reverse=True)
    assert result.is_within_budget
    assert not all(within)
    scores = [row.score for row in result.rows if row.is_within_budget]
    assert scores == sorted(scores, reverse=True)
    model = result.model
    assert type(model).__name__ == "Functional"
    assert is_quantize_aware(model) == (result.best.values["quantization"] == "int8")
    accuracy = np.mean(np.argmax(model.predict(X, verbose=0), axis=1) == Y)
    assert accuracy == pytest.approx(result.best.score, abs=1e-6)
    used = estimated_figures(model).size / (0.12 * estimated_figures(trained).size)
    assert used == pytest.approx(result.best.budget_used)
    assert all(np.array_equal(now, then) for now, then in zip(trained.get_weights(), before, strict=True))
    lines = str(result).splitlines()
    names = ["channels", "quantization", "learning_rate", "temperature"]
    assert lines[0].split() == ["trial", "val_accuracy", "of", "budget", "epochs", *names]
    assert lines[-1] == f"The given model has val_accuracy {result.original_score:.4f}. Budget: size: 12%."


@pytest.mark.thorough
def test_a_search_goes_on_where_it_was(trained, tmp_path: Path) -> None:
    known = {row.number: row for row in found(trained, trials=2, folder=tmp_path).rows}
    again = found(trained, folder=tmp_path)
    assert len(again.rows) == 3
    assert {row.number: row for row in again.rows if row.number in known} == known
    with pytest.raises(ConfigError, match="holds a search of another model, budget or space"):
        found(trained, folder=tmp_path, budget="size: 31%")


def test_the_closest_is_told_where_none_keeps_the_budget(trained) -> None:
    result = found(trained, budget="size: 1%", techniques=["channels"], trials=1)
    assert not result.is_within_budget
    assert result.best.budget_used > 1
    assert str(result).endswith("Budget: size: 1%. No trial keeps it: allow more, or search on with more trials.")


def test_datasets_are_taken(trained) -> None:
    batches = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(64).batch(32)
    result = found(trained, train=batches, validation=batches, budget="download: 50%", trials=1)
    assert result.rows[0].score is not None
    assert "sparsity" in result.rows[0].values


@pytest.mark.thorough
def test_hyperband_finds_what_keeps_the_budget(trained) -> None:
    groups = {"hidden": "hidden", "rest": ".*"}
    result = found(trained, search="hyperband", budget="download: 25%", epochs=3, groups=groups)
    assert result.is_within_budget
    assert result.best.score > 0.6


@pytest.mark.thorough
def test_a_constrained_search_is_near_the_given_models_score(trained) -> None:
    """The given network is much larger than the task needs, so a third of it loses little."""
    result = found(trained, search="bayesian", trials=10, epochs=4)
    assert result.is_within_budget
    assert result.best.score > result.original_score - 0.03


def test_what_cannot_be_is_refused(trained) -> None:
    with pytest.raises(DataError, match="compress: train must be a tuple"):
        compress(trained, X, (X, Y), budget="size: 30%")
    with pytest.raises(ConfigError, match="penalty must be above 0"):
        found(trained, penalty=-1.0)
