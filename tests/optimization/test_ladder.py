"""What is tried, in which order, and when it ends: with files that cost and lose what the test says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from tfopt.artifact import Artifact
from tfopt.budget import Figures, parse_budget
from tfopt.errors import ConfigError, ModelError
from tfopt.optimization import ladder
from tfopt.optimization.ladder import climb
from tfopt.optimization.reductions import reductions_for
from tfopt.optimization.result import Candidate
from tfopt.optimization.samples import LabelledSamples
from tfopt.optimization.targets import TARGETS, Target
from tfopt.recipe import FineTuning, Recipe

START = Recipe(seed=3)
AFTER = FineTuning(epochs=4, learning_rate=0.01)
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

    def figures(self, flops: float, latency: float, download: float = 1.0) -> Figures:
        return Figures(
            size=round(1000 * latency),
            download=round(900 * download),
            flops=round(1000 * flops),
            latency=latency,
            latency_share=latency,
        )

    def costs(self, recipe: Recipe) -> Figures:
        flops, download = remaining(recipe)
        return self.figures(flops, self.latency_ms(recipe, flops), download)

    def attempt(self, name: str, recipe: Recipe) -> Candidate:
        drop = self.drops.get(name, 0.5)
        refused = drop is None
        candidate = Candidate(
            name,
            recipe,
            None if refused else FILE,
            None if refused else 0.9 - drop,
            drop,
            None if refused else self.costs(recipe),
            "",
        )
        self.candidates.append(candidate)
        return candidate

    def float_model(self, recipe: Recipe) -> keras.Model:
        return self.model

    def trial_figures(self, smaller: keras.Model, recipe: Recipe) -> Figures:
        self.measured.append(remaining(recipe)[0])
        return self.costs(recipe)

    def latency_ms(self, recipe: Recipe, flops: float) -> float:
        whole = self.latency_of.get(recipe.quantization)
        return self.latency(flops) if whole is None else whole * flops

    @property
    def kept(self) -> Any:
        return SimpleNamespace(value=lambda name, *parts, compute: compute())


def remaining(recipe: Recipe) -> tuple[float, float]:
    """Of the operations and of the download."""
    flops = [part.flops for part in (recipe.channel_pruning, recipe.factorization) if part]
    download = 1 - recipe.weight_pruning.sparsity if recipe.weight_pruning else 1.0
    return min(flops, default=1.0), 0.5 * download


@pytest.fixture(autouse=True)
def fewest(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The network is made smaller in name only; fewer operations than these cannot be had, by low rank none."""
    limits = {"channels": 0.1, "low rank": 1.0}

    def make_smaller(whole: keras.Model, recipe: Recipe) -> keras.Model:
        for name, part in (("channels", recipe.channel_pruning), ("low rank", recipe.factorization)):
            if part and part.flops < limits[name]:
                raise ConfigError("the target cannot be reached")
        return whole

    monkeypatch.setattr(ladder, "untrained", make_smaller)
    return limits


class Ranking:
    """The layers by what their rounding costs: here in the order of the network."""

    def __init__(self, whole: keras.Model, samples: np.ndarray) -> None:
        self.names = [layer.name for layer in whole.layers]
        self.rows = [SimpleNamespace(kind="Dense") for _ in self.names]

    def suggest(self, *, count: int) -> list[str]:
        return self.names[:count]


@pytest.fixture(autouse=True)
def _ranking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder, "sensitivity", Ranking)


NO_LOW_RANK = "low rank cannot be had: the network has nothing that would go."


def tried(trials: ScriptedTrials, budget: str | None = None, **options: Any) -> tuple[str, ...]:
    limit = None if budget is None else parse_budget(budget)
    reductions = reductions_for(limit, AFTER) if limit else ()
    given = {"reductions": reductions, "training": TRAINING, **options}
    return climb(trials, START, budget=limit, **given)  # type: ignore[arg-type]


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
    assert tried(trials, training=None, reductions=()) == (
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
    pruning = trials.candidates[-1].recipe.channel_pruning
    assert pruning
    assert (pruning.flops, pruning.fine_tuning) == (0.75, AFTER)
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
    obstacle, low_rank = tried(trials, "latency: 20%")
    assert "leaves 35% of FLOPs, and with so little the network lost +0.5000" in obstacle
    assert low_rank == NO_LOW_RANK
    assert trials.names[-1] == "70% of FLOPs, int8 post-training"


def test_a_latency_that_fewer_channels_do_not_cut() -> None:
    trials = ScriptedTrials({"int8 post-training": 0.0}, latency=lambda flops: 0.5)
    assert tried(trials, "latency: 25%") == (
        "fewer channels: as far as they go, 200% of the budget 'latency: 25%' was still taken.",
        NO_LOW_RANK,
    )
    assert trials.names == ["int8 post-training", "float16 post-training"]


@pytest.mark.parametrize("drop", [0.0, 0.3])
def test_where_the_budget_is_out_of_reach_what_comes_closest_is_trained(drop: float) -> None:
    drops = {"int8 post-training": 0.0, "25% of FLOPs, int8 post-training": drop}
    trials = ScriptedTrials(drops, latency=lambda flops: 0.3 + 0.2 * max(flops, 0.3))
    obstacle, low_rank = tried(trials, "latency: 25%")
    # 10 % of the operations would take as long.
    assert obstacle == "fewer channels: as far as they go, 144% of the budget 'latency: 25%' was still taken."
    assert low_rank == NO_LOW_RANK
    smaller = [name for name in trials.names if "FLOPs" in name and "post-training" in name]
    milder = ["60% of FLOPs, int8 post-training"] if drop else []
    assert smaller == ["25% of FLOPs, int8 post-training", *milder]


@pytest.mark.parametrize("accurate", [True, False])
def test_the_preset_that_takes_least_goes_on_with_fewer_channels(accurate: bool) -> None:
    # int8 is slower than float here, as it is for small depthwise networks on x86.
    trials = ScriptedTrials({"int8 post-training": 0.0, "float16 post-training": 0.0 if accurate else 0.5})
    trials.latency_of = {"int8": 1.5, "float16": 1.0}
    tried(trials, "latency: 50%")
    preset = "float16" if accurate else "int8"
    assert trials.names[2].endswith(f"of FLOPs, {preset} post-training")


def test_fewer_operations_than_can_be_had_are_passed_over(fewest: dict[str, float]) -> None:
    fewest["channels"] = 0.6
    trials = ScriptedTrials({"int8 post-training": 0.0, "60% of FLOPs, int8 post-training": 0.0})
    assert tried(trials, "latency: 32%") == ()
    assert min(trials.measured) >= 0.6


def test_a_model_without_channels_to_remove(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(whole: keras.Model, recipe: Recipe) -> Any:
        raise ModelError("prune_channels: no channel of the model 'm' may go.")

    monkeypatch.setattr(ladder, "untrained", refuse)
    trials = ScriptedTrials({"int8 post-training": 0.0})
    assert tried(trials, "latency: 30%") == (
        "fewer channels cannot be had. prune_channels: no channel of the model 'm' may go.",
        "low rank cannot be had. prune_channels: no channel of the model 'm' may go.",
    )


def test_a_budget_without_training_is_not_reached_by_pruning() -> None:
    trials = ScriptedTrials({"int8 post-training": 0.0})
    (obstacle,) = tried(trials, "latency: 30%", reductions=(), training=None)
    assert obstacle.startswith("the budget 'latency: 30%' takes a smaller network")


def test_low_rank_comes_where_fewer_channels_lose_too_much(fewest: dict[str, float]) -> None:
    fewest["low rank"] = 0.3
    trials = ScriptedTrials({"int8 post-training": 0.0, "75% of FLOPs by low rank, int8 post-training": 0.0})
    assert tried(trials, "latency: 40%") == ()
    assert trials.names[2:] == [
        "75% of FLOPs, int8 post-training",
        "75% of FLOPs, int8, 1 layers in float",
        "75% of FLOPs, int8, 2 layers in float",
        "75% of FLOPs, int8 quantization-aware",
        "75% of FLOPs by low rank, int8 post-training",
    ]


def test_zeros_come_first_for_a_download() -> None:
    # Half the download is left with all weights: 20 % of it with 40 % of them, less what is to spare.
    trials = ScriptedTrials({"int8 post-training": 0.0, "35% of the weights, int8 post-training": 0.0})
    assert tried(trials, "download: 20%") == ()
    assert trials.names[-1] == "35% of the weights, int8 post-training"
    pruning = trials.candidates[-1].recipe.weight_pruning
    assert pruning
    assert (pruning.sparsity, pruning.fine_tuning) == (0.65, AFTER)


def test_of_what_loses_too_much_the_best_has_a_milder_one(fewest: dict[str, float]) -> None:
    fewest["low rank"] = 0.3
    names = {"35% of FLOPs by low rank, int8 quantization-aware": 0.02, "35% of FLOPs, int8 quantization-aware": 0.03}
    trials = ScriptedTrials({"int8 post-training": 0.0, **names})
    assert len(tried(trials, "latency: 20%")) == 2
    assert trials.names[-1].startswith("70% of FLOPs by low rank")


def test_serving_has_channels_alone() -> None:
    trials = ScriptedTrials({"55% of FLOPs, float32": 0.0}, latency=lambda flops: flops, target=TARGETS["serving"])
    assert tried(trials, "latency: 60%") == ()
    assert trials.names == ["55% of FLOPs, float32"]


def test_a_trained_file_that_turns_out_slower_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = ScriptedTrials({"int8 post-training": 0.0})
    monkeypatch.setattr(trials, "trial_figures", lambda smaller, recipe: trials.figures(0.5, 0.3))
    trials.latency = lambda flops: 0.5
    obstacle, *_ = tried(trials, "latency: 32%")
    assert obstacle == "fewer channels: the trained file took 156% of the budget 'latency: 32%'."
