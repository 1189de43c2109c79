"""Mutual information of each column with the targets, beside what shuffled targets give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

from tfopt.features.columns import Column
from tfopt.features.judgement import Judgement
from tfopt.features.target import Target

__all__ = ["judge_by_mutual_information"]

SHUFFLES = 8
FEW_VALUES = 32
"""Numbers of no more different values are counted as words are: nearest neighbours need values that differ."""
SAMPLES_FOR_A_VALUE = 5
ROUNDING = 1e-9


def judge_by_mutual_information(columns: Sequence[Column], target: Target, seed: int) -> Judgement:
    """Scores columns one by one, in nats above what chance gives.

    The estimate is biased upwards, most for columns of many different words: one that numbers the samples tells
    everything of each. So the same is measured with the targets shuffled; what a column tells beyond that counts.

    Args:
        columns: none of them constant.
        target: what they are to tell.
        seed: of the shuffles, and of the noise by which equal numbers are told apart.

    References: Kraskov et al. 2004, arXiv:cond-mat/0305641; Ross 2014, doi:10.1371/journal.pone.0087357.
    """
    counted = np.array([_is_counted(column) for column in columns])
    codes = np.stack([_codes(c.values) if few else c.values for c, few in zip(columns, counted, strict=True)], axis=1)
    estimate = mutual_info_regression if target.classes is None else mutual_info_classif
    generator = np.random.default_rng(seed)

    def information(values: np.ndarray) -> np.ndarray:
        return estimate(codes, values, discrete_features=counted, random_state=seed)

    found = information(target.values)
    chance = np.stack([information(generator.permutation(target.values)) for _ in range(SHUFFLES)])
    limit = np.maximum(chance.max(axis=0), chance.mean(axis=0) + 3 * chance.std(axis=0)) + ROUNDING
    useful = found > limit
    return Judgement(
        scores=np.maximum(found - chance.mean(axis=0), 0),
        useful=useful,
        reasons=tuple(
            f"{value:.4f} nats, {'more than' if enough else 'no more than'} by chance (up to {most:.4f})"
            for value, enough, most in zip(found, useful, limit, strict=True)
        ),
    )


def _is_counted(column: Column) -> bool:
    different = len(np.unique(column.values))
    return column.holds_words or different <= min(FEW_VALUES, len(column.values) / SAMPLES_FOR_A_VALUE)


def _codes(values: np.ndarray) -> np.ndarray:
    """Values by number; those that are there once, of which nothing can be learned, share the last one."""
    _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.where(counts[codes] == 1, len(counts), codes).astype(float)
