"""A student that learns from teachers inside `fit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import keras
import tensorflow as tf
from keras import ops

from tfopt.distillation.comparisons import Comparisons, checked_losses
from tfopt.distillation.fixed_data import WithTeacher, has_answers
from tfopt.distillation.loss_means import LossMeans
from tfopt.distillation.loss_weights import COMPILED_LOSS, LossWeights
from tfopt.distillation.losses import DistillationLoss
from tfopt.distillation.teacher_cache import TeacherCache
from tfopt.distillation.teachers import Teachers
from tfopt.errors import ConfigError
from tfopt.surgery.model import check_model

__all__ = ["Distiller"]


class Distiller(keras.Model):
    """Trains a model on the answers of another, larger one, beside the labels.

    Compile and fit it like the student alone, with the student's loss and metrics; then use `distiller.student`, the
    model that was given, trained. What is minimized is

        weight("student") * the compiled loss + sum(weight(name) * loss) + the student's penalties

    where penalties are regularizers and `add_loss`. The compiled loss may be left out: then only the teacher is
    followed. Sample and class weights and the masks of padded steps count in every loss. Each step runs the student
    once and each teacher once, at inference. `evaluate`, `predict` and validation are the student's own: no teacher
    runs, and the loss is the compiled one with the penalties.

    The student may be quantize-aware, and callbacks that prune, freeze or stop see the student and not the teachers.
    The student may end in a softmax, and so may a teacher: the logits before it are compared. The training follows the
    student's dtype policy and `tf.distribute` strategy. For self-distillation give a trained copy of the student, of
    the same architecture, as the teacher.

    A `Distiller` is not saved as a model; save `distiller.student`. Checkpoints of weights work, and hold the student
    and its projectors.

    Args:
        student: the model to train, built; with feature losses a Functional or Sequential model.
        teacher: a trained model that takes the same inputs, or a list of them. It is not changed.
        losses: a distillation loss or a list of them; by default `LogitsLoss()`.
        loss_weights: the weight of each loss by its name, and of the compiled loss as "student"; those not named have
            1. `tfopt.callbacks.DistillationSchedule` changes them while the training goes on.
        teacher_weights: the share of each teacher, scaled to a sum of 1; by default alike.
        cache: a folder for the teachers' answers to the training data, computed once, before the first epoch of the
            first fit. The data must be arrays, or a dataset of a fixed order (see `attach_answers`). The folder is
            refused for other data and other teachers.
        name: the model's name.

    Attributes:
        student: the student.
        projectors: the layers between the student's features and the teachers', trained along.

    Raises:
        ConfigError: if losses or weights cannot be used, or a loss does not fit the models.
        ModelError: if a model is not a built Keras 3 model of finite weights, a teacher takes other inputs than the
            student, or shares weights with it.

    Example:
        >>> import numpy as np
        >>> def classifier(units):
        ...     return keras.Sequential(
        ...         [keras.Input((4,)), keras.layers.Dense(units, activation="relu"), keras.layers.Dense(3)]
        ...     )
        >>> distiller = Distiller(classifier(2), teacher=classifier(16))
        >>> distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> x, y = np.random.default_rng(0).normal(size=(32, 4)), np.arange(32) % 3
        >>> history = distiller.fit(x, y, verbose=0)
        >>> sorted(history.history)
        ['logits_loss', 'loss', 'student_loss']
        >>> distiller.student.count_params()
        19

    References: Hinton et al. 2015, arXiv:1503.02531; Furlanello et al. 2018 (born-again networks), arXiv:1805.04770.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model | Sequence[keras.Model],
        losses: DistillationLoss | Sequence[DistillationLoss] | None = None,
        *,
        loss_weights: Mapping[str, float] | None = None,
        teacher_weights: Sequence[float] | None = None,
        cache: str | Path | None = None,
        name: str = "distiller",
    ) -> None:
        check_model(student)
        losses = checked_losses(losses)
        with student.distribute_strategy.scope():
            super().__init__(name=name, dtype=student.dtype_policy, autocast=False)
            self.student = student
            self._teachers = Teachers(teacher, student, losses, teacher_weights)
            self._comparisons = Comparisons(student, self._teachers, losses)
            self.projectors = self._comparisons.projectors
            self._loss_weights = LossWeights(loss_weights, [loss.name for loss in losses])
            self._loss_means = LossMeans(list(self._loss_weights.variables))
        self._cache = None if cache is None else TeacherCache(cache, self._teachers)
        self.built = True

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weight of each loss by its name, now."""
        return self._loss_weights.as_numbers()

    def set_loss_weight(self, name: str, value: float) -> None:
        """Gives a loss another weight from the next step on.

        Args:
            name: the name of the loss, or "student" for the compiled one.
            value: a finite number of at least 0.

        Raises:
            ConfigError: if there is no such loss, or the value cannot be used.
        """
        self._loss_weights.set(name, value)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Runs the student.

        Returns:
            Its output; in training, with the features that are compared beside it.
        """
        if isinstance(inputs, WithTeacher):
            inputs = inputs.inputs
        return _StudentOutputs(*self._comparisons.tapped(inputs)) if training else self.student(inputs)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The sum that is minimized; outside of training the student's own loss."""
        if not isinstance(y_pred, _StudentOutputs):
            if self.loss is None:
                raise ConfigError(
                    "Distiller: validation and evaluate measure the student on labels. Received: no loss. "
                    "Pass loss=... to compile(), with loss_weights={'student': 0} if it is not to be trained on."
                )
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        penalty = sum((ops.sum(ops.cast(loss, "float32")) for loss in self.losses), ops.zeros(())) / replicas
        values = dict.fromkeys(self._loss_weights.variables, ops.zeros(()))
        if self.loss is not None:
            values[COMPILED_LOSS] = super().compute_loss(x, y, y_pred.prediction, sample_weight, training) - penalty
        answers = x.answers if isinstance(x, WithTeacher) else self._teachers.features(x)
        values |= self._comparisons.values(y_pred.features, answers, y, sample_weight)
        samples = ops.shape(keras.tree.flatten(y_pred.prediction)[0])[0]
        # A replica's loss is divided by their number, since the optimizer adds them up.
        self._loss_means.update_state({name: value * replicas for name, value in values.items()}, samples)
        return penalty + sum(weight * values[name] for name, weight in self._loss_weights.variables.items())

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """The compiled metrics, of the student's output."""
        if isinstance(y_pred, _StudentOutputs):
            y_pred = y_pred.prediction
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Measures the student; what only training computes is left out."""
        return {name: value for name, value in super().test_step(data).items() if name not in self._loss_means.logged}

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Trains the student, as `keras.Model.fit`; with a cache, on the teachers' stored answers."""
        if self._cache is not None:
            x = self.attach_answers(x)
        return super().fit(x, y, *args, **kwargs)

    def attach_answers(self, data: Any) -> Any:
        """Puts the cached answers of the teachers beside samples, as `fit` takes them; `fit` does it by itself.

        Call it to shuffle or batch a tf.data.Dataset anew once the answers are there:
        `distiller.fit(distiller.attach_answers(dataset).shuffle(100))`. Augmented samples get the answers to the
        samples that were attached.

        Args:
            data: arrays of samples, or a finite tf.data.Dataset that yields the same batches at every pass.

        Returns:
            The samples with the answers: arrays or a dataset. What has answers already is returned as it is.

        Raises:
            ConfigError: if there is no cache, or the data is of another kind.
            DataError: if the cache belongs to other data or other teachers, or a dataset yields something else each
                time.
        """
        if self._cache is None:
            raise ConfigError("Distiller: there is no cache to take answers from. Pass cache=FOLDER to the Distiller.")
        return data if has_answers(data) else self._cache.attach(data)

    def get_config(self) -> NoReturn:
        """Refused: a Distiller is not saved.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "A Distiller is not saved as a model. Save distiller.student, or the weights with save_weights."
        )

    def save(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused, as `get_config` is.

        Raises:
            ConfigError: always.
        """
        self.get_config()


class _StudentOutputs(NamedTuple):
    """What the student gives in training; `fit` hands it from `call` to `compute_loss` as the predictions."""

    prediction: Any
    features: list[Any]
