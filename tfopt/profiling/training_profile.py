"""Which layers and operations take the time of a training step, or of inference, by TensorFlow's profiler."""

from __future__ import annotations

from typing import Any

import keras

from tfopt.profiling.op_times import Profile, read_op_times
from tfopt.profiling.training_trial import check_compiled, left_as_it_was, training_arrays
from tfopt.schedules.arguments import check_steps
from tfopt.surgery.select import iterate_layers
from tfopt.trace import Event, Recording
from tfopt.training_batches import endless_batches

__all__ = ["profile"]

_STEPS_BEFORE = 3  # the first traces the graph, the others fill caches and the prefetch buffer


def profile(model: keras.Model, data: Any, *, training: bool = True, batch_size: int = 32, steps: int = 10) -> Profile:
    """Tells which layers and operations take the time of a step, as TensorFlow's profiler records them.

    Use it to see where a model's time goes before changing it. An operation belongs to the layer in whose name scope
    the graph has it; its gradient too. Steps run without XLA, which fuses operations of several layers, so a model
    that is compiled with `jit_compile` is faster than its profile.

    The operations are those that run on the processor. On a GPU they are the launches of its kernels: use
    TensorBoard's profiler there.

    The model is left as it was: weights, optimizer, metrics and random state.

    Args:
        model: built, and compiled as for the training.
        data: `(x, y)` or `(x, y, sample_weight)` of arrays of shape `(n, ...)`, or a tf.data.Dataset of batches of
            these; eight batches at most are used, over and over.
        training: whether training steps are recorded, or `predict`.
        batch_size: samples in a step.
        steps: that are recorded.

    Returns:
        The profile: print it, or read `ops` and `layers`.

    Raises:
        ConfigError: if an argument is out of range, or something else is using the profiler.
        ModelError: if the model is not built or not compiled.
        DataError: if the data does not fit the model.

    Example:
        >>> import numpy as np
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="hidden")])
        >>> model.compile("sgd", "mse")
        >>> report = profile(model, (np.ones((32, 8)), np.ones((32, 4))), steps=2)
        >>> "hidden" in [name for name, _ in report.layers]
        True

    References: https://www.tensorflow.org/guide/profiler
    """
    check_compiled(model, verb="profile")
    check_steps("profile: batch_size", batch_size, minimum=1)
    check_steps("profile: steps", steps, minimum=1)
    arrays = training_arrays(data, model, limit=8 * batch_size)
    batches = endless_batches(arrays, min(batch_size, len(keras.tree.flatten(arrays)[0])))
    recorder = _Recorder(_STEPS_BEFORE, steps)
    Recording.discard()
    try:
        with left_as_it_was(model):
            executions = _STEPS_BEFORE + steps
            model.jit_compile = False
            model.train_function = model.predict_function = None  # those of before may be compiled by XLA
            every = model.steps_per_execution
            if training:
                model.fit(batches, steps_per_epoch=executions * every, shuffle=False, verbose=0, callbacks=[recorder])
            else:
                inputs = batches.map(lambda x, *_: x)
                model.predict(inputs, steps=executions * every, verbose=0, callbacks=[recorder])
    finally:
        Recording.discard()
    layers = [layer.name for layer in iterate_layers(model)]
    ops = read_op_times(recorder.events, layers=layers, optimizer=model.optimizer.name, steps=steps * every)
    return Profile(tuple(ops), training=training, batch_size=batch_size, steps=steps * every)


class _Recorder(keras.callbacks.Callback):
    """Records what runs from the end of one execution to the end of a later one."""

    def __init__(self, before: int, executions: int) -> None:
        super().__init__()
        self.before, self.executions = before, executions
        self.events: list[Event] = []
        self._recording, self._done = Recording(), 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._done += 1
        if self._done == self.before:
            self._recording.start()
        elif self._done == self.before + self.executions:
            self.events = self._recording.stop()

    on_predict_batch_end = on_train_batch_end
