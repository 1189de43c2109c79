"""Batches of arrays for a training, without the thread of tf.data that tunes a dataset.

When a dataset ends, TensorFlow 2.21 cancels that thread, which may wake before the flag is set that it looks at, and
then waits on: it next wakes 10, 30, 70, 150, ... ms after the dataset began, so that some epochs take up to twice as
long as their steps (benchmarks/epoch_end.py). It also goes on for as long as the iterator of an endless dataset lives.
Gathering rows leaves nothing to tune.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

__all__ = ["endless_batches", "epoch_batches"]

_PREFETCHED = 2


def epoch_batches(arrays: Any, batch_size: int) -> tf.data.Dataset:
    """What `fit` makes of arrays: all samples, in another order in each epoch.

    Args:
        arrays: a structure of arrays of shape `(n, ...)`, such as `(x, y)`; lists in it become tuples.
        batch_size: samples in a step; the last batch of an epoch may have fewer.

    Example:
        >>> import numpy as np
        >>> x = np.arange(10)
        >>> sorted(int(value) for xs, ys in epoch_batches((x, 2 * x), 4) for value in ys) == sorted(2 * x)
        True
    """
    tensors = keras.tree.map_structure(tf.convert_to_tensor, keras.tree.lists_to_tuples(arrays))

    def batch(rows: tf.Tensor) -> Any:
        return keras.tree.map_structure(lambda tensor: tf.gather(tensor, rows), tensors)

    samples = len(keras.tree.flatten(tensors)[0])
    return _untuned(tf.data.Dataset.range(samples).shuffle(samples).batch(batch_size).map(batch))


def endless_batches(arrays: tuple[Any, ...], batch_size: int) -> tf.data.Dataset:
    """The samples in their order, without end; a rest that fills no batch is left out.

    The length of a batch is unknown to the graph, as it is in a fit on data with a smaller last batch: one trace of a
    training step serves all sizes.

    Args:
        arrays: a structure of arrays of shape `(n, ...)`.
        batch_size: samples in a step, at most n.

    Example:
        >>> import numpy as np
        >>> [len(xs) for xs, ys in endless_batches((np.zeros(10), np.zeros(10)), 4).take(3)]
        [4, 4, 4]
    """
    tensors = keras.tree.map_structure(tf.convert_to_tensor, arrays)

    def batch(index: tf.Tensor) -> Any:
        return keras.tree.map_structure(lambda tensor: tensor[index * batch_size : (index + 1) * batch_size], tensors)

    samples = len(keras.tree.flatten(tensors)[0])
    return _untuned(tf.data.Dataset.range(samples // batch_size).repeat().map(batch))


def _untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.prefetch(_PREFETCHED).with_options(options)
