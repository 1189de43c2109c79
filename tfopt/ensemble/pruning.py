"""The verb `prune`: the few models of an ensemble that are nearly as good as all, or better."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, get_args

import keras
import numpy as np

from tfopt.benchmark.metric import ACCURACIES, MetricChoice, check_metric, is_regression
from tfopt.benchmark.metric import score as measured_score
from tfopt.data import check_samples
from tfopt.ensemble.ensemble_latency import Runtime, latencies_ms
from tfopt.ensemble.greedy_selection import Chosen, select_greedily
from tfopt.ensemble.members import Member, average, members_of, named_models
from tfopt.ensemble.pruned_ensemble import EnsembleRow, PrunedEnsemble
from tfopt.ensemble.scoring import log_loss, selection_score
from tfopt.errors import ConfigError, DataError
from tfopt.resource_target import parse_resource_target
from tfopt.schedules.arguments import check_positive, check_steps

__all__ = ["prune"]


def prune(
    models: Mapping[str, keras.Model] | Sequence[keras.Model],
    validation: tuple[Any, Any],
    *,
    size: int | None = None,
    target: str | None = None,
    metric: MetricChoice = None,
    runtime: Runtime = "keras",
    batch_size: int = 1,
    rounds: int = 50,
    seconds: float = 0.5,
) -> PrunedEnsemble:
    """Chooses the models of an ensemble that are worth their time, and tells what each size gives and costs.

    For each size the models are chosen by greedy forward selection with replacement: the one that helps the average
    most is added, again and again; one that is added twice counts twice. Every size is timed, all in turns.

    The choice fits the samples that it is made on. Give validation samples, which no model was trained on, some
    thousands of them: on few, small differences are luck.

    Args:
        models: trained Keras models, a sequence or by name, that take the same inputs and give one output of one shape:
            class probabilities, logits (also mixed), or values.
        validation: `(x, y)`: samples as the models take them, with their targets.
        size: how many different models the chosen ensemble has at most; by default as many as are best.
        target: what may remain of the time that all models take, such as "latency: 50%"; the chosen ensemble is the
            best that keeps to it and to `size`.
        metric: "accuracy", "r2" or a callable `(targets, outputs) -> float` for which higher is better; by default
            accuracy for classes, R² for float targets. Equal accuracies are told apart by the log loss.
        runtime: what is timed: "keras", a compiled function; or "tflite", a float32 .tflite on one thread, which takes
            some seconds for each size.
        batch_size: samples of an inference that is timed; 1 for "tflite".
        rounds: how often a model is added.
        seconds: time in which inferences of each size are recorded, at least.

    Returns:
        The pruned ensemble: print it, use its `model`, `distill` it.

    Raises:
        ConfigError: if an argument is not usable, there are less than two models, or no size keeps to the target.
        ModelError: if a model is subclassed or not built, gives NaN, or does not fit the others.
        DataError: if the data does not fit.

    Example:
        >>> def classifier(seed):
        ...     kernel = keras.initializers.RandomNormal(seed=seed)
        ...     answer = keras.layers.Dense(3, "softmax", kernel_initializer=kernel)
        ...     return keras.Sequential([keras.Input((4,)), answer])
        >>> x, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3
        >>> pruned = prune([classifier(seed) for seed in range(4)], (x, y), size=2, seconds=0)
        >>> pruned.chosen.size <= 2, pruned.model.output_shape
        (True, (None, 3))

    References: Caruana et al. 2004, Ensemble selection from libraries of models, doi:10.1145/1015330.1015432.
    """
    check_metric(metric)
    if runtime not in get_args(Runtime):
        raise ConfigError(f"prune: runtime must be one of {', '.join(get_args(Runtime))}. Received: {runtime!r}.")
    check_steps("prune: batch_size", batch_size, minimum=1)
    check_steps("prune: rounds", rounds, minimum=1)
    check_positive("prune: seconds", seconds, or_zero=True)
    if runtime == "tflite" and batch_size != 1:
        raise ConfigError(f"prune: a .tflite takes one sample at a time. Received: batch_size={batch_size}.")
    if not isinstance(validation, tuple) or len(validation) != 2:
        raise DataError(f"prune: validation must be a tuple (x, y). Received: {type(validation).__name__}.")
    named = named_models(models)
    if size is not None and check_steps("prune: size", size, minimum=1) > len(named):
        raise ConfigError(f"prune: size must be at most the number of models, {len(named)}. Received: {size}.")
    x, y = validation
    fraction = None if target is None else parse_resource_target("prune", target, ("latency",))[1]
    arrays = check_samples(x, next(iter(named.values())).inputs, what="validation")
    targets = np.asarray(y)
    shape = keras.tree.flatten(next(iter(named.values())).output_shape)
    classes = not is_regression(targets, [np.zeros((len(arrays[0]), *shape[1:]))], metric)
    members = members_of(named, arrays, classes=classes)
    outputs = np.stack([member.outputs for member in members])
    name = measured_score(targets, [outputs[0]], metric).metric
    score = selection_score(targets, metric, name)

    found = dict.fromkeys(
        select_greedily(outputs, score, most=most, rounds=rounds) for most in range(1, len(members) + 1)
    )
    # Larger ones that are no better than a smaller one are not worth a row.
    chosen: list[Chosen] = []
    for one in sorted(found, key=lambda one: one.size):
        if not chosen or one.score > chosen[-1].score:
            chosen.append(one)
    weights = [one.weights for one in chosen] + [(1 / len(members),) * len(members)]
    losses = partial(log_loss, targets) if name in ACCURACIES else None
    values = partial(_value, targets, metric)
    rows = _rows(members, weights, values, losses, [array[:batch_size] for array in arrays], runtime, seconds)
    return PrunedEnsemble(
        metric=name,
        samples=len(arrays[0]),
        rows=tuple(rows[:-1]),
        whole=rows[-1],
        chosen=_best(rows, len(members) if size is None else size, fraction),
        runtime=runtime if batch_size == 1 else f"{runtime}, batch of {batch_size}",
        _members={member.name: member.model for member in members},
        _classes=classes,
    )


def _best(rows: Sequence[EnsembleRow], size: int, fraction: float | None) -> EnsembleRow:
    *pruned, whole = rows
    limit = np.inf if fraction is None else fraction * whole.latency_ms
    fitting = [row for row in pruned if row.size <= size and row.latency_ms <= limit]
    if not fitting:
        fastest = min(row.latency_ms for row in pruned) / whole.latency_ms
        raise ConfigError(
            f"prune: no ensemble of at most {size} models takes {fraction:.1%} of the time of all or less. "
            f"The fastest takes {fastest:.1%}."
        )
    return fitting[-1]  # each is better than those before


def _value(targets: np.ndarray, metric: MetricChoice, mean: np.ndarray) -> float:
    return measured_score(targets, [mean], metric).value


def _rows(
    members: Sequence[Member],
    weights: Sequence[Sequence[float]],
    value: Callable[[np.ndarray], float],
    loss: Callable[[np.ndarray], float] | None,
    samples: Sequence[np.ndarray],
    runtime: Runtime,
    seconds: float,
) -> list[EnsembleRow]:
    used = [{member: share for member, share in zip(members, shares, strict=True) if share} for shares in weights]
    models = {
        number: average([member.model for member in shares], list(shares.values()), name=f"ensemble_{number}")
        for number, shares in enumerate(used)
    }
    latencies = latencies_ms(models, samples, runtime=runtime, seconds=seconds)
    rows = []
    for number, shares in enumerate(used):
        mean = np.tensordot(list(shares.values()), [member.outputs for member in shares], axes=1)
        rows.append(
            EnsembleRow(
                weights={member.name: share for member, share in shares.items()},
                score=value(mean),
                log_loss=None if loss is None else loss(mean),
                latency_ms=latencies[number],
            )
        )
    return rows
