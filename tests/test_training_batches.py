"""Batches of arrays: which samples, in which order and form; and epochs that end with their last step."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt.distillation.fixed_data import WithTeacher
from tfopt.training_batches import endless_batches, epoch_batches

X = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
Y = np.arange(64)


def places(dataset: tf.data.Dataset) -> list[list[int]]:
    return [y.numpy().tolist() for _, y in dataset]


def test_an_epoch_has_every_sample_once_in_another_order() -> None:
    keras.utils.set_random_seed(0)
    dataset = epoch_batches((X, Y), 24)
    first, second = places(dataset), places(dataset)
    assert [len(batch) for batch in first] == [24, 24, 16]
    assert sorted(np.concatenate(first)) == sorted(np.concatenate(second)) == Y.tolist()
    assert first != second
    assert first != [Y[:24].tolist(), Y[24:48].tolist(), Y[48:].tolist()]
    for x, y in dataset:
        np.testing.assert_array_equal(x, X[y.numpy()])


def test_the_order_is_that_of_the_seed() -> None:
    def orders(seed: int) -> list[list[list[int]]]:
        keras.utils.set_random_seed(seed)
        dataset = epoch_batches((X, Y), 24)
        return [places(dataset), places(dataset)]

    assert orders(3) == orders(3) != orders(4)


def test_structures_stay_but_for_lists() -> None:
    samples = WithTeacher([X, {"wide": X[:, :2]}], ((X[:, 0],),))
    (found, target), *_ = epoch_batches((samples, Y), 64)
    assert isinstance(found, WithTeacher)
    assert isinstance(found.inputs, tuple)
    np.testing.assert_array_equal(found.inputs[1]["wide"], X[target.numpy(), :2])
    np.testing.assert_array_equal(found.answers[0][0], X[target.numpy(), 0])


def test_batches_go_round_and_leave_out_the_rest() -> None:
    taken = [x.numpy() for x, _ in endless_batches((X[:20], Y[:20]), 8).take(3)]
    np.testing.assert_array_equal(taken, [X[:8], X[8:16], X[:8]])
    assert endless_batches((X, Y), 8).element_spec == endless_batches((X, Y), 16).element_spec


@pytest.mark.parametrize("make", [epoch_batches, endless_batches])
def test_no_thread_tunes_them(make: Callable[..., tf.data.Dataset]) -> None:
    assert make((X, Y), 8).options().autotune.enabled is False
