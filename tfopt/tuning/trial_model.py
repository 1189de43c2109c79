"""A trial of a search: the user's model, built from a seed of its own, and a fit that knows when to stop."""

from __future__ import annotations

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

__all__ = ["TrialModel"]

FEWEST_OTHERS = 3


class TrialModel(keras_tuner.HyperModel):
    """What keras-tuner builds and fits.

    What each fit reached by epoch is kept in `epochs.json`, so that a search that is resumed knows the median of the
    trials before.

    Args:
        build_model: from hyperparameters to a compiled model.
        objective: the logged value, and its direction.
        patience: epochs without improvement before a fit stops.
        compare: whether a fit that is behind the others is given up.
        folder: where the file is.
        seed: of the weights, with the hyperparameters.
    """

    def __init__(
        self,
        build_model: Callable[[Any], keras.Model],
        objective: keras_tuner.Objective,
        *,
        patience: int,
        compare: bool,
        folder: Path,
        seed: int,
    ) -> None:
        super().__init__()
        self._build_model, self._objective, self._patience, self._seed = build_model, objective, patience, seed
        self._compare = compare
        self._file = folder / "epochs.json"
        self.records: dict[str, dict[str, Any]] = json.loads(self._file.read_text()) if self._file.exists() else {}

    @staticmethod
    def key(hyperparameters: Any) -> str:
        """The values of a trial as text, those of hyperband's rounds included."""
        return json.dumps(hyperparameters.values, sort_keys=True, default=str)

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
        others = [record["values"] for record in self.records.values()] if self._compare else []
        name, direction = self._objective.name, self._objective.direction
        median = MedianStopping(name, direction, others, fewest=FEWEST_OTHERS)
        stopping = EarlyStopping({name: direction}, patience=self._patience)
        history = model.fit(*args, callbacks=[*callbacks, stopping, median], **kwargs)
        self.records[self.key(hp)] = {"values": median.values, "gave_up": median.gave_up}
        with write_whole(self._file) as path:
            path.write_text(json.dumps(self.records, indent=1))
        return history
