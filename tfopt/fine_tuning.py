"""Training after a model was changed, with sensible defaults: for fewer channels, or for int8."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfopt.callbacks import LearningRate, PreserveCompression
from tfopt.distillation import Distiller
from tfopt.errors import ConfigError
from tfopt.quantization import quantize_aware
from tfopt.recipe import FineTuning, Quantization
from tfopt.schedules import cosine, warmup
from tfopt.training_batches import epoch_batches

__all__ = ["are_classes", "default_loss", "fine_tune", "fine_tune_quantized", "steps_of"]


def fine_tune(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    *,
    settings: FineTuning,
    teacher: keras.Model | None = None,
    loss: Any = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 0,
) -> None:
    """Trains a changed model on the data it comes from, to win back what the change cost.

    What is compressed in the model stays so: zeros of pruned kernels, and values that weights share.

    Args:
        model: the model, which is trained.
        x: training samples of shape `(n, ...)`.
        y: their targets.
        settings: epochs, peak learning rate and batch size, and whether the teacher is followed.
        teacher: the model before the change. Only classifiers with a score for each class follow it.
        loss: what Keras's `compile` takes; by default `default_loss`.
        callbacks: further ones of the fit.
        verbose: as in Keras's `fit`.

    Raises:
        ConfigError: if no loss is given and none can be told from the targets.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> before = model.get_weights()[0]
        >>> fine_tune(model, np.ones((4, 2), "float32"), np.ones(4, "float32"), settings=FineTuning(epochs=2))
        >>> np.array_equal(model.get_weights()[0], before)
        False
    """
    steps = steps_of(settings, x)
    rising = steps // 10
    schedule = cosine(settings.learning_rate, steps=steps - rising)
    if rising:  # a warmup begins at zero, and a training of few steps has none to lose
        schedule = warmup(schedule, steps=rising)
    with tempfile.TemporaryDirectory(prefix="tfopt-teacher-") as answers:
        follows = settings.distillation and teacher is not None and are_classes(teacher, x, y)
        trained = Distiller(model, teacher, cache=answers) if follows else model
        trained.compile(keras.optimizers.Adam(settings.learning_rate), loss or default_loss(model, x, y))
        samples = trained.attach_answers(x) if follows else x
        trained.fit(
            epoch_batches((samples, y), settings.batch_size),
            shuffle=False,  # they are shuffled
            epochs=settings.epochs,
            callbacks=[LearningRate(schedule), PreserveCompression(), *callbacks],
            verbose=verbose,
        )


def fine_tune_quantized(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    *,
    settings: FineTuning,
    calibration_samples: int = 256,
    layers: Mapping[str, Quantization] | None = None,
    teacher: keras.Model | None = None,
    loss: Any = None,
    verbose: int = 0,
) -> keras.Model:
    """Returns a quantize-aware copy of a trained model, fine-tuned as `fine_tune` does.

    Args:
        model: the trained float model; left as it is.
        x: training samples of shape `(n, ...)`.
        y: their targets.
        settings: epochs, peak learning rate and batch size, and whether the teacher is followed.
        calibration_samples: samples that the activation ranges start from.
        layers: other modes than int8 for some layers, as `quantize_aware` takes them.
        teacher: the float model to follow.
        loss: what Keras's `compile` takes; by default `default_loss`.
        verbose: as in Keras's `fit`.

    Raises:
        ModelError: if the model cannot be made quantize-aware.
        ConfigError: if no loss is given and none can be told from the targets.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> x, y = np.ones((4, 2), "float32"), np.ones(4, "float32")
        >>> aware = fine_tune_quantized(model, x, y, settings=FineTuning(epochs=1))
        >>> aware.count_params() > model.count_params()  # it has ranges too
        True
    """
    aware = quantize_aware(model, calibration=x, calibration_samples=calibration_samples, layers=layers)
    fine_tune(aware, x, y, settings=settings, teacher=teacher, loss=loss, verbose=verbose)
    return aware


def steps_of(settings: FineTuning, x: Any) -> int:
    """How many steps the training takes."""
    return settings.epochs * -(-len(keras.tree.flatten(x)[0]) // settings.batch_size)


def are_classes(model: keras.Model, x: np.ndarray, y: np.ndarray) -> bool:
    """Whether the targets are classes of which the model's only output has a score each."""
    crossentropies = (keras.losses.SparseCategoricalCrossentropy, keras.losses.CategoricalCrossentropy)
    return len(model.outputs) == 1 and isinstance(default_loss(model, x, y), crossentropies)


def default_loss(model: keras.Model, x: np.ndarray, y: np.ndarray) -> keras.losses.Loss:
    """The loss that fits the targets: cross-entropy for class numbers and one-hot rows, else squared error.

    Whether the outputs are probabilities or logits is seen on a few samples.

    Raises:
        ConfigError: if the model has several outputs, whose losses and weights only the user knows.
    """
    if len(model.outputs) != 1:
        raise ConfigError(
            f"The model '{model.name}' has {len(model.outputs)} outputs; pass loss=... as Keras's compile takes it."
        )
    some = keras.tree.map_structure(lambda array: array[:64], x)
    outputs = np.asarray(model.predict(some, verbose=0))
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
