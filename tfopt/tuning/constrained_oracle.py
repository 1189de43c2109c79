"""Bayesian search for what scores best within a limit, as an oracle of keras-tuner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus

from tfopt.errors import ConfigError
from tfopt.tuning.constrained_improvement import constrained_improvement
from tfopt.tuning.median_stopping import Direction

__all__ = ["ConstrainedBayesianOracle", "Constraint"]

CANDIDATES = 1000
"""Anywhere in the space; as many more are near the best trial."""


@dataclass(frozen=True)
class Constraint:
    """The two logged values that an objective is made of, which is a score with a penalty for what exceeds a limit.

    Args:
        score: the name of the score.
        direction: whether it is to be small or large.
        used: the name of what a model takes of the limit, at least 0; at most 1 where it keeps it.

    Example:
        >>> Constraint("val_accuracy", "max", used="budget_used")
        Constraint(score='val_accuracy', direction='max', used='budget_used')
    """

    score: str
    direction: Direction
    used: str


class ConstrainedBayesianOracle(keras_tuner.Oracle):
    """Chooses trials by expected improvement within a limit (`constrained_improvement`).

    keras-tuner's own Bayesian search knows one objective, in which a penalty for what exceeds the limit hides how good
    a trial is and how much it takes. Here both are learnt by themselves.

    Args:
        objective: by which trials are ranked, the score with a penalty.
        constraint: what it is made of.
        initial_trials: so many are drawn at random before the first is chosen.
        max_trials: at most.
        seed: not 0, which keras-tuner takes for none.
        max_consecutive_failed_trials: the search ends with an error after so many.
    """

    def __init__(
        self,
        objective: keras_tuner.Objective,
        *,
        constraint: Constraint,
        initial_trials: int,
        max_trials: int,
        seed: int,
        max_consecutive_failed_trials: int,
    ) -> None:
        super().__init__(objective, max_trials, seed=seed, max_consecutive_failed_trials=max_consecutive_failed_trials)
        self._constraint, self._initial_trials = constraint, initial_trials

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The values of the next trial."""
        generator = np.random.default_rng([self.seed, len(self.trials)])
        # In their order, which files do not keep.
        done = [trial for _, trial in sorted(self.trials.items()) if trial.status == TrialStatus.COMPLETED]
        dimensions = len(self.hyperparameters.space)
        candidates = generator.random((CANDIDATES, dimensions))
        if len(done) >= self._initial_trials:
            candidates = self._ordered(candidates, done, generator)
        tried = [trial.hyperparameters.values for trial in self.trials.values()]
        for values in map(self._values, candidates):
            if values not in tried:
                return {"status": TrialStatus.RUNNING, "values": values}
        return {"status": TrialStatus.STOPPED, "values": None}

    def _ordered(self, candidates: np.ndarray, done: list[Trial], generator: np.random.Generator) -> np.ndarray:
        """The candidates, and others near the best trial, with those first that promise most."""
        places = np.array([self._place(trial) for trial in done])
        scores, used = self._logged(self._constraint.score, done), self._logged(self._constraint.used, done)
        if self._constraint.direction == "min":
            scores = -scores
        finite = np.isfinite(scores)  # a loss may not be
        scores = np.where(finite, scores, scores[finite].min() if finite.any() else 0.0)
        running = [self._place(trial) for trial in self.ongoing_trials.values()]
        within = used <= 1
        best = places[np.where(within, scores, -np.inf).argmax() if within.any() else used.argmin()]
        changed = generator.random(candidates.shape) < 2 / len(best)
        candidates = np.concatenate([candidates, np.where(changed, generator.random(candidates.shape), best)])
        candidates = np.array([self._reachable(place) for place in candidates])
        promises = constrained_improvement(
            places, scores, used, np.array(running).reshape(-1, len(best)), candidates, seed=self.seed
        )
        return candidates[np.argsort(-promises)]

    def _logged(self, name: str, trials: list[Trial]) -> np.ndarray:
        for trial in trials:
            if not trial.metrics.exists(name):
                raise ConfigError(
                    f"tune: constraint needs the value {name!r} in the logs of each trial. Received: "
                    f"{', '.join(trial.metrics.metrics)}. Log it at the end of each epoch, by a callback."
                )
        return np.array([trial.metrics.get_last_value(name) for trial in trials])

    def _place(self, trial: Trial) -> list[float]:
        """The values of a trial, from 0 to 1; that of the default where a condition makes one unused."""
        found = trial.hyperparameters
        return [
            hp.value_to_prob(found.values[hp.name] if found.is_active(hp) and hp.name in found.values else hp.default)
            for hp in self.hyperparameters.space
        ]

    def _reachable(self, place: np.ndarray) -> list[float]:
        """Where the values are that a place stands for."""
        pairs = zip(self.hyperparameters.space, place, strict=True)
        return [hp.value_to_prob(hp.prob_to_value(probability)) for hp, probability in pairs]

    def _values(self, place: np.ndarray) -> dict[str, Any]:
        found = keras_tuner.HyperParameters()
        for hp, probability in zip(self.hyperparameters.space, place, strict=True):
            found.merge([hp])
            if found.is_active(hp):
                found.values[hp.name] = hp.prob_to_value(float(probability))
        return found.values
