"""Batches whose epochs end when their last step does."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

__all__ = ["untuned_batches"]

PREFETCHED_BATCHES = 2


def untuned_batches(x: Any, y: np.ndarray, batch_size: int) -> tf.data.Dataset:
    """What `fit` makes of arrays, shuffled in each epoch, but without the thread of tf.data that tunes a dataset.

    When a dataset ends, TensorFlow 2.21 cancels that thread, which wakes before the flag is set that it looks at, and
    waits on. It next wakes after 10 ms, 30 ms, 70 ms, ... since the epoch began, so that an epoch may take up to twice
    as long as its steps.

    Args:
        x: an array or a structure of arrays of shape `(n, ...)`.
        y: their targets.
        batch_size: samples in a step.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(keras.tree.flatten(x)[0]))
    return dataset.batch(batch_size).prefetch(PREFETCHED_BATCHES).with_options(options)
