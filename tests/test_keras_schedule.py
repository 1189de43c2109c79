"""Schedules as Keras's optimizers take them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt import schedules
from tfopt.errors import ConfigError

SCHEDULES = {
    "constant": schedules.constant(0.1),
    "polynomial": schedules.polynomial(0.1, 0.9, begin_step=5, end_step=40),
    "jump": schedules.polynomial(0.1, 0.9, begin_step=5, end_step=5),
    "cosine": schedules.cosine(0.1, steps=30, final=0.01),
    "exponential": schedules.exponential(1e-6, steps=50, final=1.0),
    "step_decay": schedules.step_decay(0.8, factor=0.5, every_steps=7),
    "one_cycle": schedules.one_cycle(0.1, steps=50),
    "cosine_restarts": schedules.cosine_restarts(0.1, steps=9, restarts=2),
    "warmup_stable_decay": schedules.warmup_stable_decay(0.1, warmup_steps=5, stable_steps=20, decay_steps=10),
    "composed": schedules.warmup(
        schedules.sequence([(schedules.step_decay(0.4, factor=0.1, every_steps=3), 10)], then=schedules.constant(0.2)),
        steps=5,
        start=1.0,
    ),
}


@pytest.mark.parametrize("jit_compile", [False, True])
def test_it_computes_in_tensors_what_the_schedule_computes_in_numbers(jit_compile):
    in_keras = [schedules.as_keras(schedule) for schedule in SCHEDULES.values()]
    compiled = tf.function(lambda step: [rate(step) for rate in in_keras], jit_compile=jit_compile)
    for step in range(80):
        received = compiled(tf.constant(step, tf.int64))
        assert all(value.dtype == tf.float32 and value.shape == () for value in received)
        expected = [schedule(step) for schedule in SCHEDULES.values()]
        # float32 holds 7 digits; near zero what counts is the largest value.
        np.testing.assert_allclose(received, expected, rtol=2e-6, atol=2e-7, err_msg=f"step {step}")


def compiled_model(schedule, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(schedules.as_keras(schedule), momentum=0.9), "mse", **options)
    return model


@pytest.mark.slow
def test_it_works_in_the_compiled_step_and_is_saved_with_the_model(tmp_path):
    schedule = SCHEDULES["composed"]
    x, y = np.ones((24, 2), np.float32), np.ones(24, np.float32)
    once, thrice = compiled_model(schedule), compiled_model(schedule, steps_per_execution=3)
    for model in (once, thrice):
        model.fit(x, y, batch_size=2, verbose=0)
    np.testing.assert_allclose(once.get_weights()[0], thrice.get_weights()[0], rtol=1e-6)
    once.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert int(again.optimizer.iterations) == 12
    assert float(again.optimizer.learning_rate) == pytest.approx(schedule(12))
    for model in (once, again):
        model.fit(x, y, batch_size=2, shuffle=False, verbose=0)
    assert np.array_equal(once.get_weights()[0], again.get_weights()[0])


def test_the_optimizer_applies_the_rate_of_its_step():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    decay = schedules.step_decay(0.2, factor=0.5, every_steps=1)
    model.compile(keras.optimizers.SGD(schedules.as_keras(decay)), "mse", jit_compile=True)
    model.set_weights([np.ones((1, 1), np.float32)])
    model.fit(np.ones((3, 1)), np.zeros(3), batch_size=1, verbose=0)
    expected = np.prod([1 - 2 * rate for rate in (0.2, 0.1, 0.05)])  # the gradient of w**2 is 2w
    assert model.get_weights()[0].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (lambda step: 0.1, "as_keras: schedule must be made by .* Received: <function"),
        (0.1, "Received: 0.1"),
        (schedules.warmup(lambda step: 0.1, 3), "written down .* Received: one with <function"),
    ],
    ids=["function", "number", "part"],
)
def test_what_keras_could_not_save_is_refused(schedule, message):
    with pytest.raises(ConfigError, match=message):
        schedules.as_keras(schedule)
