"""The scores of several files on the same data, and the errors of a regression."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfopt.benchmark.metric import MetricChoice, Score, is_regression, score
from tfopt.errors import DataError
from tfopt.output_error import ErrorDistribution

__all__ = ["Scores", "score_all"]


@dataclass(frozen=True)
class Scores:
    """What the data told; empty where there was none.

    Args:
        metric: what the values are, None where nothing was scored.
        values: the score of each file, by name.
        errors: of a regression, the fields of `Entry` on how predictions deviate, by name.
    """

    metric: str | None = None
    values: dict[str, float] = field(default_factory=dict)
    errors: dict[str, dict[str, ErrorDistribution]] = field(default_factory=dict)


def score_all(targets: Any, predictions: dict[str, list[np.ndarray]], metric: MetricChoice, *, baseline: str) -> Scores:
    """Scores every file alike.

    Args:
        targets: as `tfopt.benchmark` takes them.
        predictions: the outputs of each file, by name; at least one.
        metric: as `tfopt.benchmark` takes it.
        baseline: the file whose predictions the others' are compared with, where it is among them.

    Raises:
        DataError: if the targets do not fit, or the files cannot be scored alike.
        ConfigError: if the metric does not fit.

    Example:
        >>> score_all([1, 0], {"int8": [np.array([[0.1, 0.9], [0.2, 0.8]])]}, None, baseline="int8").values
        {'int8': 0.5}
    """
    regression = is_regression(targets, next(iter(predictions.values())), metric)
    scores: dict[str, Score] = {name: score(targets, outputs, metric) for name, outputs in predictions.items()}
    metrics = list(dict.fromkeys(one.metric for one in scores.values()))
    if len(metrics) > 1:
        raise DataError(
            f"benchmark: the outputs differ in shape, so they cannot be scored alike: "
            f"{', '.join(metrics)}. Benchmark them apart, or give a callable as metric."
        )
    first_outputs = {name: outputs[0] for name, outputs in predictions.items()}
    return Scores(
        metric=metrics[0],
        values={name: one.value for name, one in scores.items()},
        errors=_errors(targets, first_outputs, baseline) if regression else {},
    )


def _errors(targets: Any, predictions: dict[str, np.ndarray], baseline: str) -> dict[str, dict[str, ErrorDistribution]]:
    """How each file's predictions deviate from the targets, and from the baseline's."""
    expected = np.asarray(targets)
    errors = {
        name: {"error_against_targets": ErrorDistribution.of(expected.reshape(output.shape), output)}
        for name, output in predictions.items()
    }
    for name, output in predictions.items():
        if name != baseline and baseline in predictions:
            theirs = predictions[baseline].reshape(output.shape)
            errors[name]["error_against_baseline"] = ErrorDistribution.of(theirs, output)
    return errors
