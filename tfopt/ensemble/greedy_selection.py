"""Greedy forward selection with replacement: which models are averaged, and how often each. Array maths alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tfopt.errors import ConfigError

__all__ = ["Chosen", "Score", "select_greedily"]

Score = Callable[[np.ndarray], tuple[float, ...]]
"""How good averaged outputs are: the first number counts, the others where it is the same; higher is better."""


@dataclass(frozen=True)
class Chosen:
    """Models with their numbers of votes.

    Args:
        counts: how often each model was taken; 0 for those left out.
        score: of their average.
    """

    counts: tuple[int, ...]
    score: tuple[float, ...]

    @property
    def size(self) -> int:
        """How many different models there are: what the average costs."""
        return sum(count > 0 for count in self.counts)

    @property
    def weights(self) -> tuple[float, ...]:
        """The share of each model, of sum 1."""
        total = sum(self.counts)
        return tuple(count / total for count in self.counts)


def select_greedily(outputs: np.ndarray, score: Score, *, most: int, rounds: int) -> Chosen:
    """Chooses what to average: in each round the model that helps most, one that is there already too.

    A model that is taken again counts more and costs nothing. The rounds go on past the best average, so that a local
    optimum is left, and the best of all rounds is returned: no single model is better on these samples. Of equally good
    models, one that is there already is taken, else the first.

    Args:
        outputs: of the models on the same samples, of shape `(models, n, ...)`.
        score: how good averaged outputs of shape `(n, ...)` are.
        most: how many different models there may be.
        rounds: how many models are taken, repeats included.

    Raises:
        ConfigError: if there is no model, or no round or model is allowed.

    Example:
        >>> outputs = np.array([[0.0, 4.0], [3.0, 0.0], [9.0, 9.0]])  # of three models on two samples
        >>> chosen = select_greedily(outputs, lambda mean: (-np.abs(mean - [1.0, 3.0]).max(),), most=2, rounds=9)
        >>> chosen.counts, chosen.size
        ((5, 2, 0), 2)

    References: Caruana et al. 2004, Ensemble selection from libraries of models, doi:10.1145/1015330.1015432.
    """
    if len(outputs) == 0 or most < 1 or rounds < 1:
        raise ConfigError(
            "select_greedily: expected at least one model, allowed model and round. "
            f"Received: {len(outputs)} models, most={most}, rounds={rounds}."
        )
    counts = np.zeros(len(outputs), dtype=int)
    total = np.zeros(outputs.shape[1:])
    best: Chosen | None = None
    for taken in range(1, rounds + 1):
        may_grow = np.count_nonzero(counts) < most
        allowed = [index for index in range(len(outputs)) if may_grow or counts[index]]
        scores = {index: score((total + outputs[index]) / taken) for index in allowed}
        index = max(allowed, key=lambda index: (scores[index], counts[index] > 0, -index))
        counts[index] += 1
        total += outputs[index]
        if best is None or scores[index] > best.score:
            best = Chosen(tuple(counts.tolist()), scores[index])
    assert best is not None  # there was a round
    return best
