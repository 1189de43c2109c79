"""Data of a search, as arrays or as a dataset."""

import numpy as np
import pytest
import tensorflow as tf

from tfopt.errors import DataError
from tfopt.tuning.fit_data import check_fit_data, fit_arguments, some_samples

X, Y = np.arange(20).reshape(10, 2), np.arange(10)


def test_some_samples_of_arrays_are_evenly_spaced() -> None:
    x, y = some_samples((X, Y), 4)
    np.testing.assert_array_equal(y, [0, 3, 6, 9])
    np.testing.assert_array_equal(x, X[y])
    x, y = some_samples(({"a": X, "b": X + 1}, Y), 100)
    np.testing.assert_array_equal(x["b"], X + 1)


def test_some_samples_of_a_dataset_are_the_first() -> None:
    x, y = some_samples(tf.data.Dataset.from_tensor_slices((X, Y)).batch(3), 4)
    np.testing.assert_array_equal(y, [0, 1, 2, 3])
    np.testing.assert_array_equal(x, X[:4])
    assert len(some_samples(tf.data.Dataset.from_tensor_slices((X, Y)).batch(3), 100)[1]) == 10


def test_what_gives_no_pairs_is_refused() -> None:
    with pytest.raises(DataError, match=r"must give batches \(x, y\)"):
        some_samples(tf.data.Dataset.from_tensor_slices(X).batch(3), 4)
    with pytest.raises(DataError, match="is empty"):
        some_samples((X[:0], Y[:0]), 4)
    with pytest.raises(DataError, match=r"compress: validation must be a tuple \(x, y\).*Received: ndarray"):
        check_fit_data("compress", (X, Y), X)


def test_fit_takes_a_dataset_as_it_is() -> None:
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(3)
    assert "batch_size" not in fit_arguments(dataset, (X, Y), 32)
    assert fit_arguments((X, Y), (X, Y), 16)["batch_size"] == 16
