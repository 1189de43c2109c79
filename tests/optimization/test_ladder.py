"""What is tried, in which order, and when it ends: with files that cost and lose what the test says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tfopt.artifact import Artifact
from tfopt.budget import Figures, parse_budget
from tfopt.errors import ConfigError, ModelError
from tfopt.optimization import ladder
from tfopt.optimization.ladder import climb
from tfopt.optimization.result import Candidate
from tfopt.optimization.samples import LabelledSamples
from tfopt.optimization.targets import TARGETS, Target
from tfopt.recipe import ChannelPruning, FineTuning, Recipe

START = Recipe(seed=3)
PRUNING = ChannelPruning(flops=0.5)
TRAINING = FineTuning(epochs=1)
FILE = Artifact.model_construct(path=Path("made_up.tflite"))


def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(16, "relu", name=f"hidden_{number}") for number in range(4)]
    return keras.Sequential([keras.Input((4,), name="x"), *hidden, keras.layers.Dense(3, name="scores")])


@dataclass
class ScriptedTrials:
    """Trials whose drops are given by name, and whose latency is that of the operations that remain."""

    drops: Mapping[str, float | None]
    latency: Callable[[float], float] = lambda flops: 0.5 * flops
    target: Target = TARGETS["tflite"]
    max_drop: float = 0.01
    model: keras.Model = field(default_factory=model)
    train: LabelledSamples = field(
        default_factory=lambda: LabelledSamples(
            np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32), np.arange(32) % 3
        )
    )
    candidates: list[Candidate] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)
    latency_of: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.candidates.append(
            Candidate("float32", Recipe(quantization="none"), FILE, 0.9, 0.0, self.figures(1.0, 1.0), "")
        )

    @property
    def baseline(self) -> Candidate:
        return self.candidates[0]

    @property
    def names(self) -> list[str]:
        return [candidate.name for candidate in self.candidates[1:]]

    def figures(self, flops: float, latency: float) -> Figures:
        return Figures(
            size=round(1000 * latency), download=900, flops=round(1000 * flops), latency=latency, latency_share=latency
        )

    def attempt(self, name: str, recipe: Recipe) -> Candidate:
        drop = self.drops.get(name, 0.5)
        flops = recipe.channel_pruning.flops if recipe.channel_pruning else 1.0
        refused = drop is None
        candidate = Candidate(
            name,
            recipe,
            None if refused else FILE,
            None if refused else 0.9 - drop,
            drop,
            None if refused else self.figures(flops, self.latency_ms(recipe, flops)),
            "",
        )
        self.candidates.append(candidate)
        return candidate

    def float_model(self, recipe: Recipe) -> keras.Model:
        return self.model

    def trial_figures(self, smaller: keras.Model, recipe: Recipe) -> Figures:
        self.measured.append(smaller.asked_for)
        return self.figures(smaller.asked_for, self.latency_ms(recipe, smaller.asked_for))

    def latency_ms(self, recipe: Recipe, flops: float) -> float:
        whole = self.latency_of.get(recipe.quantization)
        return self.latency(flops) if whole is None else whole * flops

    def kept(self, name: str, *parts: object, compute: Callable[[], Any]) -> Any:
        return compute()


@pytest.fixture(autouse=True)
def fewest(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Channels are removed in name only; below `flops` they cannot be."""
    limit = {"flops": 0.1}

    def remove(whole: keras.Model, settings: ChannelPruning) -> Any:
        if settings.flops < limit["flops"]:
            raise ConfigError("prune_channels: the target cannot be reached")

        class Smaller:
            asked_for = settings.flops

        return Smaller()

    monkeypatch.setattr(ladder, "remove_channels", remove)
    return limit


def tried(trials: ScriptedTrials, budget: str | None = None, **options: Any) -> tuple[str, ...]:
    given = {"pruning": PRUNING, "training": TRAINING, **options}
    return climb(trials, START, budget=budget and parse_budget(budget), **given)  # type: ignore[arg-type]


def test_post_training_ends_it_where_it_is_good() -> None:
    trials = ScriptedTrials({"int8 post-training": 0.005})
    assert tried(trials) == ()
    assert trials.names == ["int8 post-training"]
    assert trials.candidates[1].recipe == START


def test_layers_in_float_come_before_training() -> None:
    trials = ScriptedTrials({"int8, 2 layers in float": 0.01})
    assert tried(trials) == ()
    assert trials.names == ["int8 post-training", "int8, 1 layers in float", "int8, 2 layers in float"]
    layers = trials.candidates[-1].recipe.layers
    assert set(layers.values()) == {"none"}
    assert set(layers) < {layer.name for layer in trials.model.layers}


def test_training_comes_last() -> None:
    trials = ScriptedTrials({"int8 quantization-aware": 0.0})
    assert tried(trials) == ()
    assert trials.names[-1] == "int8 quantization-aware"
    assert trials.candidates[-1].recipe == START.model_copy(update={"fine_tuning": TRAINING})


def test_without_training_there_is_none() -> None:
    trials = ScriptedTrials({})
    assert tried(trials, training=None, pruning=None) == (
        "quantization alone loses more than 0.01, whatever was tried.",
    )
    assert not any(candidate.recipe.fine_tuning for candidate in trials.candidates)


def test_a_refused_file_leads_to_the_next_step() -> None:
    trials = ScriptedTrials({"int8 post-training": None, "int8, 1 layers in float": 0.0})
    assert tried(trials) == ()
    assert trials.names == ["int8 post-training", "int8, 1 layers in float"]


def test_as_few_channels_as_the_budget_asks_for() -> None:
    # Quantized, it takes half the time: 40 % are left at 80 % of the operations, of which 5 % are to spare.
    trials = ScriptedTrials({"int8 post-training": 0.0, "75% of FLOPs, int8 post-training": 0.005})
    assert tried(trials, "latency: 40%") == ()
    assert trials.names == ["int8 post-training", "float16 post-training", "75% of FLOPs, int8 post-training"]
    assert trials.candidates[-1].recipe.channel_pruning == PRUNING.model_copy(update={"flops": 0.75})
    assert len(trials.measured) <= 5


def test_a_budget_that_quantization_keeps_needs_no_pruning() -> None:
    trials = ScriptedTrials({"int8 post-training": 0.0})
    assert tried(trials, "latency: 60%") == ()
    assert trials.names == ["int8 post-training"]
    assert trials.measured == []


def test_a_pruned_network_is_quantized_by_the_same_steps() -> None:
    trials = ScriptedTrials({"35% of FLOPs, int8 quantization-aware": 0.01})
    assert tried(trials, "latency: 20%") == ()
    assert trials.names[0] == "int8 post-training"  # beyond the budget: whatever it loses, no other is tried there
    assert trials.names[2:] == [
        "35% of FLOPs, int8 post-training",
        "35% of FLOPs, int8, 1 layers in float",
        "35% of FLOPs, int8, 2 layers in float",
        "35% of FLOPs, int8 quantization-aware",
    ]


def test_what_the_budget_costs_is_told_beside_a_milder_one() -> None:
    trials = ScriptedTrials({"int8 post-training": 0.0, "70% of FLOPs, int8 post-training": 0.01})
    (obstacle,) = tried(trials, "latency: 20%")
    assert "leaves 35% of the operations, and with so few the network lost +0.5000" in obstacle
    assert trials.names[-1] == "70% of FLOPs, int8 post-training"


def test_a_latency_that_fewer_channels_do_not_cut() -> None:
    trials = ScriptedTrials({"int8 post-training": 0.0}, latency=lambda flops: 0.5)
    assert tried(trials, "latency: 25%") == (
        "with the fewest channels the network still took 200% of the budget 'latency: 25%'.",
    )
    assert trials.names == ["int8 post-training", "float16 post-training"]


@pytest.mark.parametrize("accurate", [True, False])
def test_the_preset_that_takes_least_goes_on_with_fewer_channels(accurate: bool) -> None:
    # int8 is slower than float here, as it is for small depthwise networks on x86.
    trials = ScriptedTrials({"int8 post-training": 0.0, "float16 post-training": 0.0 if accurate else 0.5})
    trials.latency_of = {"int8": 1.5, "float16": 1.0}
    tried(trials, "latency: 50%")
    preset = "float16" if accurate else "int8"
    assert trials.names[2].endswith(f"of FLOPs, {preset} post-training")


def test_fewer_operations_than_can_be_had_are_passed_over(fewest: dict[str, float]) -> None:
    fewest["flops"] = 0.6
    trials = ScriptedTrials({"int8 post-training": 0.0, "60% of FLOPs, int8 post-training": 0.0})
    assert tried(trials, "latency: 32%") == ()
    assert min(trials.measured) >= 0.6


def test_a_model_without_channels_to_remove(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(whole: keras.Model, settings: ChannelPruning) -> Any:
        raise ModelError("prune_channels: no channel of the model 'm' may go.")

    monkeypatch.setattr(ladder, "remove_channels", refuse)
    trials = ScriptedTrials({"int8 post-training": 0.0})
    assert tried(trials, "latency: 30%") == (
        "fewer channels are not to be had. prune_channels: no channel of the model 'm' may go.",
    )


def test_a_budget_without_training_is_not_reached_by_pruning() -> None:
    trials = ScriptedTrials({"int8 post-training": 0.0})
    (obstacle,) = tried(trials, "latency: 30%", pruning=None, training=None)
    assert obstacle.startswith("without fewer channels the budget 'latency: 30%' is not kept")


def test_serving_has_channels_alone() -> None:
    trials = ScriptedTrials({"55% of FLOPs, float32": 0.0}, latency=lambda flops: flops, target=TARGETS["serving"])
    assert tried(trials, "latency: 60%") == ()
    assert trials.names == ["55% of FLOPs, float32"]


def test_a_trained_file_that_turns_out_slower_is_told() -> None:
    times = iter([0.5, *[0.3] * 9])
    trials = ScriptedTrials({"int8 post-training": 0.0})
    trials.latency = lambda flops: next(times) if len(trials.candidates) < 3 else 0.5
    (obstacle, *_) = tried(trials, "latency: 32%")
    assert "lost" in obstacle or "took" in obstacle
