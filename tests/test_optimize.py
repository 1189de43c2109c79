"""Which candidates optimize tries, which one it chooses, and what it leaves in the folder."""

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tfopt
from tfopt.artifact import Artifact
from tfopt.errors import ConfigError, DataError, ExportError, ModelError
from tfopt.export import tflite as tflite_exporter
from tfopt.recipe import FineTuning, Recipe

pytestmark = pytest.mark.usefixtures("conversion_in_this_process")

X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
Y = np.arange(60) % 3
QUICK = Recipe(fine_tuning=FineTuning(epochs=1), calibration_samples=32)


@pytest.fixture(scope="module", autouse=True)
def _brief_benchmark() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        brief = functools.partial(tfopt.benchmark, threads=(1,), repeats=2, seconds=0.01)
        patch.setattr(sys.modules["tfopt.benchmark"], "benchmark", brief)
        yield


@keras.saving.register_keras_serializable("tests")
def doubled_relu(x: Any) -> Any:
    """What the converter has integer operators for, and tfopt no rule."""
    return keras.ops.relu(x) + keras.ops.relu(x)


def model(activation: Any = "relu") -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, activation), keras.layers.Dense(3, "softmax", name="scores")]
    return keras.Sequential([keras.Input((4,), name="x"), *layers], name="small")


def scoring(*scores: float) -> Callable[[Any, Any], float]:
    """A metric that gives the candidates these scores, in the order in which they are tried."""
    remaining = list(scores)
    return lambda targets, predictions: remaining.pop(0) if remaining else scores[-1]


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_post_training_is_enough_where_it_loses_little(tmp_path: Path) -> None:
    result = tfopt.optimize(
        model(), (X, Y), (X, Y), metric=scoring(0.90, 0.895), max_drop=0.01, out=tmp_path, recipe=QUICK
    )
    assert [candidate.name for candidate in result.candidates] == ["float32", "int8 post-training"]
    assert result.within_max_drop
    assert result.candidates[1].drop == pytest.approx(0.005)
    assert result.recipe == Recipe(quantization="int8", fine_tuning=None, calibration_samples=32)
    assert result.artifact.verification["full_integer"] is True
    assert result.artifact.verification["samples"] == 32
    assert names(tmp_path) == [
        "candidates/float32.artifact.json",
        "candidates/float32.tflite",
        "candidates/int8_post-training.artifact.json",
        "candidates/int8_post-training.tflite",
        "model.artifact.json",
        "model.tflite",
        "recipe.yaml",
        "report.html",
        "report.json",
    ]
    for file in tmp_path.rglob("*.tflite"):
        assert Artifact.load(file).sha256
    assert Artifact.load(tmp_path / "model.tflite") == result.artifact
    assert (tmp_path / "model.tflite").read_bytes() == (tmp_path / names(tmp_path)[3]).read_bytes()
    assert Recipe.load(tmp_path / "recipe.yaml") == result.recipe


@pytest.mark.slow
def test_training_follows_where_post_training_loses_too_much(tmp_path: Path) -> None:
    result = tfopt.optimize(
        model(), (X, Y), (X, Y), metric=scoring(0.90, 0.80, 0.895), max_drop=0.01, out=tmp_path, recipe=QUICK
    )
    assert [candidate.name for candidate in result.candidates][2:] == ["int8 quantization-aware"]
    assert result.within_max_drop
    assert result.recipe == QUICK
    aware = Artifact.load(tmp_path / "candidates" / "int8_quantization-aware.tflite")
    assert result.artifact.sha256 == aware.sha256
    assert aware.recipe == QUICK.to_dict()
    assert {entry.name for entry in result.report.entries} == {candidate.name for candidate in result.candidates}
    text = str(result)
    assert "int8 post-training: custom 0.8000. It loses +0.1000, more than the 0.01 allowed." in text.replace(
        result.report.metric, "custom"
    )
    assert f"Chosen: {tmp_path / 'model.tflite'}" in text


@pytest.mark.slow
def test_the_best_is_chosen_where_none_is_within(tmp_path: Path) -> None:
    result = tfopt.optimize(
        model(), (X, Y), (X, Y), metric=scoring(0.9, 0.8, 0.7), max_drop=0.01, out=tmp_path, recipe=QUICK
    )
    assert not result.within_max_drop
    assert result.recipe.fine_tuning is None
    assert result.artifact.sha256 == result.candidates[1].artifact.sha256


@pytest.mark.slow
def test_a_recipe_without_fine_tuning_never_trains(tmp_path: Path) -> None:
    result = tfopt.optimize(
        model(), (X, Y), (X, Y), metric=scoring(0.9, 0.1), max_drop=0.01, out=tmp_path, recipe=Recipe()
    )
    assert len(result.candidates) == 2
    assert not result.within_max_drop


def test_a_refused_candidate_is_told_and_passed_over(tmp_path: Path) -> None:
    # Quantization-aware, a function of the user's own stays in float: there is no file for it.
    result = tfopt.optimize(
        model(doubled_relu), (X, Y), (X, Y), metric=scoring(0.9, 0.5), max_drop=0.01, out=tmp_path, recipe=QUICK
    )
    refused = result.candidates[2]
    assert (refused.artifact, refused.score, refused.drop) == (None, None, None)
    assert refused.remark.startswith("The export was refused: The converted file was refused (int8):")
    assert "int8 quantization-aware: no file. The export was refused" in str(result)
    assert result.artifact.sha256 == result.candidates[1].artifact.sha256
    assert len(result.report.entries) == 2


@pytest.mark.slow
@pytest.mark.parametrize("refused", ["int8", "none"])
def test_without_any_file_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str) -> None:
    export = tflite_exporter.export_tflite

    def refusing(model: keras.Model, path: Path, quantization: str, **options: Any) -> Artifact:
        if quantization == refused:
            raise ExportError("The TFLite converter failed with code 1.")
        return export(model, path, quantization, **options)

    monkeypatch.setattr(tflite_exporter, "export_tflite", refusing)
    with pytest.raises(ExportError, match="The TFLite converter failed with code 1"):
        tfopt.optimize(model(), (X, Y), (X, Y), out=tmp_path, recipe=QUICK)
    assert not (tmp_path / "model.tflite").exists()


@pytest.mark.slow
def test_a_model_file_and_a_metric_by_default(tmp_path: Path) -> None:
    model().save(tmp_path / "model.keras")
    result = tfopt.optimize(
        str(tmp_path / "model.keras"), (X, Y), (X, Y), max_drop=0.5, out=tmp_path / "out", recipe=QUICK
    )
    assert result.report.metric == "top-1 accuracy"
    expected = np.mean(model().predict(X, verbose=0).argmax(-1) == Y)
    assert result.candidates[0].score == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_drop": 1}, ConfigError, r"max_drop must be a fraction in \[0, 1\)\. Received: 1\. Did you mean 0\.01"),
        ({"max_drop": -0.1}, ConfigError, r"Received: -0\.1"),
        ({"max_drop": float("nan")}, ConfigError, "Received: nan"),
        ({"target": "coreml"}, ConfigError, "target must be one of tflite. Received: 'coreml'"),
        ({"model": "absent.keras"}, ModelError, r"No model at absent\.keras"),
        ({"train": (X[:, :3], Y)}, DataError, r"training data for input 'x' must have shape \(n, 4\).*\(60, 3\)"),
        ({"train": (X[:0], Y[:0])}, DataError, "training data for input 'x' is empty"),
        ({"validation": (X * np.nan, Y)}, DataError, "validation data for input 'x' must be finite. Received: 240"),
    ],
)
def test_unusable_arguments_are_told_before_any_work(
    tmp_path: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    call = {"model": model(), "train": (X, Y), "validation": (X, Y)} | arguments
    with pytest.raises(error, match=message):
        tfopt.optimize(**call, out=tmp_path / "out")
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"Cannot write .*file.*Choose another place"):
        tfopt.optimize(model(), (X, Y), (X, Y), out=tmp_path / "file" / "out")
    assert names(tmp_path) == ["file"]


def test_another_quantization_in_the_recipe_is_not_ignored(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    data = np.ones((8, 4), np.float32), np.arange(8) % 3
    with pytest.raises(ConfigError, match="must be int8"):
        tfopt.optimize(model, data, data, recipe=Recipe(quantization="float16"), out=tmp_path)
