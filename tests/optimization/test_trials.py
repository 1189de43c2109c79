"""Candidates are made once, and found again by a run of the same model, data and settings."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tfopt.optimization import trials as trials_module
from tfopt.optimization.samples import LabelledSamples
from tfopt.optimization.targets import target_of
from tfopt.optimization.trials import Trials
from tfopt.recipe import ChannelPruning, FineTuning, Recipe

pytestmark = pytest.mark.usefixtures("conversion_in_this_process")

X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
Y = np.arange(40) % 3
FLOAT = Recipe(quantization="none")


@pytest.fixture(autouse=True)
def _brief_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials_module, "TIMED_CALLS", 5)
    monkeypatch.setattr(trials_module, "TIMED_SECONDS", 0.0)


def model(seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(16, "relu", name="hidden"), keras.layers.Dense(3, name="scores")]
    return keras.Sequential([keras.Input((4,), name="x"), *layers], name="small")


def trials(folder: Path, **changed: Any) -> Trials:
    samples = LabelledSamples(X, Y)
    given = {"model": model(), "target": target_of("tflite"), "train": samples, "validation": samples, **changed}
    return Trials(**given, folder=folder, max_drop=0.1)


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are exported."""
    made: list[str] = []
    made_by = Trials._made

    def counted(self: Trials, name: str, recipe: Recipe, key: str) -> Any:
        made.append(name)
        return made_by(self, name, recipe, key)

    monkeypatch.setattr(Trials, "_made", counted)
    return made


@pytest.mark.slow
def test_what_was_made_is_found_again(tmp_path: Path, exports: list[str]) -> None:
    first = trials(tmp_path).attempt("float32", FLOAT)
    found = trials(tmp_path).attempt("float32", FLOAT)
    assert exports == ["float32"]
    assert found == first


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        {"model": model(seed=1)},
        {"train": LabelledSamples(X + 1, Y)},
        {"validation": LabelledSamples(X, Y[::-1])},
        {"metric": "r2"},
        {"loss": "mae"},
    ],
    ids=["model", "train", "validation", "metric", "loss"],
)
def test_what_belongs_to_something_else_is_made_anew(
    tmp_path: Path, exports: list[str], changed: dict[str, Any]
) -> None:
    trials(tmp_path).attempt("float32", FLOAT)
    if changed.get("metric") == "r2":
        changed = {**changed, "validation": LabelledSamples(X, np.eye(3)[Y])}
    trials(tmp_path, **changed).attempt("float32", FLOAT)
    assert exports == ["float32", "float32"]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["file", "record", "own record"])
def test_what_was_damaged_is_made_anew(tmp_path: Path, exports: list[str], damage: str) -> None:
    first = trials(tmp_path).attempt("float32", FLOAT)
    name = {"file": "float32.tflite", "record": "float32.artifact.json", "own record": "float32.json"}[damage]
    (tmp_path / name).write_bytes(b"{")
    again = trials(tmp_path).attempt("float32", FLOAT)
    assert exports == ["float32", "float32"]
    assert again.artifact == first.artifact


@pytest.mark.slow
def test_a_trained_network_is_the_same_whether_made_or_found(tmp_path: Path) -> None:
    recipe = Recipe(
        channel_pruning=ChannelPruning(flops=0.6, fine_tuning=FineTuning(epochs=2, learning_rate=0.01, batch_size=8)),
        fine_tuning=FineTuning(epochs=1, batch_size=8, distillation=True),
    )
    made = trials(tmp_path / "a").prepared(recipe)
    found = trials(tmp_path / "a").prepared(recipe)
    elsewhere = trials(tmp_path / "b").prepared(recipe)
    for one, two, three in zip(made.get_weights(), found.get_weights(), elsewhere.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)
    other = trials(tmp_path / "c").prepared(recipe.model_copy(update={"seed": 1}))
    assert any(np.any(one != two) for one, two in zip(made.get_weights(), other.get_weights(), strict=True))


def test_a_value_is_computed_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def compute() -> list[float]:
        calls.append(1)
        return [0.5, 0.25]

    assert trials(tmp_path).kept.value("value", "a", compute=compute) == [0.5, 0.25]
    assert trials(tmp_path).kept.value("value", "a", compute=compute) == [0.5, 0.25]
    assert len(calls) == 1
    trials(tmp_path).kept.value("value", "b", compute=compute)
    trials(tmp_path, model=model(seed=1)).kept.value("value", "b", compute=compute)
    assert len(calls) == 3


@pytest.mark.slow
def test_figures_are_those_of_the_file(tmp_path: Path) -> None:
    one = trials(tmp_path)
    baseline = one.attempt("float32", FLOAT)
    quantized = one.attempt("int8", Recipe())
    assert baseline.figures is not None
    assert quantized.figures is not None
    assert quantized.artifact is not None
    assert baseline.figures.latency_share == 1.0
    assert quantized.figures.size == quantized.artifact.path.stat().st_size
    assert quantized.figures.flops == 2 * (4 * 16 + 16 * 3)
    assert 0 < quantized.figures.download < 3 * quantized.figures.size
    assert quantized.figures.latency is not None
    assert quantized.figures.latency > 0
    untimed = trials(tmp_path / "edge", target=target_of("edge_tpu")).attempt("float32", FLOAT)
    assert untimed.figures is not None
    assert (untimed.figures.latency, untimed.figures.latency_share) == (None, None)
