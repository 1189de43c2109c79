"""What a trial promises: by how much it may be better than the best so far, and how likely it keeps a limit."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

__all__ = ["constrained_improvement", "expected_improvement"]

NOISE = 0.01
"""Of a trial's score, as a part of the variance among trials."""
SCALES, LENGTHS = (0.1, 10.0), (0.2, 10.0)
"""Of the processes, where values have a variance of 1 and hyperparameters go from 0 to 1: with shorter lengths few
trials seem to say more than they do, and a hyperparameter that does nothing has the longest."""
RESTARTS = 2
LEAST_USED = 1e-3
"""What takes less of a limit keeps it no better."""


def constrained_improvement(
    places: np.ndarray, scores: np.ndarray, used: np.ndarray, pending: np.ndarray, candidates: np.ndarray, *, seed: int
) -> np.ndarray:
    """How much each candidate is expected to gain over the best trial that keeps the limit, were it tried.

    The product of two: the expected improvement of the score, and the chance to keep the limit; as long as no trial
    keeps it, the chance alone. Each is learnt from all trials, by a Gaussian process with a length scale for every
    hyperparameter. Trials that are still running are taken to come out as expected.

    Args:
        places: of the trials that are done, (trials, hyperparameters), from 0 to 1.
        scores: of those, the larger, the better.
        used: what each takes of the limit, at least 0; more than 1 is too much.
        pending: the places of trials still running.
        candidates: the places in question.
        seed: of the fit's restarts.

    Returns:
        A number of at least 0 for each candidate.

    Example:
        >>> places, candidates = np.array([[0.0], [0.4], [1.0]]), np.array([[0.0], [0.5], [0.9]])
        >>> gain = constrained_improvement(
        ...     places, np.array([0.1, 0.5, 0.9]), np.array([0.2, 0.6, 1.6]), np.zeros((0, 1)), candidates, seed=0
        ... )
        >>> int(gain.argmax())
        1

    References: Gardner et al. 2014, Bayesian Optimization with Inequality Constraints (the product); Snoek et al. 2012,
        arXiv:1206.2944 (length scales, Matérn 5/2); Ginsbourger et al. 2010, doi:10.1007/978-3-642-10701-6_6 (running
        trials).
    """
    score, scores = _learnt(places, scores, pending, seed)
    logarithm, logarithms = _learnt(places, np.log(np.maximum(used, LEAST_USED)), pending, seed)
    chance = norm.cdf(0.0, *logarithm.predict(candidates, return_std=True))
    within = logarithms <= 0
    if not within.any():
        return chance
    return chance * expected_improvement(*score.predict(candidates, return_std=True), best=scores[within].max())


def expected_improvement(mean: np.ndarray, deviation: np.ndarray, *, best: float) -> np.ndarray:
    """How far above the best a normally distributed score is on average, where below it counts as 0.

    Args:
        mean: of the scores.
        deviation: their standard deviations, above 0.
        best: the score to exceed.

    Example:
        >>> expected_improvement(np.array([1.0, 0.0, 0.0]), np.array([1e-9, 1.0, 1e-9]), best=0.0).round(3).tolist()
        [1.0, 0.399, 0.0]

    References: Jones et al. 1998, doi:10.1023/A:1008306431147, equation 15.
    """
    ahead = (mean - best) / deviation
    return np.maximum(deviation * (ahead * norm.cdf(ahead) + norm.pdf(ahead)), 0.0)


def _learnt(
    places: np.ndarray, values: np.ndarray, pending: np.ndarray, seed: int
) -> tuple[GaussianProcessRegressor, np.ndarray]:
    """What predicts a value, and the values it was learnt from, with those that are expected of running trials."""
    kernel = ConstantKernel(1.0, SCALES) * Matern(np.ones(places.shape[1]), LENGTHS, nu=2.5)
    process = GaussianProcessRegressor(
        kernel, alpha=NOISE, normalize_y=True, n_restarts_optimizer=RESTARTS, random_state=seed
    ).fit(places, values)
    if not len(pending):
        return process, values
    values = np.concatenate([values, process.predict(pending)])
    again = GaussianProcessRegressor(process.kernel_, alpha=NOISE, normalize_y=True, optimizer=None)
    return again.fit(np.concatenate([places, pending]), values), values
