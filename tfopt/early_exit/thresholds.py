"""The thresholds of a trained network, chosen on validation data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfopt.early_exit.confidence import Confidence
from tfopt.early_exit.evaluation import exit_outputs, right_answers
from tfopt.early_exit.policy import ExitPolicy
from tfopt.early_exit.stages import Stages, split_stages
from tfopt.early_exit.threshold_search import Judged, search_for_cost, search_for_drop
from tfopt.errors import ConfigError
from tfopt.resource_target import parse_resource_target

__all__ = ["choose_thresholds"]


def choose_thresholds(
    network: keras.Model,
    x: Any,
    y: Any,
    *,
    max_drop: float | None = None,
    target: str | None = None,
    confidence: Confidence = "probability",
    stage_latency_ms: Sequence[float] | None = None,
) -> ExitPolicy:
    """Chooses from which confidence on each exit may answer, for a bound on accuracy or on cost.

    With `max_drop` the mean cost is minimized, with `target` the accuracy maximized. With one early exit the choice is
    the best there is for these samples; with several it is a local one, from many starts: no threshold alone can be
    changed for the better.

    Thresholds fit the samples that they are chosen on. Give validation samples, which the network was not trained on
    (it is surer of those that it was), a few thousand of them: on 1000 samples, an accuracy is known to about a point.

    Args:
        network: a trained network that `tfopt.early_exit` made, or a model whose outputs are exits in order.
        x: samples of shape `(n, ...)`.
        y: their n classes, as numbers or one-hot.
        max_drop: how much of the last exit's accuracy on these samples may be given up, in [0, 1]: 0.005 is half a
            point.
        target: in place of `max_drop`, what is to remain of the cost: "flops: 60%" of the model without early exits,
            or "latency: 60%" of all stages.
        confidence: "probability", that of the likeliest class; or "entropy", 1 - entropy / log(classes).
        stage_latency_ms: milliseconds of each stage (`EarlyExitRunner.stage_latency_ms` measures them). Cost is then
            latency; by default it is FLOPs.

    Raises:
        ConfigError: if not just one of `max_drop` and `target` is given, or it is out of range or out of reach.
        ModelError: if the model is not one of several exits.
        DataError: if the data does not fit.

    Example:
        >>> from tfopt.early_exit import early_exit
        >>> keras.utils.set_random_seed(0)
        >>> hidden = [keras.layers.Dense(16, "relu", name=f"hidden_{number}") for number in (1, 2)]
        >>> model = keras.Sequential([keras.Input((4,)), *hidden, keras.layers.Dense(2, "softmax", name="classes")])
        >>> network = early_exit(model, ["hidden_1"])
        >>> x = np.random.default_rng(0).normal(size=(64, 4))
        >>> policy = choose_thresholds(network, x, x[:, 0] > 0, max_drop=1.0)
        >>> policy.exits, len(policy.thresholds)
        (('exit_1', 'classes'), 1)

    References: Teerapittayanon et al. 2016 (BranchyNet), arXiv:1709.01686.
    """
    if (max_drop is None) == (target is None):
        raise ConfigError(
            f"choose_thresholds: give either max_drop or target. Received: max_drop={max_drop}, target={target!r}."
        )
    stages = split_stages(network)
    # A policy with which nothing leaves, to be given its thresholds: it knows what confidence is.
    policy = ExitPolicy(stages.exits, (np.inf,) * (len(stages.exits) - 1), confidence, stages.from_logits)
    costs = _costs(stages, stage_latency_ms)
    outputs = exit_outputs(network, x, what="validation")
    judged = Judged(policy.confidences(outputs), right_answers(outputs, y, from_logits=stages.from_logits), costs)
    if target is not None:
        resource, fraction = parse_resource_target("choose_thresholds", target, ("flops", "latency"))
        if (resource == "latency") != (stage_latency_ms is not None):
            raise ConfigError(
                "choose_thresholds: a target of latency needs stage_latency_ms, and one of flops goes without. "
                f"Received: target={target!r}, stage_latency_ms={stage_latency_ms}."
            )
        whole = costs[-1] if resource == "latency" else stages.full_flops
        found = search_for_cost(judged, fraction * float(whole))
    else:
        if not isinstance(max_drop, (int, float)) or not 0 <= max_drop <= 1:
            raise ConfigError(f"choose_thresholds: max_drop must be a fraction in [0, 1]. Received: {max_drop!r}.")
        found = search_for_drop(judged, max(0.0, float(judged.correct[:, -1].mean()) - max_drop))
    return ExitPolicy(policy.exits, found, confidence, stages.from_logits)


def _costs(stages: Stages, stage_latency_ms: Sequence[float] | None) -> np.ndarray:
    if stage_latency_ms is None:
        return np.asarray(stages.cumulative_flops, np.float64)
    latencies = np.asarray(stage_latency_ms, np.float64)
    if latencies.shape != (len(stages.exits),) or not np.all(latencies > 0) or not np.all(np.isfinite(latencies)):
        raise ConfigError(
            f"choose_thresholds: stage_latency_ms must hold {len(stages.exits)} positive numbers, one for each stage. "
            f"Received: {stage_latency_ms}."
        )
    return np.cumsum(latencies)
