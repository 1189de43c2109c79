"""Samples and targets as they come in, and the half that is held back."""

from typing import Any

import keras
import numpy as np
import pytest

from tfopt.errors import DataError
from tfopt.optimization.samples import LabelledSamples, checked_samples, halves

X = np.arange(30, dtype=np.float32).reshape(10, 3)


def two_inputs() -> keras.Model:
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    return keras.Model([a, b], keras.layers.Dense(1)(keras.layers.Concatenate()([a, b])))


def one_input() -> keras.Model:
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])


def test_several_inputs_and_targets_stay_together() -> None:
    pair = ({"a": X, "b": X[:, :2]}, {"class": np.arange(10), "value": np.arange(10.0)})
    samples = checked_samples(two_inputs(), pair, "training")
    first, second = halves(samples)
    assert (len(samples), len(first), len(second)) == (10, 5, 5)
    np.testing.assert_array_equal(second.x[1], X[1::2, :2])
    np.testing.assert_array_equal(second.y["value"], [1, 3, 5, 7, 9])


def test_a_digest_tells_any_change() -> None:
    samples = LabelledSamples(X, np.arange(10))
    changed = X.copy()
    changed[9, 2] += 1e-3
    others = [
        LabelledSamples(changed, np.arange(10)),
        LabelledSamples(X, np.arange(10)[::-1]),
        LabelledSamples(X.reshape(5, 6), np.arange(10)),
        LabelledSamples(X, np.arange(10).astype(np.float64)),
    ]
    assert samples.sha256() == LabelledSamples(X.copy(), np.arange(10)).sha256()
    assert len({samples.sha256(), *(other.sha256() for other in others)}) == 5


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (X, r"validation data must be a tuple \(x, y\)\. Received: ndarray"),
        ((X,), "Received: tuple"),
        ((X, np.arange(9)), "one target for each of its 10 samples. Received: 9"),
        ((X, 1), "Received: 0"),
        ((X, {"class": np.arange(10), "value": np.arange(8)}), "Received: 8, 10"),
        ((X[:, :2], np.arange(10)), r"must have shape \(n, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused(pair: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        checked_samples(one_input(), pair, "validation")


def test_one_sample_has_no_halves() -> None:
    with pytest.raises(DataError, match=r"at least 2 validation samples.*or test=\(x, y\)\. Received: 1"):
        halves(LabelledSamples(X[:1], np.arange(1)))
