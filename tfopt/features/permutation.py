"""Permutation importance: what a trained model loses where a column is shuffled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.inspection import permutation_importance
from sklearn.model_selection import train_test_split

from tfopt.features.columns import Column
from tfopt.features.judgement import Judgement, pooled_codes, with_shuffled
from tfopt.features.target import FOLDS, Target

__all__ = ["judge_by_permutation"]

REPEATS = 10
MOST_WORDS = 255
"""As gradient boosting takes them."""


def judge_by_permutation(columns: Sequence[Column], target: Target, seed: int) -> Judgement:
    """Scores each column by the accuracy or R² that boosted trees lose on samples held out without it.

    The trees are given a shuffled copy of every column too. Kept are the columns that cost more than any copy does, and
    more than twice the standard deviation of what single shuffles cost. Of two columns that say the same neither is
    missed much: both may score low.

    Args:
        columns: none of them constant.
        target: what they are to tell.
        seed: of the split, the model and the shuffles.

    References: Breiman 2001, doi:10.1023/A:1010933404324.
    """
    codes = np.stack(
        [pooled_codes(c, MOST_WORDS)[0].astype(float) if c.holds_words else c.values for c in columns], axis=1
    )
    x, x_held_out, y, y_held_out = train_test_split(
        with_shuffled(codes, seed),
        target.values,
        test_size=1 / FOLDS,
        stratify=None if target.classes is None else target.values,
        random_state=seed,
    )
    boosting = HistGradientBoostingRegressor if target.classes is None else HistGradientBoostingClassifier
    words = [column.holds_words for column in columns] * 2
    model = boosting(categorical_features=words, early_stopping=False, random_state=seed).fit(x, y)
    lost = permutation_importance(model, x_held_out, y_held_out, n_repeats=REPEATS, random_state=seed)
    mean, chance = np.split(lost["importances_mean"], 2)
    limit = np.maximum(max(float(chance.max()), 0.0), 2 * lost["importances_std"][: len(columns)])
    quantity = "R²" if target.classes is None else "accuracy"
    return Judgement(
        scores=np.maximum(mean, 0),
        useful=mean > limit,
        reasons=tuple(
            f"costs {value:.4f} {quantity}, {'more than' if value > most else 'no more than'} by chance ({most:.4f})"
            for value, most in zip(mean, limit, strict=True)
        ),
    )
