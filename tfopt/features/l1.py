"""L1: a linear model whose penalty leaves columns out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.linear_model import Lasso
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
from sklearn.svm import LinearSVC, l1_min_c

from tfopt.features.columns import Column
from tfopt.features.judgement import Judgement, one_standard_error, pooled_codes, with_shuffled
from tfopt.features.target import FOLDS, Target

__all__ = ["judge_by_l1"]

STRENGTHS = 7
SHUFFLES = 5
MOST_WORDS = 64


def judge_by_l1(columns: Sequence[Column], target: Target, seed: int) -> Judgement:
    """Scores each column by its largest coefficient, of standardized columns and one-hot words.

    The penalty is the strongest with which the model is, on samples held out, within one standard error of its best:
    a linear support vector machine for classes, lasso for values. It still lets some through that tell nothing; so the
    model is given a shuffled copy of each column too, five times, and kept are those with a larger coefficient than the
    copies get. Only what is linear in a column is seen.

    Args:
        columns: none of them constant.
        target: what they are to tell.
        seed: of the folds and of the solver.

    References: Tibshirani 1996, doi:10.1111/j.2517-6161.1996.tb02080.x; Zhu et al. 2003 (1-norm support vector
    machines).
    """
    parts = [_coded(column) for column in columns]
    codes = np.concatenate(parts, axis=1)
    codes = (codes - codes.mean(axis=0)) / np.maximum(codes.std(axis=0), 1e-12)
    owners = np.repeat(np.arange(len(columns)), [part.shape[1] for part in parts])
    values = target.values
    if target.classes is None:
        values = (values - values.mean()) / values.std()
        relation = np.abs(codes.T @ values) / len(values)
    else:
        relation = np.abs(codes.T @ np.eye(len(target.classes))[values]) / len(values)
    strongest = float(relation.max())
    if strongest < 1e-9:
        nothing = np.zeros(len(columns))
        return Judgement(nothing, nothing > 0, ("no linear relation to y",) * len(columns))
    models: list[Any]
    folds: Any
    if target.classes is None:
        models = [Lasso(strongest * factor, tol=1e-3, max_iter=20_000) for factor in np.geomspace(0.9, 3e-3, STRENGTHS)]
        folds = KFold(FOLDS, shuffle=True, random_state=seed)
    else:
        weakest = l1_min_c(codes, values, loss="squared_hinge")
        models = [
            LinearSVC(C=weakest * factor, penalty="l1", dual=False, tol=1e-3, max_iter=20_000, random_state=seed)
            for factor in np.geomspace(1.1, 3e2, STRENGTHS)
        ]
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    scores = np.stack([cross_val_score(model, codes, values, cv=folds) for model in models])
    chosen = one_standard_error(scores.mean(axis=1), scores.std(axis=1), FOLDS)
    coefficients, chance = [], []
    for number in range(SHUFFLES):
        fitted = models[chosen].fit(with_shuffled(codes, seed + number), values)
        own, shuffled = np.split(np.abs(np.atleast_2d(fitted.coef_)).max(axis=0), 2)
        coefficients.append(own)
        chance.append(shuffled.max())
    largest = np.zeros(len(columns))
    np.maximum.at(largest, owners, np.mean(coefficients, axis=0))
    limit = float(max(np.max(chance), np.mean(chance) + 3 * np.std(chance)))
    return Judgement(
        scores=largest,
        useful=largest > limit,
        reasons=tuple(
            "the penalty leaves it out"
            if value == 0
            else f"its largest is {value:.4f}, {'more' if value > limit else 'no more'} than by chance ({limit:.4f})"
            for value in largest
        ),
    )


def _coded(column: Column) -> np.ndarray:
    """Numbers as one column, words as one for each of the commonest."""
    if not column.holds_words:
        return column.values[:, np.newaxis]
    codes, count = pooled_codes(column, MOST_WORDS)
    return np.eye(count)[codes]
