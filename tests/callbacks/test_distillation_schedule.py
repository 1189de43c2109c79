import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from tfopt.callbacks import DistillationSchedule
from tfopt.distillation import DecoupledLoss, Distiller, LogitsLoss
from tfopt.errors import ConfigError, ModelError
from tfopt.schedules import constant, cosine, polynomial

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(24, 4)).astype(np.float32), np.arange(24) % 3
RAMP = polynomial(0.0, 8.0, end_step=8, power=1.0)


def network(units, seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, "relu"), keras.layers.Dense(3)])


def compiled(losses=None, optimizer=None, **options):
    distiller = Distiller(network(3, 0), network(8, 1), losses, loss_weights={"student": 2})
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(optimizer or keras.optimizers.SGD(0.05), loss, **options)
    return distiller


class Watch(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(self.model.loss_weights)


def fit(model, *callbacks, **options):
    options = {"batch_size": 6, "epochs": 2, "shuffle": False, "verbose": 0, **options}
    return model.fit(X, Y, callbacks=list(callbacks), **options).history


def test_each_step_has_the_weight_of_its_schedule_and_the_fit_gives_the_old_ones_back():
    model, watch = compiled([LogitsLoss(), DecoupledLoss()]), Watch()
    history = fit(model, DistillationSchedule({"logits": RAMP, "student": cosine(1.0, steps=8)}), watch)
    assert [seen["logits"] for seen in watch.seen] == list(map(float, range(8)))
    assert np.allclose([seen["student"] for seen in watch.seen], [cosine(1.0, steps=8)(step) for step in range(8)])
    assert {seen["decoupled"] for seen in watch.seen} == {1.0}
    assert history["logits_weight"] == [3.0, 7.0]
    assert "decoupled_weight" not in history
    assert model.loss_weights == {"student": 2.0, "logits": 1.0, "decoupled": 1.0}


@pytest.mark.slow
def test_the_weights_act_on_the_training():
    scheduled, fixed = compiled(), compiled()
    fixed.set_loss_weight("logits", 0.25)
    fit(scheduled, DistillationSchedule({"logits": constant(0.25)}))
    fit(fixed)
    untouched = compiled()
    fit(untouched)
    weights = [model.student.get_weights() for model in (scheduled, fixed, untouched)]
    assert all(map(np.array_equal, weights[0], weights[1]))
    assert not all(map(np.array_equal, weights[0], weights[2]))


def test_nothing_is_traced_anew():
    traced = []

    class Traced(LogitsLoss):
        def call(self, y_true, y_pred):
            traced.append(True)
            return super().call(y_true, y_pred)

    model = compiled(Traced())
    fit(model, epochs=1)
    before = len(traced)
    fit(model, DistillationSchedule({"logits": RAMP}))
    assert len(traced) == before


def test_several_batches_of_one_update_share_a_weight():
    model, watch = compiled(optimizer=keras.optimizers.SGD(0.05, gradient_accumulation_steps=2)), Watch()
    fit(model, DistillationSchedule({"logits": RAMP}), watch)
    assert [seen["logits"] for seen in watch.seen] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_second_fit_starts_at_step_0_and_a_resumed_one_goes_on():
    model, schedule = compiled(), DistillationSchedule({"logits": RAMP})
    fit(model, schedule)
    watch = Watch()
    fit(model, schedule, watch, epochs=1)
    assert watch.seen[0]["logits"] == 0
    watch = Watch()
    fit(model, schedule, watch, initial_epoch=1)
    assert watch.seen[0]["logits"] == 4


def test_a_schedule_that_gives_no_weight_is_named_with_its_step():
    model = compiled()
    with pytest.raises(ConfigError, match=r"DistillationSchedule: at step 3: .*weight of 'logits' .*Received: -1\.0"):
        fit(model, DistillationSchedule({"logits": lambda step: 2.0 - step}))


def test_what_it_cannot_schedule_is_refused():
    plain = network(3, 0)
    plain.compile("sgd", "mse")
    with pytest.raises(ModelError, match=r"must be a tfopt\.Distiller\. Received: Sequential"):
        plain.fit(X, X[:, :3], verbose=0, callbacks=[DistillationSchedule({"logits": RAMP})])
    with pytest.raises(ConfigError, match=r"losses of the names student, logits\. Received: hint"):
        fit(compiled(), DistillationSchedule({"hint": RAMP}))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, r"Received: \{\}"),
        (RAMP, "must map names of losses to schedules"),
        ({"logits": 0.5}, "the schedule of 'logits' must be a function .*Received: 0.5"),
    ],
)
def test_bad_input_is_named(weights, message):
    with pytest.raises(ConfigError, match="^DistillationSchedule: .*" + message):
        DistillationSchedule(weights)


MIRRORED = textwrap.dedent("""
    import keras, numpy as np, tensorflow as tf
    from tfopt.callbacks import DistillationSchedule
    from tfopt.distillation import Distiller
    from tfopt.schedules import polynomial

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    teacher = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with strategy.scope():
        distiller = Distiller(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), teacher)
        distiller.compile("sgd")
    schedule = DistillationSchedule({"logits": polynomial(0.0, 8.0, end_step=8, power=1.0)})
    history = distiller.fit(np.ones((24, 4)), batch_size=6, epochs=2, verbose=0, callbacks=[schedule]).history
    print(history["logits_weight"])
""")


@pytest.mark.thorough
def test_schedule_holds_under_a_mirrored_strategy():
    done = subprocess.run([sys.executable, "-c", MIRRORED], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[3.0, 7.0]"]
