import keras
import numpy as np
import pytest

from tfopt.callbacks.training_clock import TrainingClock
from tfopt.errors import ConfigError


class Recorder(keras.callbacks.Callback):
    """Notes the clock before every batch, as a callback of the package uses it."""

    def __init__(self):
        super().__init__()
        self.steps = []
        self.clock = None

    def on_train_begin(self, logs=None):
        self.clock = None

    def on_epoch_begin(self, epoch, logs=None):
        if self.clock is None:
            self.clock = TrainingClock(self.model.optimizer, epoch=epoch, steps_per_epoch=self.params["steps"])

    def on_train_batch_begin(self, batch, logs=None):
        self.steps.append(self.clock.step)


def steps_of_fit(model, **fit):
    recorder = Recorder()
    model.fit(np.ones((6, 2)), np.ones(6), batch_size=1, verbose=0, callbacks=[recorder], **fit)
    return recorder.steps


def compiled(optimizer, **compile_options):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse", **compile_options)
    return model


def test_every_fit_starts_at_step_0():
    model = compiled("sgd")
    assert steps_of_fit(model) == list(range(6))
    assert steps_of_fit(model, epochs=2) == list(range(12))
    assert int(model.optimizer.iterations) == 18


@pytest.mark.slow
def test_a_resumed_fit_goes_on_where_it_stopped():
    model = compiled("sgd")
    steps_of_fit(model, epochs=2)
    assert steps_of_fit(model, initial_epoch=2, epochs=3) == list(range(12, 18))
    # A model loaded without the optimizer's state stands there as well.
    assert steps_of_fit(compiled("sgd"), initial_epoch=2, epochs=3) == list(range(12, 18))


@pytest.mark.slow
def test_gradient_accumulation_counts_updates():
    optimizer = keras.optimizers.SGD(gradient_accumulation_steps=4)
    model = compiled(optimizer)
    assert steps_of_fit(model, epochs=2) == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    again = compiled(keras.optimizers.SGD(gradient_accumulation_steps=4))
    steps_of_fit(again, epochs=1)
    assert steps_of_fit(again, initial_epoch=1, epochs=2) == [1, 1, 2, 2, 2, 2]


def test_loss_scaling_and_accumulation_inside_it():
    inner = keras.optimizers.SGD(gradient_accumulation_steps=2)
    model = compiled(keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0))
    assert steps_of_fit(model) == [0, 0, 1, 1, 2, 2]
    assert steps_of_fit(model, initial_epoch=1, epochs=2) == [3, 3, 4, 4, 5, 5]


def test_unknown_epoch_length_is_refused_only_where_it_matters():
    optimizer = keras.optimizers.SGD()
    assert TrainingClock(optimizer, epoch=0, steps_per_epoch=None).step == 0
    with pytest.raises(ConfigError, match=r"start of epoch 3: .* Received: steps_per_epoch=None .* Pass"):
        TrainingClock(optimizer, epoch=3, steps_per_epoch=None)
