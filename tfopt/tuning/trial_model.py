"""A trial of a search: the user's model, built from a seed of its own, and a fit that knows when to stop."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner

from tfopt.artifact import write_whole
from tfopt.callbacks import EarlyStopping
from tfopt.tuning.median_stopping import MedianStopping
from tfopt.tuning.tracking import Track

__all__ = ["TrialModel", "searched_values"]

FEWEST_OTHERS = 3


def searched_values(hyperparameters: Any) -> dict[str, Any]:
    """The values of a trial, without those that hyperband keeps its rounds in."""
    return {name: value for name, value in hyperparameters.values.items() if not name.startswith("tuner/")}


class TrialModel(keras_tuner.HyperModel):
    """What keras-tuner builds and fits.

    What each fit reached by epoch is kept in the folder "epochs", one file for each trial, so that a search that is
    resumed, and every process of one that is shared, knows the median of the trials before.

    Args:
        model: from hyperparameters to a compiled model: a function, or a `keras_tuner.HyperModel`, whose `fit` counts.
        objective: the logged value, and its direction.
        patience: epochs without improvement before a fit stops.
        compare: whether a fit that is behind the others is given up.
        folder: where the files are.
        seed: of the weights, with the hyperparameters.
        track: records a trial that is done.
    """

    def __init__(
        self,
        model: Callable[[Any], keras.Model] | keras_tuner.HyperModel,
        objective: keras_tuner.Objective,
        *,
        patience: int,
        compare: bool,
        folder: Path,
        seed: int,
        track: Track | None = None,
    ) -> None:
        super().__init__()
        # Other names than HyperModel's own, which keeps its build in _build.
        is_hyper_model = isinstance(model, keras_tuner.HyperModel)
        hyper_model: Any = model if is_hyper_model else super()
        self._build_model: Callable[..., Any] = hyper_model.build if is_hyper_model else model
        self._fit_model: Callable[..., Any] = hyper_model.fit
        self._objective, self._patience, self._seed = objective, patience, seed
        self._compare, self._track = compare, track
        self._folder = folder / "epochs"

    @staticmethod
    def key(hyperparameters: Any) -> str:
        """The values of a trial as text, those of hyperband's rounds included."""
        return json.dumps(hyperparameters.values, sort_keys=True, default=str)

    def records(self) -> dict[str, dict[str, Any]]:
        """What the fits so far reached by epoch, those of other processes too, by the key of their trial."""
        found = (json.loads(path.read_text()) for path in sorted(self._folder.glob("*.json")))
        return {record.pop("key"): record for record in found}

    def build(self, hp: Any) -> keras.Model:
        """The user's model; the same values give the same weights."""
        keras.utils.set_random_seed(zlib.crc32(f"{self._seed} {self.key(hp)}".encode()))
        model = self._build_model(hp)
        if model.built and model.optimizer is not None:
            # What is loaded of a trial has the variables that Keras makes at the first step.
            model.optimizer.build(model.trainable_variables)
        return model

    def fit(
        self, hp: Any, model: keras.Model, *args: Any, callbacks: Sequence[keras.callbacks.Callback] = (), **kwargs: Any
    ) -> Any:
        """Fits until the value no longer improves or falls behind."""
        others = [record["values"] for record in self.records().values()] if self._compare else []
        name, direction = self._objective.name, self._objective.direction
        median = MedianStopping(name, direction, others, fewest=FEWEST_OTHERS)
        stopping = EarlyStopping({name: direction}, patience=self._patience)
        history = self._fit_model(hp, model, *args, callbacks=[*callbacks, stopping, median], **kwargs)
        key = self.key(hp)
        name = hashlib.sha256(key.encode()).hexdigest()[:16]
        with write_whole(self._folder / f"{name}.json") as path:
            path.write_text(json.dumps({"key": key, "values": median.values, "gave_up": median.gave_up}, indent=1))
        if self._track is not None and median.values:
            best = max(median.values) if direction == "max" else min(median.values)
            self._track(name, searched_values(hp), getattr(history, "history", {}), best)
        return history
