import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt.callbacks import LearningRate
from tfopt.errors import ConfigError
from tfopt.schedules import constant, cosine, polynomial, warmup


class Rates(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(round(float(self.model.optimizer.learning_rate), 6))


def fit(schedule, optimizer="sgd", *, samples=6, steps_per_execution=1, epochs=1):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse", steps_per_execution=steps_per_execution)
    rates = Rates()
    history = model.fit(
        np.ones((samples, 2)),
        np.ones(samples),
        batch_size=1,
        epochs=epochs,
        verbose=0,
        callbacks=[LearningRate(schedule), rates],
    )
    return rates.seen, history.history


def test_every_step_has_its_rate_and_the_last_one_is_logged():
    seen, history = fit(lambda step: (step + 1) / 100, epochs=2)
    assert seen == [step / 100 for step in range(1, 13)]
    assert history["learning_rate"] == pytest.approx([0.06, 0.12])


def test_the_rate_is_what_the_optimizer_applies():
    x, y = np.ones((3, 1), np.float32), np.zeros(3, np.float32)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile("sgd", "mse")
    model.set_weights([np.ones((1, 1), np.float32)])
    rates = [0.1, 0.0, 0.3]
    model.fit(x, y, batch_size=1, verbose=0, callbacks=[LearningRate(lambda step: rates[step])])
    expected = np.prod([1 - 2 * rate for rate in rates])  # the gradient of w**2 is 2w
    assert model.get_weights()[0].item() == pytest.approx(expected, rel=1e-6)


def test_steps_per_execution_share_a_rate():
    seen, _ = fit(lambda step: (step + 1) / 100, steps_per_execution=3)
    assert seen == [0.01, 0.04]


def test_it_reaches_through_loss_scaling():
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=2.0)
    seen, history = fit(polynomial(0.6, 0.0, end_step=6, power=1), optimizer)
    assert seen == pytest.approx([0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert float(optimizer.inner_optimizer.learning_rate) == pytest.approx(0.1)
    assert history["learning_rate"] == pytest.approx([0.1])


def test_callbacks_after_it_see_the_rate_of_each_batch(tmp_path):
    logged = []
    note = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: logged.append(logs["learning_rate"]))
    board = keras.callbacks.TensorBoard(tmp_path, update_freq="batch", write_graph=False)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    rate = LearningRate(polynomial(0.5, 0.1, end_step=4, power=1))
    history = model.fit(
        np.ones((3, 2)), np.ones(3), batch_size=1, epochs=2, verbose=0, callbacks=[rate, note, board]
    ).history
    assert logged == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1, 0.1])
    assert history["learning_rate"] == pytest.approx([0.3, 0.1])
    assert set(history) == {"loss", "learning_rate"}
    (events,) = (tmp_path / "train").iterdir()
    written = {}
    for event in tf.compat.v1.train.summary_iterator(str(events)):
        for value in event.summary.value:
            written.setdefault(value.tag, []).append(float(tf.make_ndarray(value.tensor)))
    assert written["batch_learning_rate"] == pytest.approx(logged)
    assert written["epoch_learning_rate"] == pytest.approx([0.3, 0.1])


def test_its_schedule_is_written_down():
    callback = LearningRate(warmup(cosine(0.1, steps=20), steps=5))
    config = json.loads(json.dumps(callback.get_config()))
    assert LearningRate.from_config(config).schedule == callback.schedule
    with pytest.raises(ConfigError, match=r"LearningRate: schedule cannot be written down. Received: <function"):
        LearningRate(lambda step: 0.1).get_config()


@keras.saving.register_keras_serializable(package="tests")
def tenth(step):
    return 0.1


def test_a_registered_function_is_written_down_too():
    config = json.loads(json.dumps(LearningRate(tenth).get_config()))
    assert LearningRate.from_config(config).schedule is tenth


@pytest.mark.parametrize(
    "rate", [keras.optimizers.schedules.CosineDecay(0.1, 10), lambda: 0.1], ids=["schedule", "function"]
)
def test_an_optimizer_with_a_schedule_of_its_own_is_refused(rate):
    with pytest.raises(ConfigError, match=r"learning_rate is itself a schedule. Compile with a number"):
        fit(constant(0.1), keras.optimizers.SGD(rate))


@pytest.mark.parametrize("bad", [-0.5, float("nan"), float("inf"), "fast", None])
def test_an_impossible_rate_names_the_step(bad):
    with pytest.raises(ConfigError, match=rf"schedule\(2\) must be a finite number.* Received: {bad!r}\."):
        fit(lambda step: bad if step == 2 else 0.1)


def test_a_number_is_not_a_schedule():
    with pytest.raises(ConfigError, match=r"Received: 0.001. Wrap a number as tfopt.schedules.constant"):
        LearningRate(0.001)
