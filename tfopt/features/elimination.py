"""Recursive feature elimination: the least important column of a forest goes, and again, down to the last."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.feature_selection import RFE, RFECV
from sklearn.model_selection import KFold, StratifiedKFold

from tfopt.features.columns import Column
from tfopt.features.judgement import Judgement, one_standard_error, pooled_codes
from tfopt.features.target import FOLDS, Target

__all__ = ["judge_by_elimination"]

TREES = 50
STEPS = 50
"""About so many times columns go; of a wider table several at once."""
MOST_WORDS = 256


def judge_by_elimination(columns: Sequence[Column], target: Target, seed: int) -> Judgement:
    """Scores each column by how many others went before it.

    Kept are the fewest with which a forest is, on samples held out, within one standard error of its best.

    Args:
        columns: none of them constant.
        target: what they are to tell.
        seed: of the forest and of the folds.

    References: Guyon et al. 2002, doi:10.1023/A:1012487302797.
    """
    if len(columns) == 1:
        return Judgement(np.zeros(1), np.ones(1, bool), ("the only one that varies",))
    codes = np.stack(
        [pooled_codes(c, MOST_WORDS)[0].astype(float) if c.holds_words else c.values for c in columns], axis=1
    )
    forest = RandomForestRegressor if target.classes is None else RandomForestClassifier
    folds = KFold if target.classes is None else StratifiedKFold
    # A leaf of a single sample would make a column that numbers the samples important.
    model = forest(n_estimators=TREES, min_samples_leaf=max(1, len(codes) // 500), random_state=seed)
    step = max(1, len(columns) // STEPS)
    search = RFECV(model, step=step, cv=folds(FOLDS, shuffle=True, random_state=seed)).fit(codes, target.values)
    results = search.cv_results_
    chosen = one_standard_error(results["mean_test_score"], results["std_test_score"], FOLDS)
    count, accuracy = int(results["n_features"][chosen]), float(results["mean_test_score"][chosen])
    ranking = RFE(model, n_features_to_select=1, step=step).fit(codes, target.values).ranking_
    kept = np.argsort(ranking, kind="stable")[:count]
    useful = np.isin(np.arange(len(columns)), kept)
    quantity = "R²" if target.classes is None else "accuracy"
    return Judgement(
        scores=np.array([np.sum(ranking > rank) for rank in ranking], dtype=float),
        useful=useful,
        reasons=tuple(
            f"one of the {count} with which a forest's {quantity} is {accuracy:.4f}, near its best"
            if keep
            else "the forest is as good without it, within one standard error"
            for keep in useful
        ),
    )
