"""The verb `compress`: how a trained model keeps a budget with the least loss, searched for with keras-tuner."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from tfopt.artifact import write_whole
from tfopt.errors import ConfigError
from tfopt.recipe import Quantization
from tfopt.tuning.budget_penalty import USED
from tfopt.tuning.compression_hyper_model import CompressionHyperModel, Technique, plain_model
from tfopt.tuning.compression_result import CompressionResult, CompressionRow
from tfopt.tuning.constrained_oracle import Constraint
from tfopt.tuning.fit_data import check_fit_data, some_samples
from tfopt.tuning.median_stopping import Direction
from tfopt.tuning.tuning import Search, tune
from tfopt.tuning.tuning_result import TuningResult, TuningRow

__all__ = ["compress"]

CALIBRATION_SAMPLES = 256


def compress(
    model: keras.Model,
    train: Any,
    validation: Any,
    *,
    budget: str,
    groups: Mapping[str, str] | None = None,
    techniques: Sequence[Technique] | None = None,
    quantizations: Sequence[Quantization] = ("int8", "none"),
    search: Search = "bayesian",
    trials: int = 20,
    epochs: int = 5,
    patience: int = 3,
    metric: str | None = None,
    direction: Direction | None = None,
    loss: Any = None,
    penalty: float | None = None,
    folder: str | Path | None = None,
    batch_size: int = 32,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    tracking: str | Path | None = None,
    seed: int = 0,
    verbose: int = 0,
) -> CompressionResult:
    """Finds how a trained model keeps a budget of size, download or operations with the least loss of score.

    A search over the fraction of channels that stays, of zeros and the bits of each group of layers, the temperature
    of the distillation and the learning rate; each trial is trained and scored. Use it where `tfopt.optimize`, which
    knows one order of steps, loses too much, or where layers are to be treated differently. What a trial takes of
    the budget is estimated from its weights; export the result to know. Interrupted searches go on with the same
    folder, and processes share them, as with `tune`.

    Args:
        model: the trained float model, Functional or Sequential; it is left as it is, and is the teacher.
        train: `(x, y)` or a tf.data.Dataset of batches.
        validation: likewise; scores are measured on it.
        budget: "size: 20%" of the given model's weights, "download: 300 kB" (after gzip), "flops: 50%", or
            several with commas between them.
        groups: from a name to a regular expression on layer names, as of `CompressionHyperModel`; by default one group.
        techniques: what is searched, of "channels", "sparsity", "quantization" and "distillation"; by default what
            saves what the budget is of.
        quantizations: the modes of a group, of "int8", "none" (float) and "int16x8".
        search: as of `tune`.
        trials: how many, at most; hyperband decides by itself from `epochs`.
        epochs: of a trial, at most.
        patience: epochs without improvement before a trial stops.
        metric: the name of a Keras metric that is the score; by default the accuracy of a classifier, else the loss.
        direction: "min" or "max"; by default what is known of the metric.
        loss: of the training, as Keras's `compile` takes it; by default what fits the targets.
        penalty: how much score a model loses that is infinitely too large, half of it one of twice the budget; by
            default the magnitude of the given model's own score (1 where that is 0).
        folder: where trials are kept, with their weights; by default a new temporary folder. One that holds a search of
            another model, budget or space is refused.
        batch_size: of arrays.
        callbacks: further ones, for every trial.
        tracking: as of `tune`.
        seed: of the search and of the training.
        verbose: as keras-tuner has it.

    Returns:
        The result: print it, read `best`, fine-tune, export or save its `model`.

    Raises:
        ConfigError: if an argument is not usable.
        DataError: if the data is neither a tuple nor a dataset, or does not fit the model.
        ModelError: if the model is not a built float Keras 3 model, or no trial came to a score.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
        >>> y = (x[:, 0] > 0).astype(int)
        >>> layers = [keras.Input((4,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(2, "softmax")]
        >>> result = compress(
        ...     keras.Sequential(layers), (x, y), (x, y), budget="flops: 50%", search="random", trials=3, epochs=1
        ... )
        >>> len(result.rows), result.best.is_within_budget
        (3, True)

    References: see `CompressionHyperModel` and `tune`.
    """
    check_fit_data("compress", train, validation)
    samples = some_samples(train, CALIBRATION_SAMPLES)
    with tempfile.TemporaryDirectory(prefix="tfopt-teacher-") as answers:
        hyper_model = CompressionHyperModel(
            model,
            samples,
            budget=budget,
            groups=groups,
            techniques=techniques,
            quantizations=quantizations,
            metric=metric,
            direction=direction,
            loss=loss,
            penalty=1.0 if penalty is None else penalty,
            # Batches of a dataset may come in another order each time.
            cache=answers if isinstance(train, tuple) else None,
        )
        own = hyper_model.original_score(validation, batch_size=batch_size)
        if penalty is None and own and math.isfinite(own):
            hyper_model.penalty = abs(own)
        if folder is not None:
            settings = [budget, groups, techniques, quantizations, metric, direction, str(loss), penalty]
            _claim(Path(folder), model, settings)
        found = tune(
            hyper_model,
            train,
            validation,
            search=search,
            objective=hyper_model.objective.name,
            direction="max",
            constraint=Constraint(hyper_model.score_name, hyper_model.direction, used=USED),
            trials=trials,
            epochs=epochs,
            patience=patience,
            folder=folder,
            batch_size=batch_size,
            callbacks=callbacks,
            tracking=tracking,
            seed=seed,
            verbose=verbose,
        )
    return _result(found, hyper_model, own)


def _claim(folder: Path, model: keras.Model, settings: Sequence[object]) -> None:
    """Notes what is searched in a folder, so that its trials are not taken for those of another search."""
    digest = hashlib.sha256(json.dumps([model.to_json(), settings], default=str).encode())
    for weights in model.get_weights():
        digest.update(weights.tobytes())
    record = folder / "search.json"
    if not record.exists():
        with write_whole(record) as path:
            path.write_text(json.dumps({"sha256": digest.hexdigest()}))
    elif json.loads(record.read_text()).get("sha256") != digest.hexdigest():
        raise ConfigError(
            f"compress: the folder {folder} holds a search of another model, budget or space, whose trials mean "
            "something else here. Choose another folder, or the arguments that it began with."
        )


def _result(found: TuningResult, hyper_model: CompressionHyperModel, original_score: float) -> CompressionResult:
    originals = {row.number: row for row in found.rows}
    rows = [_row(row, hyper_model.score_name) for row in found.rows]
    within = [row for row in rows if row.is_within_budget]
    return CompressionResult(
        score_name=hyper_model.score_name,
        original_score=original_score,
        budget=hyper_model.budget.text,
        # Those of the search are in the order of their objective, which within the budget is the score.
        rows=(*within, *(row for row in rows if not row.is_within_budget)),
        _load=lambda row: plain_model(found.model_of(originals[row.number])),
    )


def _row(row: TuningRow, score_name: str) -> CompressionRow:
    score, used = (row.logs.get(name) for name in (score_name, USED))
    return CompressionRow(row.number, row.values, score, used, row.epochs, row.remark)
