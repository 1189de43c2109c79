"""The verb `tune`: hyperparameters of a model searched for with keras-tuner."""

from __future__ import annotations

import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus
from sklearn.exceptions import ConvergenceWarning

from tfopt.errors import ConfigError, ModelError
from tfopt.schedules.arguments import check_steps
from tfopt.tuning.constrained_oracle import ConstrainedBayesianOracle, Constraint
from tfopt.tuning.fit_data import check_fit_data, fit_arguments
from tfopt.tuning.median_stopping import Direction
from tfopt.tuning.objectives import direction_of
from tfopt.tuning.tracking import track_with
from tfopt.tuning.trial_model import TrialModel, searched_values
from tfopt.tuning.tuning_result import TuningResult, TuningRow

__all__ = ["Search", "tune"]

Search = Literal["bayesian", "hyperband", "random"]
PROJECT = "trials"


def tune(
    build_model: Callable[[Any], keras.Model] | keras_tuner.HyperModel,
    train: Any,
    validation: Any,
    *,
    search: Search = "bayesian",
    objective: str = "val_loss",
    direction: Direction | None = None,
    constraint: Constraint | None = None,
    trials: int = 20,
    epochs: int = 20,
    patience: int = 3,
    max_parameters: int | None = None,
    folder: str | Path | None = None,
    batch_size: int = 32,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    tracking: str | Path | None = None,
    seed: int = 0,
    verbose: int = 0,
) -> TuningResult:
    """Finds hyperparameters: learning rate, width, depth, whatever `build_model` asks for.

    A trial stops when its objective has not improved for `patience` epochs, and is given up as soon as its best value
    is behind the median of the trials before (not with hyperband, which has a way of its own). What a trial reached is
    that of its best epoch. An interrupted search goes on where it was when it is called again with the same folder.

    Args:
        build_model: from `keras_tuner.HyperParameters` to a compiled model: `hp.Int("units", 8, 64, step=8)`,
            `hp.Float("learning_rate", 1e-4, 1e-1, sampling="log")`, `hp.Choice("activation", ["relu", "silu"])`. Or a
            `keras_tuner.HyperModel`, whose own `fit` trains.
        train: `(x, y)` or a tf.data.Dataset of batches.
        validation: likewise; the objective is measured on it.
        search: "bayesian": Gaussian processes of the trials so far say which is next; "random"; "hyperband": many
            trials of few epochs, of which the better ones go on.
        objective: the name of a logged value, such as "val_accuracy".
        direction: "min" or "max"; by default what Keras knows of its own metrics.
        constraint: what the objective is made of, where it is a score with a penalty for what exceeds a limit. The
            bayesian search then learns the two apart, and chooses what promises most within the limit.
        trials: how many, at most; hyperband decides by itself from `epochs`.
        epochs: of a trial, at most.
        patience: epochs without improvement before a trial stops.
        max_parameters: a trial whose model has more is passed over.
        folder: where trials are kept, with their weights; by default a new temporary folder.
        batch_size: of arrays.
        callbacks: further ones, for every trial.
        tracking: a folder for TensorBoard's HParams, or "mlflow" (extra `mlflow`), where each trial is recorded when it
            is done.
        seed: of the search and, with the trial's number, of the weights.
        verbose: as keras-tuner has it.

    Returns:
        The result: print it, read `best.values`, use its `model`.

    Raises:
        ConfigError: if an argument is not usable, or the objective's direction is not known.
        DataError: if `train` or `validation` is neither a tuple nor a dataset.
        ModelError: if no trial came to a score.
        MissingExtraError: if MLflow is asked for and not installed.

    Example:
        >>> import numpy as np
        >>> def build(hp):
        ...     model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        ...     model.compile(keras.optimizers.SGD(hp.Float("learning_rate", 1e-3, 0.3, sampling="log")), "mse")
        ...     return model
        >>> x = np.random.default_rng(0).normal(size=(64, 2))
        >>> result = tune(build, (x, x.sum(axis=1)), (x, x.sum(axis=1)), trials=3, epochs=2)
        >>> len(result.rows), list(result.best.values)
        (3, ['learning_rate'])

    References: O'Malley et al. 2019, KerasTuner; Li et al. 2018 (Hyperband), arXiv:1603.06560; Golovin et al. 2017
    (median stopping), doi:10.1145/3097983.3098043; Gardner et al. 2014 (search within a limit).
    """
    if search not in get_args(Search):
        raise ConfigError(f"tune: search must be one of {', '.join(get_args(Search))}. Received: {search!r}.")
    if not callable(build_model) and not isinstance(build_model, keras_tuner.HyperModel):
        raise ConfigError(
            f"tune: build_model must be a function or a HyperModel. Received: {type(build_model).__name__}."
        )
    for name, number in (("trials", trials), ("epochs", epochs), ("patience", patience), ("batch_size", batch_size)):
        check_steps(f"tune: {name}", number, minimum=1)
    check_steps("tune: seed", seed, minimum=0)
    if max_parameters is not None:
        check_steps("tune: max_parameters", max_parameters, minimum=1)
    check_fit_data("tune", train, validation)
    aim = keras_tuner.Objective(objective, direction_of("tune", objective, direction))
    if constraint is not None:
        direction_of("tune: constraint", constraint.score, constraint.direction)
    track = track_with(tracking)
    if folder is None and "KERASTUNER_ORACLE_IP" in os.environ:
        raise ConfigError(
            "tune: processes that share a search (KERASTUNER_ORACLE_IP is set) need the same folder=, on a disk that "
            "all of them have. Received: None."
        )
    folder = Path(tempfile.mkdtemp(prefix="tfopt-tune-") if folder is None else folder)
    # Hyperband ends trials itself, and begins in the midst of others.
    compare = search != "hyperband"
    trial_model = TrialModel(
        build_model, aim, patience=patience, compare=compare, folder=folder, seed=seed, track=track
    )
    of_tuner = {"directory": str(folder), "project_name": PROJECT, "max_model_size": max_parameters}
    of_oracle: dict[str, Any] = {
        "objective": aim,
        "seed": seed + 1,  # keras-tuner takes 0 for none
        # A trial that is too large has failed for keras-tuner, which gives up after three in a row.
        "max_consecutive_failed_trials": max(trials, 100),
    }
    # keras-tuner's default, three for each hyperparameter, would make a short search a random one.
    first = max(3, trials // 3)
    if search == "hyperband":
        tuner = keras_tuner.Hyperband(trial_model, max_epochs=epochs, **of_oracle, **of_tuner)
    elif search == "random":
        tuner = keras_tuner.RandomSearch(trial_model, max_trials=trials, **of_oracle, **of_tuner)
    elif constraint is None:
        tuner = keras_tuner.BayesianOptimization(
            trial_model, max_trials=trials, num_initial_points=first, **of_oracle, **of_tuner
        )
    else:
        oracle = ConstrainedBayesianOracle(constraint=constraint, initial_trials=first, max_trials=trials, **of_oracle)
        tuner = keras_tuner.Tuner(oracle, trial_model, **of_tuner)
    data = fit_arguments(train, validation, batch_size)
    if search != "hyperband":
        data["epochs"] = epochs
    with warnings.catch_warnings():
        # Where few trials say little, the Gaussian process ends at a bound of its kernel.
        warnings.filterwarnings("ignore", category=ConvergenceWarning, module=r"sklearn\.gaussian_process")
        tuner.search(**data, callbacks=list(callbacks), verbose=verbose)
    return _result(tuner, trial_model, aim, folder / PROJECT)


def _result(tuner: Any, trial_model: TrialModel, aim: keras_tuner.Objective, folder: Path) -> TuningResult:
    # Read from files, since a process that shares a search holds none but its own.
    trials = [_loaded(path) for path in folder.glob("trial_*/trial.json")]
    trials.sort(key=lambda trial: int(trial.trial_id))
    records = trial_model.records()
    rows = []
    for number, trial in enumerate(trials, start=1):
        record = records.get(trial_model.key(trial.hyperparameters))
        epochs = 0 if record is None else len(record["values"])
        remark = "given up: behind the median" if record is not None and record["gave_up"] else ""
        if trial.status == TrialStatus.RUNNING:
            remark = "not done: another process has it"
        elif trial.score is None:
            remark = f"failed: {_last_words(trial.message)}"
        score = None if trial.score is None else float(trial.score)
        logs = {name: float(trial.metrics.get_last_value(name)) for name in trial.metrics.metrics}
        rows.append(TuningRow(number, searched_values(trial.hyperparameters), score, epochs, remark, logs))
    scored = [(row.score if aim.direction == "min" else -row.score, row) for row in rows if row.score is not None]
    if not scored:
        last = f" The last one {rows[-1].remark}." if rows else ""
        raise ModelError(f"tune: none of {len(rows)} trials came to a score.{last}")
    return TuningResult(
        objective=aim.name,
        rows=(
            *(row for _, row in sorted(scored, key=lambda pair: pair[0])),
            *(row for row in rows if row.score is None),
        ),
        _load=lambda row: tuner.load_model(trials[row.number - 1]),
    )


def _loaded(path: Path) -> Trial:
    """A trial's file; the chief of a shared search may just be writing it."""
    for _ in range(50):
        try:
            return Trial.load(str(path))
        except json.JSONDecodeError:
            time.sleep(0.1)
    return Trial.load(str(path))


def _last_words(message: str | None) -> str:
    """The message of a traceback, without the class of the error."""
    lines = (message or "").strip().splitlines() or ["no score"]
    return lines[-1].partition(": ")[2] or lines[-1]
