"""Trials chosen within a limit, on a function in place of a training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
import pytest
from keras_tuner.engine.trial import TrialStatus

from tfopt.errors import ConfigError
from tfopt.tuning.constrained_oracle import ConstrainedBayesianOracle, Constraint

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

GROUPS = ("a", "b", "c")
OBJECTIVE = keras_tuner.Objective("val_objective", "max")


def space() -> keras_tuner.HyperParameters:
    hp = keras_tuner.HyperParameters()
    for group in GROUPS:
        hp.Float(f"channels/{group}", 0.125, 1.0, step=0.125)
        hp.Choice(f"quantization/{group}", ["int8", "none"])
    hp.Float("learning_rate", 1e-5, 1e-2, sampling="log")
    return hp


def figures(values: dict[str, Any]) -> tuple[float, float]:
    """A score that needs channels where they count, and a good learning rate; what is used is that of the bits."""
    channels = np.array([values[f"channels/{group}"] for group in GROUPS])
    bits = np.array([8 if values[f"quantization/{group}"] == "int8" else 32 for group in GROUPS])
    rate = 0.1 * (np.log10(values["learning_rate"]) + 3) ** 2
    return float((channels**0.5) @ [0.6, 0.3, 0.1] - rate), float((channels * bits) @ [0.02, 0.1, 0.2])


def oracle(name: str, *, seed: int, trials: int, folder: Path) -> keras_tuner.Oracle:
    if name == "random":
        made = keras_tuner.oracles.RandomSearchOracle(OBJECTIVE, max_trials=trials, seed=seed, hyperparameters=space())
    else:
        made = ConstrainedBayesianOracle(
            OBJECTIVE,
            constraint=Constraint("val_score", "min" if name == "least" else "max", used="used"),
            initial_trials=5,
            max_trials=trials,
            seed=seed,
            max_consecutive_failed_trials=100,
        )
        made.update_space(space())
    # A tuner says where an oracle keeps its trials; without one nothing is kept.
    keras_tuner.Tuner(made, lambda hp: None, directory=str(folder), project_name=f"{name}-{seed}")
    made.verbose = 0
    return made


def run(made: keras_tuner.Oracle, measure: Callable[[dict[str, Any]], tuple[float, float]] = figures) -> list[Any]:
    """The values, score and use of every trial that it gives."""
    rows = []
    while (trial := made.create_trial("tuner")).status == TrialStatus.RUNNING:
        score, used = measure(trial.hyperparameters.values)
        excess = 0.0 if used <= 1 else 1 - 1 / used
        made.update_trial(trial.trial_id, {"val_objective": score - excess, "val_score": score, "used": used})
        trial.status = TrialStatus.COMPLETED
        made.end_trial(trial)
        rows.append((dict(trial.hyperparameters.values), score, used))
    return rows


def best_within(rows: list[Any]) -> float:
    return max((score for _, score, used in rows if used <= 1), default=-1.0)


@pytest.mark.slow
def test_it_finds_more_within_the_limit_than_chance(tmp_path: Path) -> None:
    found = {
        name: [best_within(run(oracle(name, seed=seed, trials=18, folder=tmp_path))) for seed in range(1, 5)]
        for name in ("bayesian", "random")
    }
    assert np.median(found["bayesian"]) > np.median(found["random"]) + 0.05
    assert min(found["bayesian"]) >= max(found["random"]) - 0.05


def test_a_score_may_be_one_that_is_to_be_small(tmp_path: Path) -> None:
    def loss(values: dict[str, Any]) -> tuple[float, float]:
        score, used = figures(values)
        return -score, used

    losses = run(oracle("least", seed=1, trials=9, folder=tmp_path), loss)
    scores = run(oracle("bayesian", seed=1, trials=9, folder=tmp_path))
    assert [values for values, *_ in losses] == [values for values, *_ in scores]


def test_the_same_seed_chooses_the_same_also_when_interrupted(tmp_path: Path) -> None:
    whole = run(oracle("bayesian", seed=3, trials=10, folder=tmp_path / "whole"))
    part = run(oracle("bayesian", seed=3, trials=7, folder=tmp_path / "part"))
    again = oracle("bayesian", seed=3, trials=10, folder=tmp_path / "part")
    again.reload()
    # keras-tuner runs the trial again that ended last.
    assert part[:-1] + run(again) == whole
    assert whole != run(oracle("bayesian", seed=4, trials=10, folder=tmp_path / "other"))


def test_two_processes_do_not_get_the_same(tmp_path: Path) -> None:
    made = oracle("bayesian", seed=1, trials=9, folder=tmp_path)
    made.max_trials = 7
    run(made)
    made.max_trials = 9
    both = [made.create_trial(tuner).hyperparameters.values for tuner in ("one", "two")]
    assert both[0] != both[1]


def test_a_score_that_is_infinite_is_the_worst(tmp_path: Path) -> None:
    def diverging(values: dict[str, Any]) -> tuple[float, float]:
        score, used = figures(values)
        return (-np.inf, used) if values["learning_rate"] > 1e-3 else (score, used)

    rows = run(oracle("bayesian", seed=1, trials=12, folder=tmp_path), diverging)
    assert len(rows) == 12
    assert any(score == -np.inf for _, score, _ in rows[:5])
    assert best_within(rows[5:]) > best_within(rows[:5])


def test_values_that_are_not_logged_are_missed(tmp_path: Path) -> None:
    made = oracle("bayesian", seed=1, trials=9, folder=tmp_path)
    for _ in range(5):
        trial = made.create_trial("tuner")
        made.update_trial(trial.trial_id, {"val_objective": 0.0})
        trial.status = TrialStatus.COMPLETED
        made.end_trial(trial)
    with pytest.raises(ConfigError, match=r"needs the value 'val_score' in the logs .* Received: val_objective"):
        made.create_trial("tuner")


def test_it_ends_where_the_space_does(tmp_path: Path) -> None:
    made = oracle("bayesian", seed=1, trials=9, folder=tmp_path)
    made.hyperparameters = keras_tuner.HyperParameters()
    made.hyperparameters.Choice("size", [1, 2, 3])
    rows = run(made, lambda values: (values["size"], values["size"] / 2))
    assert sorted(values["size"] for values, *_ in rows) == [1, 2, 3]


def test_values_under_a_condition_are_chosen_where_it_holds(tmp_path: Path) -> None:
    made = oracle("bayesian", seed=1, trials=10, folder=tmp_path)
    hp = made.hyperparameters = keras_tuner.HyperParameters()
    hp.Boolean("whole")
    with hp.conditional_scope("whole", [False]):
        hp.Float("part", 0.0, 1.0)
    rows = run(made, lambda values: (values.get("part", 0.5), 0.5 + values.get("part", 0.2)))
    assert {tuple(sorted(values)) for values, *_ in rows} <= {("whole",), ("part", "whole")}
    assert all(("part" in values) != values["whole"] for values, *_ in rows)
    assert best_within(rows) == pytest.approx(0.5, abs=0.05)
