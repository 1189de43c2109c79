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


@pytest.mark.slow
def test_post_training_is_enough_where_it_loses_little(tmp_path: Path) -> None:
    result = tfopt.optimize(model(), (X, Y), (X, Y), metric=scoring(0.90, 0.895), max_drop=0.01, out=tmp_path)
    assert [candidate.name for candidate in result.candidates] == ["float32", "int8 post-training"]
    assert result.is_reached
    assert result.candidates[1].drop == pytest.approx(0.005)
    assert result.recipe == Recipe(quantization="int8")
    assert result.artifact.verification["full_integer"] is True
    assert names(tmp_path) == [
        "candidates/float32.artifact.json",
        "candidates/float32.json",
        "candidates/float32.tflite",
        "candidates/int8_post-training.artifact.json",
        "candidates/int8_post-training.json",
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
    assert (tmp_path / "model.tflite").read_bytes() == (tmp_path / names(tmp_path)[5]).read_bytes()
    assert Recipe.load(tmp_path / "recipe.yaml") == result.recipe
    assert result.report.samples == 30  # every second one is held back
    assert result.held_back.samples == 30


@pytest.mark.slow
def test_training_follows_where_post_training_loses_too_much(tmp_path: Path) -> None:
    result = tfopt.optimize(
        model(), (X, Y), (X, Y), metric=scoring(0.90, 0.80, 0.81, 0.895), max_drop=0.01, out=tmp_path, epochs=2
    )
    assert [candidate.name for candidate in result.candidates][2:] == [
        "int8, 1 layers in float",
        "int8 quantization-aware",
    ]
    assert result.is_reached
    assert result.recipe.fine_tuning == FineTuning(epochs=1, learning_rate=1e-4, batch_size=64, distillation=True)
    aware = Artifact.load(tmp_path / "candidates" / "int8_quantization-aware.tflite")
    assert result.artifact.sha256 == aware.sha256
    assert aware.recipe == result.recipe.to_dict()
    mixed = Artifact.load(tmp_path / "candidates" / "int8_1_layers_in_float.tflite")
    assert mixed.verification["full_integer"] is False
    assert {entry.name for entry in result.report.entries} == {candidate.name for candidate in result.candidates}
    text = str(result)
    assert "int8 post-training: It loses +0.1000, more than the 0.01 allowed." in text
    assert f"Chosen: {tmp_path / 'model.tflite'}" in text
    assert set(result.explanation()) <= set(result.report.notes)


@pytest.mark.thorough
def test_the_best_is_chosen_where_none_is_within(tmp_path: Path) -> None:
    result = tfopt.optimize(
        model(), (X, Y), (X, Y), metric=scoring(0.9, 0.8, 0.75, 0.7), max_drop=0.01, out=tmp_path, epochs=1
    )
    assert not result.within_max_drop
    assert not result.is_reached
    assert result.artifact.sha256 == result.candidates[1].artifact.sha256
    assert "It is the closest; what was asked for was not reached." in str(result)
    assert "What prevents more: quantization alone loses more than 0.01, whatever was tried." in str(result)


@pytest.mark.slow
def test_without_epochs_nothing_is_trained(tmp_path: Path) -> None:
    result = tfopt.optimize(
        model(), (X, Y), (X, Y), metric=scoring(0.9, 0.1), max_drop=0.01, budget="size: 1%", out=tmp_path, epochs=0
    )
    assert not any(path.suffix == ".keras" for path in tmp_path.rglob("*"))
    assert not result.is_reached


@pytest.mark.thorough
def test_a_refused_candidate_is_told_and_passed_over(tmp_path: Path) -> None:
    # Quantization-aware, a function of the user's own stays in float: there is no file for it.
    result = tfopt.optimize(
        model(doubled_relu), (X, Y), (X, Y), metric=scoring(0.9, 0.5), max_drop=0.01, out=tmp_path, epochs=1
    )
    refused = result.candidates[-1]
    assert refused.name == "int8 quantization-aware"
    assert (refused.artifact, refused.score, refused.drop, refused.figures) == (None, None, None, None)
    assert refused.remark.startswith("The export was refused: The converted file was refused (int8):")
    assert "int8 quantization-aware: The export was refused" in str(result)
    assert "no file" in str(result)
    assert refused.name not in {entry.name for entry in result.report.entries}


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
        tfopt.optimize(model(), (X, Y), (X, Y), out=tmp_path, epochs=1)
    assert not (tmp_path / "model.tflite").exists()


@pytest.mark.slow
def test_a_model_file_and_a_metric_by_default(tmp_path: Path) -> None:
    model().save(tmp_path / "model.keras")
    result = tfopt.optimize(
        str(tmp_path / "model.keras"), (X, Y), (X, Y), test=(X[:40], Y[:40]), max_drop=0.5, out=tmp_path / "out"
    )
    assert result.report.metric == "top-1 accuracy"
    expected = np.mean(model().predict(X, verbose=0).argmax(-1) == Y)
    assert result.candidates[0].score == pytest.approx(expected)
    assert result.held_back.samples == 40


def wide() -> keras.Model:
    """With channels to remove, and something learned to lose."""
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(64, "relu", name=f"hidden_{number}") for number in range(2)]
    layers = [*hidden, keras.layers.Dense(3, name="scores")]
    learned = keras.Sequential([keras.Input((4,), name="x"), *layers], name="wide")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    learned.compile(keras.optimizers.Adam(0.02), loss)
    learned.fit(X, LEARNABLE, epochs=30, verbose=0)
    return learned


LEARNABLE = (X @ np.random.default_rng(1).normal(size=(4, 3))).argmax(-1)


@pytest.mark.thorough
def test_fewer_channels_where_the_budget_asks_for_them(tmp_path: Path) -> None:
    result = tfopt.optimize(
        wide(), (X, LEARNABLE), (X, LEARNABLE), budget="flops: 50%", max_drop=0.1, out=tmp_path, epochs=20, batch_size=8
    )
    assert result.is_reached, str(result)
    assert result.chosen == "45% of FLOPs, int8 post-training"
    assert result.recipe.channel_pruning.flops == 0.45
    assert result.candidates[-1].figures.flops <= 0.45 * result.candidates[0].figures.flops
    assert not list((tmp_path / "candidates").glob("trial*"))

    exported: list[Path] = []
    again = tfopt.optimize(
        wide(), (X, LEARNABLE), (X, LEARNABLE), recipe=result.recipe, max_drop=0.1, out=tmp_path / "b"
    )
    assert again.artifact.sha256 == result.artifact.sha256
    assert [candidate.name for candidate in again.candidates] == ["float32", "recipe"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tflite_exporter, "export_tflite", lambda *args, **options: exported.append(args[1]))
        resumed = tfopt.optimize(
            wide(),
            (X, LEARNABLE),
            (X, LEARNABLE),
            budget="flops: 50%",
            max_drop=0.1,
            out=tmp_path,
            epochs=20,
            batch_size=8,
        )
    assert exported == []
    assert resumed.artifact == result.artifact
    assert [candidate.score for candidate in resumed.candidates] == [candidate.score for candidate in result.candidates]


@pytest.mark.thorough
def test_a_budget_out_of_reach_gives_the_closest_and_why(tmp_path: Path) -> None:
    result = tfopt.optimize(wide(), (X, LEARNABLE), (X, LEARNABLE), budget="size: 10 B", out=tmp_path, max_drop=0.5)
    assert not result.is_reached
    assert result.within_max_drop
    assert not result.within_budget
    assert "of the budget 'size: 10 B'" in str(result)
    assert (tmp_path / "model.tflite").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "file", "chosen"),
    [
        ("onnx", "model.onnx", "int8 post-training"),
        ("edge_tpu", "model.tflite", "int8 post-training"),
        ("serving", "serving/wide/1/saved_model.pb", "55% of FLOPs, float32"),
    ],
)
def test_each_target_has_its_file(tmp_path: Path, target: str, file: str, chosen: str) -> None:
    budget = "flops: 55%" if target == "serving" else None
    result = tfopt.optimize(
        wide(), (X, LEARNABLE), (X, LEARNABLE), target=target, budget=budget, max_drop=0.2, out=tmp_path, epochs=10
    )
    assert result.chosen == chosen
    assert (tmp_path / file).exists()
    assert result.artifact.path in {tmp_path / file, (tmp_path / file).parent}
    timed = result.candidates[-1].figures.latency is not None
    assert timed == (target != "edge_tpu")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_drop": 1}, ConfigError, r"max_drop must be a fraction in \[0, 1\)\. Received: 1\. Did you mean 0\.01"),
        ({"max_drop": -0.1}, ConfigError, r"Received: -0\.1"),
        ({"max_drop": float("nan")}, ConfigError, "Received: nan"),
        ({"target": "coreml"}, ConfigError, "one of tflite, edge_tpu, onnx, serving. Received: 'coreml'"),
        ({"target": "serving"}, ConfigError, "serving has no int8 of its own: give a budget"),
        ({"target": "edge_tpu", "budget": "latency: 40%"}, ConfigError, "not measured without its device"),
        ({"budget": "40%"}, ConfigError, "budget must name what may remain"),
        ({"budget": "cost: 1 $"}, ConfigError, "a cost needs price_per_hour="),
        ({"epochs": -1}, ConfigError, "epochs must be a whole number of at least 0. Received: -1"),
        ({"batch_size": 0}, ConfigError, "batch_size must be a whole number of at least 1. Received: 0"),
        ({"learning_rate": 0.0}, ConfigError, "learning_rate must be above 0. Received: 0.0"),
        ({"seed": 0.5}, ConfigError, "seed must be a whole number of at least 0. Received: 0.5"),
        ({"model": "absent.keras"}, ModelError, r"No model at absent\.keras"),
        ({"train": (X[:, :3], Y)}, DataError, r"training data for input 'x' must have shape \(n, 4\).*\(60, 3\)"),
        ({"train": (X[:0], Y[:0])}, DataError, "training data for input 'x' is empty"),
        ({"validation": (X * np.nan, Y)}, DataError, "validation data for input 'x' must be finite. Received: 240"),
        ({"validation": (X, Y[:9])}, DataError, "one target for each of its 60 samples. Received: 9"),
        ({"test": X}, DataError, r"test data must be a tuple \(x, y\)\. Received: ndarray"),
        ({"recipe": Recipe(quantization="dynamic")}, ConfigError, "must be one of int8, float16. Received: 'dynamic'"),
        (
            {"recipe": Recipe(layers={"scores": "none"}), "target": "onnx"},
            ConfigError,
            "onnx makes no use of the recipe's layers",
        ),
        (
            {"recipe": Recipe(fine_tuning=FineTuning()), "target": "onnx"},
            ConfigError,
            "onnx makes no use of the recipe's fine_tuning",
        ),
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
