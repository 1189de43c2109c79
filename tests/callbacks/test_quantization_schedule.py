import subprocess
import sys
import textwrap
from itertools import pairwise

import keras
import numpy as np
import pytest

from tfopt.callbacks import LearningRate, QuantizationSchedule
from tfopt.errors import ConfigError, ModelError
from tfopt.quantization import quantize_aware
from tfopt.quantization.layers import FakeQuantize, LearnedFakeQuantize, QuantizeAware
from tfopt.schedules import constant

pytestmark = pytest.mark.slow

layers = keras.layers
STEPS_PER_EPOCH = 8
rng = np.random.default_rng(0)
# Each batch is wider than the one before, so that a range that follows moves at every step.
X = rng.normal(size=(STEPS_PER_EPOCH * 4, 6)).astype(np.float32) * np.linspace(1, 2, 32, dtype=np.float32)[:, None]
Y = np.arange(len(X)) % 3


def float_model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6,), name="x"),
            layers.Dense(5, use_bias=False, name="hidden"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(3, activation="softmax", name="scores"),
        ]
    )


def compiled(optimizer=None, model=None, **options):
    model = quantize_aware(float_model()) if model is None else model
    model.compile(optimizer or keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", **options)
    return model


def fit(model, *callbacks, epochs=2, **options):
    return model.fit(
        X, Y, batch_size=4, shuffle=False, epochs=epochs, verbose=0, callbacks=list(callbacks), **options
    ).history


class Watch(keras.callbacks.Callback):
    """Notes at which steps something changes."""

    def __init__(self, **looks):
        super().__init__()
        self.looks = looks
        self.seen = {name: [look()] for name, look in looks.items()}

    def on_train_batch_end(self, batch, logs=None):
        for name, look in self.looks.items():
            self.seen[name].append(look())

    @property
    def moves(self):
        """For each thing, whether each call of the train function moved it."""
        return {name: [not np.array_equal(old, new) for old, new in pairwise(seen)] for name, seen in self.seen.items()}


def watch(model):
    norm, x_range = model.get_layer("norm_folded").layer, model.get_layer("x_range")
    return Watch(
        range=lambda: np.array(x_range.minima),
        statistics=lambda: np.array(norm.moving_mean),
        gamma=lambda: np.array(norm.gamma),
        beta=lambda: np.array(norm.beta),
    )


def assert_equal_weights(one, other):
    for expected, received in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(expected, received)


@pytest.mark.thorough
@pytest.mark.parametrize("options", [{}, {"jit_compile": True}, {"run_eagerly": True}], ids=str)
def test_ranges_and_statistics_stand_still_from_their_steps_on(options):
    model = compiled(**options)
    seen = watch(model)
    fit(model, QuantizationSchedule(2, 5, 11), seen)
    assert seen.moves == {
        "range": [True] * 5 + [False] * 11,
        "statistics": [True] * 11 + [False] * 5,
        "gamma": [True] * 16,
        "beta": [True] * 16,
    }


def test_a_change_within_a_long_execution_waits_for_its_end():
    model = compiled(steps_per_execution=4)
    seen = watch(model)
    fit(model, QuantizationSchedule(1, 5, 8), seen)
    assert seen.moves["range"] == [True, True, False, False]
    assert seen.moves["statistics"] == [True, True, False, False]
    assert seen.moves["gamma"] == [True] * 4


def test_steps_are_optimizer_updates():
    model = compiled(keras.optimizers.SGD(0.05, gradient_accumulation_steps=2))
    seen = watch(model)
    fit(model, QuantizationSchedule(0, 3), seen)
    assert seen.moves["range"] == [True] * 6 + [False] * 10


def test_before_the_start_the_model_trains_as_the_float_model():
    model, reference = compiled(), compiled(model=float_model())
    with pytest.warns(UserWarning, match=r"ended after 16 steps, before start_step=100\. Train longer"):
        fit(model, QuantizationSchedule(100))
    fit(reference)
    for name in ("hidden", "scores"):
        for expected, received in zip(
            reference.get_layer(name).get_weights(), model.get_layer(f"{name}_int8").get_weights(), strict=True
        ):
            np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-7)
    plain = compiled()
    fit(plain)
    # The ranges followed meanwhile.
    np.testing.assert_array_equal(model.get_layer("x_range").minima, plain.get_layer("x_range").minima)


def test_rounding_starts_at_its_step():
    model, late = compiled(), compiled()
    losses = []
    for each, callback in ((model, QuantizationSchedule(3)), (late, QuantizationSchedule(4))):
        seen = Watch(loss=lambda each=each: np.array(each.get_layer("scores_int8").layer.kernel))
        fit(each, callback, seen, epochs=1)
        losses.append(seen.seen["loss"])
    equal = [np.array_equal(one, other) for one, other in zip(*losses, strict=True)]
    assert equal == [True] * 4 + [False] * 5  # the fourth update, number 3, differs


def test_a_schedule_of_nothing_changes_nothing():
    model, plain = compiled(), compiled()
    fit(model, QuantizationSchedule())
    fit(plain)
    assert_equal_weights(plain, model)


def test_batch_norms_normalize_with_what_they_keep():
    model = compiled(keras.optimizers.SGD(0.0))
    norm = model.get_layer("norm_folded").layer
    for weight in (norm.moving_mean, norm.moving_variance):
        weight.assign(0.7 * np.ones(weight.shape))
    fit(model, epochs=1)  # ranges
    before = norm.moving_mean.numpy()
    history = fit(model, QuantizationSchedule(0, 0, 0), epochs=1, validation_data=(X, Y), validation_batch_size=4)
    assert history["loss"] == pytest.approx(history["val_loss"])
    np.testing.assert_array_equal(norm.moving_mean, before)


def test_layers_that_were_frozen_before_stay_frozen():
    model = quantize_aware(float_model(), calibration=X)
    model.get_layer("norm_folded").layer.trainable = False
    model.get_layer("x_range").trainable = False
    compiled(model=model)
    seen = watch(model)
    fit(model, QuantizationSchedule(1, 2, 3), seen)
    assert seen.moves == {name: [False] * 16 for name in ("range", "statistics", "gamma", "beta")}
    assert not model.get_layer("norm_folded").layer.trainable
    assert not model.get_layer("norm_folded").layer.gamma.trainable
    assert not model.get_layer("x_range").trainable


def test_a_gamma_that_was_frozen_before_stays_frozen():
    model = compiled()
    model.get_layer("norm_folded").layer.gamma.trainable = False
    seen = watch(model)
    fit(model, QuantizationSchedule(0, None, 4), seen)
    assert seen.moves["gamma"] == [False] * 16
    assert seen.moves["beta"] == [True] * 16
    assert not model.get_layer("norm_folded").layer.gamma.trainable


def test_after_the_fit_everything_is_free_again():
    model = compiled()
    fit(model, QuantizationSchedule(2, 4, 6), epochs=1)
    assert all(layer.rounding for layer in model.layers if isinstance(layer, (FakeQuantize, QuantizeAware)))
    assert all(layer.trainable for layer in model.layers)
    assert "train_step" not in vars(model)
    seen = watch(model)
    fit(model, seen)
    assert {name: all(moves) for name, moves in seen.moves.items()} == dict.fromkeys(seen.moves, True)


def test_validation_computes_what_a_checkpoint_will(tmp_path):
    path = str(tmp_path / "{epoch}.keras")
    model = compiled()
    checkpoint = keras.callbacks.ModelCheckpoint(path)
    history = fit(model, checkpoint, QuantizationSchedule(8, 16, 16), epochs=3, validation_data=(X, Y))
    for epoch in (1, 2, 3):  # in float, rounding, frozen
        loaded = keras.models.load_model(path.format(epoch=epoch))
        assert loaded.evaluate(X, Y, verbose=0) == pytest.approx(history["val_loss"][epoch - 1], abs=1e-6)


@pytest.mark.parametrize("order", [0, 1])
def test_checkpoints_in_mid_epoch_hold_nothing_of_the_schedule(tmp_path, order):
    path = str(tmp_path / "{epoch}-{batch}.keras")
    callbacks = [QuantizationSchedule(1, 2, 3), keras.callbacks.ModelCheckpoint(path, save_freq=6)]
    model = compiled()
    fit(model, *(callbacks if order else reversed(callbacks)), epochs=1)
    loaded = keras.models.load_model(path.format(epoch=1, batch=6))
    assert all(layer.trainable for layer in loaded.layers)
    # Keras would skip the optimizer's variables, with a warning, if gamma and beta did not count as trainable.
    assert len(loaded.optimizer.variables) == len(model.optimizer.variables)
    assert int(loaded.optimizer.iterations) == 6


class Interrupt(keras.callbacks.Callback):
    def __init__(self, at_epoch):
        super().__init__()
        self.at_epoch = at_epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.at_epoch:
            raise KeyboardInterrupt


# The second epoch begins at step 8: before the start, between the two freezings.
@pytest.mark.thorough
@pytest.mark.parametrize("steps", [(12, 14, 15), (4, 6, 12)], ids=str)
def test_backup_and_restore_equals_an_uninterrupted_fit(tmp_path, steps):
    whole, broken, resumed = compiled(), compiled(), compiled()
    fit(whole, QuantizationSchedule(*steps))
    backup = [keras.callbacks.BackupAndRestore(tmp_path / "backup") for _ in range(2)]
    with pytest.raises(KeyboardInterrupt):
        fit(broken, QuantizationSchedule(*steps), backup[0], Interrupt(1))
    history = fit(resumed, QuantizationSchedule(*steps), backup[1])
    assert len(history["loss"]) == 1
    assert_equal_weights(whole, resumed)


@pytest.mark.thorough
def test_a_saved_model_goes_on_where_it_stood(tmp_path):
    whole, first = compiled(), compiled()
    fit(whole, QuantizationSchedule(2, 6, 10), epochs=2)
    with pytest.warns(UserWarning, match=r"ended after 8 steps, before freeze_batch_norm_step=10\."):
        fit(first, QuantizationSchedule(2, 6, 10), epochs=1)
    first.save(tmp_path / "model.keras")
    second = keras.models.load_model(tmp_path / "model.keras")
    fit(second, QuantizationSchedule(2, 6, 10), epochs=2, initial_epoch=1)
    assert_equal_weights(whole, second)


@pytest.mark.parametrize("same_instance", [True, False])
def test_a_fit_that_was_interrupted_leaves_nothing_behind(same_instance):
    model = compiled()
    callback = QuantizationSchedule(2, 4, 6)
    with pytest.raises(KeyboardInterrupt):
        fit(model, callback, Interrupt(1))
    seen = watch(model)
    fit(model, callback if same_instance else QuantizationSchedule(0, 3), seen, epochs=1)
    frozen_at = 4 if same_instance else 3
    assert seen.moves["range"] == [True] * frozen_at + [False] * (8 - frozen_at)
    assert seen.moves["statistics"] == ([True] * 6 + [False] * 2 if same_instance else [True] * 8)
    assert "train_step" not in vars(model)


def test_a_second_fit_starts_at_step_0_again():
    model = compiled()
    callback = QuantizationSchedule(0, 4)
    fit(model, callback, epochs=1)
    seen = watch(model)
    fit(model, callback, seen, epochs=1)
    assert seen.moves["range"] == [True] * 4 + [False] * 4


class Halved(keras.Model):
    def train_step(self, data):
        x, y = data
        return super().train_step((x / 2, y))


def test_a_train_step_of_ones_own_is_run():
    aware = quantize_aware(float_model())
    model = compiled(model=Halved(aware.input, aware.output))
    fit(model, QuantizationSchedule(2, 6))
    assert float(model.get_layer("x_range").maxima[0]) < X.max() / 2


def test_a_model_nested_in_another_is_scheduled():
    aware = quantize_aware(float_model())
    x = keras.Input((6,))
    model = compiled(model=keras.Model(x, aware(x)))
    seen = watch(aware)
    fit(model, QuantizationSchedule(2, 4, 6), seen)
    assert seen.moves["range"] == [True] * 4 + [False] * 12
    assert seen.moves["statistics"] == [True] * 6 + [False] * 10


def learned(optimizer):
    keras.utils.set_random_seed(0)
    x = keras.Input((6,))
    rounded, _ = LearnedFakeQuantize(name="x_range")(x)
    model = keras.Model(x, layers.Softmax()(QuantizeAware(layers.Dense(3), (0,), name="scores")(rounded)))
    model.get_layer("x_range").start_at(-2.0, 2.0, member=0)
    return compiled(optimizer, model)


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.01),
        keras.optimizers.Adam(0.01, use_ema=True),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01), initial_scale=2.0),
    ],
    ids=["momentum", "ema", "loss_scale"],
)
def test_learned_ranges_are_trained_between_start_and_freezing_only(optimizer):
    model = learned(optimizer.from_config(optimizer.get_config()))
    x_range = model.get_layer("x_range")
    seen = Watch(range=lambda: np.array([x_range.minimum, x_range.maximum]), kernel=lambda: model.get_weights()[2])
    fit(model, QuantizationSchedule(3, 7), seen)
    assert seen.moves["range"] == [False] * 3 + [True] * 4 + [False] * 9
    assert seen.moves["kernel"] == [True] * 16
    assert x_range.minimum.trainable
    assert x_range.maximum.trainable


def test_learned_ranges_with_gradient_accumulation():
    model = learned(keras.optimizers.SGD(0.05, momentum=0.9, gradient_accumulation_steps=2))
    x_range = model.get_layer("x_range")
    seen = Watch(range=lambda: np.array([x_range.minimum, x_range.maximum]))
    fit(model, QuantizationSchedule(2, 4), seen)
    moved = seen.moves["range"]
    assert moved == [False] * 4 + [False, True, False, True] + [False] * 8


@pytest.mark.thorough
def test_other_callbacks_that_trace_anew_leave_the_schedule_alone():
    class TraceAnew(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch in (2, 6):
                self.model.make_train_function(force=True)

    model, reference = compiled(), compiled()
    seen = watch(model)
    fit(model, QuantizationSchedule(1, 3, 5), TraceAnew(), LearningRate(constant(0.01)), seen, epochs=1)
    fit(reference, QuantizationSchedule(1, 3, 5), epochs=1)
    assert seen.moves["range"] == [True] * 3 + [False] * 5
    assert_equal_weights(reference, model)


def test_float_models_are_refused():
    model = compiled(model=float_model())
    with pytest.raises(ModelError, match=r"is not quantize-aware\. Make it so with tfopt\.quantize_aware"):
        fit(model, QuantizationSchedule(1))


def test_ranges_that_were_never_observed_are_not_frozen():
    with pytest.raises(ModelError, match=r"frozen at step 0, but x_range, .* were never observed\. Pass calibration"):
        fit(compiled(), QuantizationSchedule(0, 0))
    fit(compiled(model=quantize_aware(float_model(), calibration=X)), QuantizationSchedule(0, 0))


def test_two_schedules_are_refused():
    with pytest.raises(ConfigError, match=r"a fit takes one of these callbacks\. Received: two"):
        fit(compiled(), QuantizationSchedule(1), QuantizationSchedule(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1,), r"start_step must be a whole number of at least 0\. Received: -1"),
        ((0, 1.5), r"freeze_ranges_step must be a whole number of at least 0\. Received: 1\.5"),
        ((10, 9), r"freeze_ranges_step must be at least start_step \(10\)\. Received: 9"),
        ((10, None, 9), r"freeze_batch_norm_step must be at least start_step \(10\)\. Received: 9"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ConfigError, match="^QuantizationSchedule: " + message):
        QuantizationSchedule(*arguments)


# Logical devices must be set before TensorFlow starts, hence a process of its own.
MIRRORED = textwrap.dedent("""
    import keras, numpy as np, tensorflow as tf
    from tfopt.callbacks import QuantizationSchedule
    from tfopt.quantization import quantize_aware

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(3), keras.layers.BatchNormalization(
            name="norm"), keras.layers.Dense(1)])
        aware = quantize_aware(model)
        aware.compile(keras.optimizers.Adam(), "mse")
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32") * np.arange(1, 33)[:, None]
    norm, seen = aware.get_layer("norm_folded").layer, []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append([weight.numpy().tolist() for weight in
                (aware.get_layer("x_range").maxima, norm.moving_mean, norm.gamma)])

    aware.fit(x, x[:, :1], batch_size=4, shuffle=False, verbose=0, callbacks=[QuantizationSchedule(1, 3, 5), Watch()])
    for column in zip(*seen):
        print([old != new for old, new in zip(column, column[1:])])
    print(norm.trainable, norm.gamma.trainable, all(layer.rounding for layer in aware.layers if "_int8" in layer.name))
""")


@pytest.mark.thorough
def test_schedule_holds_under_a_mirrored_strategy():
    done = subprocess.run([sys.executable, "-c", MIRRORED], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        str([True] * 2 + [False] * 5),
        str([True] * 4 + [False] * 3),
        str([True] * 7),
        "True True True",
    ]
