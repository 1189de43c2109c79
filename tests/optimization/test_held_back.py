"""The drop on held-back samples and its interval."""

import numpy as np
import pytest

from tfopt.optimization.held_back import HeldBackDrop, held_back_drop


def drops(baseline: np.ndarray, candidate: np.ndarray) -> HeldBackDrop:
    right = {"baseline": baseline, "candidate": candidate}
    return held_back_drop(lambda name, rows: float(right[name][rows].mean()), len(baseline))


def test_the_interval_is_that_of_paired_differences() -> None:
    random = np.random.default_rng(0)
    baseline = random.random(4000) < 0.9
    candidate = np.where(random.random(4000) < 0.05, ~baseline, baseline)
    found = drops(baseline, candidate)
    difference = baseline.astype(float) - candidate
    half = 1.96 * difference.std() / np.sqrt(4000)
    assert found.drop == pytest.approx(difference.mean())
    assert found.low == pytest.approx(found.drop - half, abs=0.15 * half)
    assert found.high == pytest.approx(found.drop + half, abs=0.15 * half)
    apart = 1.96 * np.sqrt(baseline.var() + candidate.var()) / np.sqrt(4000)
    assert half < 0.7 * apart  # what pairing gains


def test_it_covers_the_truth_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        baseline = random.random(300) < 0.9
        candidate = baseline & (random.random(300) >= 0.1)  # the truth: 0.09
        found = drops(baseline, candidate)
        covered += found.low <= 0.09 <= found.high
    assert covered >= 52


def test_the_same_answers_differ_by_nothing() -> None:
    right = np.arange(50) % 3 > 0
    assert drops(right, right) == HeldBackDrop(0.0, 0.0, 0.0, 50)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-0.01, 0.009, "within"), (0.011, 0.05, "more than"), (0.0, 0.02, "too few samples to be sure of")],
)
def test_what_it_says_of_the_allowed_drop(low: float, high: float, said: str) -> None:
    assert HeldBackDrop(0.0, low, high, 100).verdict(0.01) == f"{said} the 0.01 allowed"
