"""What a method says of columns, and columns in the numbers that a method works on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfopt.features.columns import Column

__all__ = ["Judgement", "one_standard_error", "pooled_codes", "with_shuffled"]


@dataclass(frozen=True, eq=False)
class Judgement:
    """What a method says of p columns.

    Args:
        scores: of shape `(p,)`, at least 0; higher is better.
        useful: of shape `(p,)`: whether the method would keep the column.
        reasons: p texts that say why.
    """

    scores: np.ndarray
    useful: np.ndarray
    reasons: tuple[str, ...]


def pooled_codes(column: Column, most: int) -> tuple[np.ndarray, int]:
    """Words as numbers from 0 on, the commonest first; those beyond `most - 1` share the last number.

    So do those that are there once: nothing can be learned of them but by heart.

    Returns:
        The numbers of shape `(n,)`, and how many different ones there are.

    Example:
        >>> pooled_codes(Column("x", np.array(["b", "a", "b", "c"])), most=9)
        (array([0, 1, 0, 1]), 2)
    """
    _, codes, counts = np.unique(column.values, return_inverse=True, return_counts=True)
    most = min(most, int(np.sum(counts > 1)) + 1)
    places = np.empty(len(counts), dtype=np.int64)
    places[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return np.minimum(places[codes], most - 1), min(len(counts), most)


def one_standard_error(means: np.ndarray, deviations: np.ndarray, folds: int) -> int:
    """The first of several settings, the simplest first, that is within one standard error of the best.

    Args:
        means: scores of the settings, means over the folds.
        deviations: their standard deviations over the folds.
        folds: how many there were.

    Example:
        >>> one_standard_error(np.array([0.5, 0.79, 0.8]), np.array([0.02, 0.02, 0.02]), folds=3)
        1

    References: Breiman et al. 1984, Classification and Regression Trees, section 3.4.3.
    """
    best = int(np.argmax(means))
    return int(np.argmax(means >= means[best] - deviations[best] / np.sqrt(folds)))


def with_shuffled(codes: np.ndarray, seed: int) -> np.ndarray:
    """Puts a shuffled copy of each column behind the columns: what chance gives, in the same model.

    Args:
        codes: of shape `(n, p)`.
        seed: of the shuffles.

    Returns:
        An array of shape `(n, 2 * p)`.

    Example:
        >>> with_shuffled(np.zeros((4, 3)), seed=0).shape
        (4, 6)

    References: Kursa & Rudnicki 2010 (Boruta), doi:10.18637/jss.v036.i11.
    """
    return np.concatenate([codes, np.random.default_rng(seed).permuted(codes, axis=0)], axis=1)
