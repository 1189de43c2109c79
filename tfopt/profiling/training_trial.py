"""A few training steps to measure something, after which the model is as before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfopt.data import check_samples
from tfopt.errors import DataError, ModelError
from tfopt.surgery.model import check_model

__all__ = ["check_compiled", "left_as_it_was", "time_steps", "training_arrays"]

_ATTRIBUTES = ("jit_compile", "train_function", "predict_function", "history", "stop_training")

UNRECORDED_STEPS = 2
"""After the first step, which traces the graph: they fill the prefetch buffer and the allocator's pools."""


def check_compiled(model: object, *, verb: str) -> keras.Model:
    """Returns the model if it can be trained.

    Raises:
        ModelError: if it is no built Keras 3 model with finite weights, or is not compiled.
    """
    checked = check_model(model)
    if not checked.compiled:
        raise ModelError(
            f"{verb}: the model must be compiled as for the training. Received: '{checked.name}', which is not. "
            "Call model.compile(optimizer, loss) first."
        )
    return checked


@contextmanager
def left_as_it_was(model: keras.Model) -> Iterator[None]:
    """Gives weights, optimizer, metrics, random state and the compiled step back when the block ends, or fails.

    An optimizer that had not been built has its variables afterwards, all at their initial values.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> before = model.get_weights()[0]
        >>> with left_as_it_was(model):
        ...     history = model.fit(np.ones((4, 2)), np.ones(4), verbose=0)
        >>> bool(np.array_equal(before, model.get_weights()[0]))
        True
    """
    if not model.optimizer.built:
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
    variables = {
        id(variable): variable for variable in (*model.variables, *model.metrics_variables, *model.optimizer.variables)
    }
    values = [keras.ops.convert_to_numpy(variable) for variable in variables.values()]
    attributes = {name: getattr(model, name, None) for name in _ATTRIBUTES}
    try:
        yield
    finally:
        model.reset_metrics()  # those that came into being meanwhile
        for variable, value in zip(variables.values(), values, strict=True):
            variable.assign(value)
        for name, value in attributes.items():
            setattr(model, name, value)


def training_arrays(data: Any, model: keras.Model, *, limit: int) -> tuple[Any, ...]:
    """Returns `(x, y)` or `(x, y, sample_weight)`, each an array or a structure of arrays of shape `(n, ...)`.

    Args:
        data: such a tuple, or a tf.data.Dataset of batches of such tuples.
        model: the model whose inputs x must fit.
        limit: at most this many samples are taken, the first ones.

    Raises:
        DataError: if it is neither, is empty, does not fit the inputs, or the lengths differ.
    """
    parts = _first_batches(data, limit) if isinstance(data, tf.data.Dataset) else data
    if not isinstance(parts, (tuple, list)) or len(parts) not in (2, 3):
        raise DataError(
            "training data must be (x, y) or (x, y, sample_weight), or a tf.data.Dataset of batches of these. "
            f"Received: {_described(parts)}."
        )
    x, *rest = parts
    try:
        # Lists become tuples: a tf.data.Dataset would take a list for one tensor.
        targets = [keras.tree.map_structure(np.asarray, _lists_to_tuples(part)) for part in rest]
    except ValueError as error:  # ragged
        raise DataError(f"training targets must be arrays of one shape for each sample. Received: {error}.") from None
    if not getattr(model, "inputs", None):
        raise DataError(
            f"training data can be checked against a model with inputs only. Received: '{model.name}', a model without "
            "keras.Input. Build it with the functional API."
        )
    inputs = check_samples(x, model.inputs, what="training")
    lengths = {len(array) if array.ndim else 0 for array in keras.tree.flatten((inputs, targets))}
    if len(lengths) > 1:
        raise DataError(f"training data must have as many targets as samples. Received: {sorted(lengths)}.")
    features = tuple(inputs) if len(inputs) > 1 else inputs[0]
    return keras.tree.map_structure(lambda array: array[:limit], (features, *targets))


def time_steps(model: keras.Model, batches: tf.data.Dataset, *, seconds: float, min_steps: int = 3) -> np.ndarray:
    """Seconds of each recorded training step: executions of `fit`, divided by `steps_per_execution`.

    Args:
        model: compiled; it is trained, so call this within `left_as_it_was`.
        batches: an endless dataset.
        seconds: recording ends once the steps took so long together.
        min_steps: but not before so many executions.
    """
    clock = _StepClock(seconds, min_steps)
    model.fit(batches, steps_per_epoch=_ENDLESS, shuffle=False, verbose=0, callbacks=[clock])
    return np.array(clock.recorded) / model.steps_per_execution


_ENDLESS = 1_000_000_000


class _StepClock(keras.callbacks.Callback):
    """Times from the end of a step to the end of the next, and ends the fit when that is enough.

    Since it reads the logs of every step, Keras waits for the step to end, on a GPU too.
    """

    def __init__(self, seconds: float, min_steps: int) -> None:
        super().__init__()
        self.seconds, self.min_steps = seconds, min_steps
        self.recorded: list[float] = []
        self._steps, self._last = 0, 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        now = time.perf_counter()
        self._steps += 1
        if self._steps > 1 + UNRECORDED_STEPS:
            self.recorded.append(now - self._last)
            if len(self.recorded) >= self.min_steps and sum(self.recorded) >= self.seconds:
                self.model.stop_training = True
        self._last = time.perf_counter()


def _first_batches(dataset: tf.data.Dataset, limit: int) -> Any:
    elements: list[Any] = []
    taken = 0
    for element in dataset.as_numpy_iterator():
        elements.append(element)
        taken += len(keras.tree.flatten(element)[0])
        if taken >= limit:
            break
    if not elements:
        raise DataError("training data is an empty tf.data.Dataset: give at least one batch.")
    try:
        return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *elements)
    except ValueError as error:
        raise DataError(f"training data must have batches of samples of one shape. Received: {error}.") from None


def _lists_to_tuples(value: Any) -> Any:
    if isinstance(value, list) and value and not np.isscalar(value[0]):
        return tuple(_lists_to_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _lists_to_tuples(item) for key, item in value.items()}
    return np.asarray(value) if isinstance(value, list) else value


def _described(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
