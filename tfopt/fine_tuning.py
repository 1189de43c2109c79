"""Quantization-aware fine-tuning with sensible defaults, for when post-training int8 loses too much."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfopt.callbacks import LearningRate, PreserveCompression
from tfopt.errors import ConfigError
from tfopt.quantization import quantize_aware
from tfopt.recipe import FineTuning
from tfopt.schedules import cosine, warmup

__all__ = ["default_loss", "fine_tune"]


def fine_tune(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    *,
    settings: FineTuning,
    calibration_samples: int = 256,
    loss: Any = None,
    verbose: int = 0,
) -> keras.Model:
    """Returns a quantize-aware copy of a trained model, fine-tuned on its training data.

    What is compressed in the model stays so: zeros of pruned kernels, and values that weights share.

    Args:
        model: the trained float model; left as it is.
        x: training samples of shape `(n, ...)`.
        y: their targets.
        settings: epochs, peak learning rate and batch size.
        calibration_samples: samples that the activation ranges start from.
        loss: what Keras's `compile` takes; by default `default_loss`.
        verbose: as in Keras's `fit`.

    Raises:
        ModelError: if the model cannot be made quantize-aware.
        ConfigError: if no loss is given and none can be told from the targets.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> x, y = np.ones((4, 2), "float32"), np.ones(4, "float32")
        >>> aware = fine_tune(model, x, y, settings=FineTuning(epochs=1))
        >>> aware.count_params() > model.count_params()  # it has ranges too
        True
    """
    aware = quantize_aware(model, calibration=x, calibration_samples=calibration_samples)
    steps = settings.epochs * -(-len(x) // settings.batch_size)
    rising = max(1, steps // 10)
    schedule = warmup(cosine(settings.learning_rate, steps=max(1, steps - rising)), steps=rising)
    aware.compile(keras.optimizers.Adam(settings.learning_rate), loss or default_loss(model, x, y))
    aware.fit(
        x,
        y,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        callbacks=[LearningRate(schedule), PreserveCompression()],
        verbose=verbose,
    )
    return aware


def default_loss(model: keras.Model, x: np.ndarray, y: np.ndarray) -> keras.losses.Loss:
    """The loss that fits the targets: cross-entropy for class numbers and one-hot rows, else squared error.

    Whether the outputs are probabilities or logits is seen on a few samples.

    Raises:
        ConfigError: if the model has several outputs, whose losses and weights only the user knows.
    """
    if len(model.outputs) != 1:
        raise ConfigError(
            f"optimize: the model has {len(model.outputs)} outputs; pass loss=... as Keras's compile takes it."
        )
    outputs = np.asarray(model.predict(x[:64], verbose=0))
    are_probabilities = bool(np.all((outputs >= 0) & (outputs <= 1)))
    if outputs.shape[-1] == 1:
        if np.all(np.isin(y, (0, 1))) and (are_probabilities or np.issubdtype(y.dtype, np.integer)):
            return keras.losses.BinaryCrossentropy(from_logits=not are_probabilities)
        return keras.losses.MeanSquaredError()
    are_probabilities &= bool(np.allclose(outputs.sum(axis=-1), 1, atol=1e-3))
    if np.issubdtype(y.dtype, np.integer) and y.shape[1:] in (outputs.shape[1:-1], (*outputs.shape[1:-1], 1)):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=not are_probabilities)
    if y.shape == outputs.shape and np.all(np.isin(y, (0, 1))) and np.all(y.sum(axis=-1) == 1):
        return keras.losses.CategoricalCrossentropy(from_logits=not are_probabilities)
    return keras.losses.MeanSquaredError()
