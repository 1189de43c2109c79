"""What every callback of the package promises, whatever it does."""

import json
from itertools import combinations

import keras
import numpy as np
import pytest

import tfopt.callbacks
from tfopt.distillation import Distiller
from tfopt.errors import ConfigError
from tfopt.quantization import quantize_aware
from tfopt.schedules import cosine, polynomial, step_decay, warmup

# Five steps on random targets suggest no rate.
pytestmark = pytest.mark.filterwarnings("ignore:LearningRateFinder. the loss never fell")

STEPS_PER_EPOCH = 6
rng = np.random.default_rng(0)
X = rng.normal(size=(STEPS_PER_EPOCH * 4, 6)).astype(np.float32)
Y = rng.normal(size=(STEPS_PER_EPOCH * 4, 2)).astype(np.float32)

MAKE = {
    "CompressionLogger": tfopt.callbacks.CompressionLogger,
    "DistillationSchedule": lambda: tfopt.callbacks.DistillationSchedule(
        {"logits": polynomial(0.0, 2.0, end_step=14), "student": cosine(1.0, steps=14)}
    ),
    # The loss falls, so the best weights are not the last. min_sparsity is reached at once: pruning alone decides.
    "EarlyStopping": lambda: tfopt.callbacks.EarlyStopping(
        {"loss": "max"}, patience=9, min_epochs=2, min_sparsity=0.0, restore_best_weights=True
    ),
    "InputPipelineMonitor": lambda: tfopt.callbacks.InputPipelineMonitor(warmup_batches=2, batches=3, verbose=0),
    "LearningRate": lambda: tfopt.callbacks.LearningRate(warmup(cosine(0.05, steps=14), steps=4)),
    "LearningRateFinder": lambda: tfopt.callbacks.LearningRateFinder(1e-3, 1.0, steps=5),
    "MagnitudePruning": lambda: tfopt.callbacks.MagnitudePruning(0.75, end_step=4, frequency=3),
    "PreserveCompression": lambda: tfopt.callbacks.PreserveCompression(),
    "QuantizationSchedule": lambda: tfopt.callbacks.QuantizationSchedule(2, 5, 8),
}
# Where they differ from these: their changes fall on the ends of executions of 3 steps.
MAKE_ALIGNED = MAKE | {
    "DistillationSchedule": lambda: tfopt.callbacks.DistillationSchedule(
        {"logits": step_decay(2.0, factor=0.5, every_steps=3)}
    ),
    "EarlyStopping": lambda: tfopt.callbacks.EarlyStopping({"loss": "min"}, max_steps=9),
    "LearningRate": lambda: tfopt.callbacks.LearningRate(step_decay(0.05, factor=0.5, every_steps=3)),
    "MagnitudePruning": lambda: tfopt.callbacks.MagnitudePruning(0.75, end_step=9, frequency=3),
    "QuantizationSchedule": lambda: tfopt.callbacks.QuantizationSchedule(3, 6, 9),
}
BAD = {
    "CompressionLogger": (lambda: tfopt.callbacks.CompressionLogger(tensorboard=True), "Received: True"),
    "DistillationSchedule": (lambda: tfopt.callbacks.DistillationSchedule({"logits": 0.5}), "Received: 0.5"),
    "EarlyStopping": (lambda: tfopt.callbacks.EarlyStopping(min_sparsity=80), "Received: 80"),
    "InputPipelineMonitor": (lambda: tfopt.callbacks.InputPipelineMonitor(threshold=43), "Received: 43"),
    "LearningRate": (lambda: tfopt.callbacks.LearningRate(0.1), "Received: 0.1"),
    "LearningRateFinder": (lambda: tfopt.callbacks.LearningRateFinder(1e-3, 1e-6), "Received: 1e-06"),
    "MagnitudePruning": (lambda: tfopt.callbacks.MagnitudePruning(80, end_step=4), "Received: 80"),
    "PreserveCompression": (
        lambda: fit(compiled("PreserveCompression"), *(tfopt.callbacks.PreserveCompression() for _ in range(2))),
        "'hidden' is held by another",
    ),
    "QuantizationSchedule": (lambda: tfopt.callbacks.QuantizationSchedule(-1), "Received: -1"),
}
# Epoch and batch at which a fit is interrupted; a range test ends within its first epoch.
INTERRUPTED_AT = dict.fromkeys(MAKE, (2, 0)) | {"LearningRateFinder": (0, 3)}
# A quantize-aware model and a Distiller take seconds to trace.
SLOW = {"DistillationSchedule", "QuantizationSchedule"}
COMMON = {"EarlyStopping", "LearningRate", "MagnitudePruning"}
every_callback = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in tfopt.callbacks.__all__]
)


def compiled(*names, **options):
    """A model that the callbacks of these names have something to do with."""
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(5, activation="relu", name="hidden")
    model = keras.Sequential([keras.Input((6,)), hidden, keras.layers.Dense(2)])
    if "PreserveCompression" in names:
        hidden.kernel.assign(np.maximum(np.array(hidden.kernel), 0))
    if "QuantizationSchedule" in names:
        model = quantize_aware(model)
    if "DistillationSchedule" in names:
        model = Distiller(model, keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)]))
    model.compile(keras.optimizers.Adam(), "mse", **options)
    return model


def fit(model, *callbacks, epochs=2, x=X, y=Y):
    return model.fit(x, y, batch_size=4, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks)).history


def assert_equal_weights(one, other):
    for first, second in zip(one.get_weights(), other.get_weights(), strict=True):
        assert np.array_equal(first, second)


def make_resumable(name, folder):
    """What a user writes who wants to resume: early stopping needs a file for what it has seen."""
    if name != "EarlyStopping":
        return MAKE[name]()
    return tfopt.callbacks.EarlyStopping({"loss": "max"}, restore_best_weights=True, patience=9, backup=folder / "seen")


class Interrupt(keras.callbacks.Callback):
    def __init__(self, epoch, batch):
        super().__init__()
        self.at, self.epoch = (epoch, batch), None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise KeyboardInterrupt


def test_every_public_callback_is_under_contract():
    assert sorted(MAKE) == sorted(MAKE_ALIGNED) == sorted(BAD) == sorted(tfopt.callbacks.__all__)
    assert all(issubclass(getattr(tfopt.callbacks, name), keras.callbacks.Callback) for name in MAKE)


@every_callback
@pytest.mark.filterwarnings("ignore:MagnitudePruning. reached a sparsity")
@pytest.mark.filterwarnings("ignore:QuantizationSchedule. the fit ended after 1 steps")
@pytest.mark.filterwarnings("ignore:LearningRateFinder. the fit ended after 1 of 5 steps")
@pytest.mark.filterwarnings("ignore:InputPipelineMonitor. nothing was measured")
def test_one_batch(name):
    history = fit(compiled(name), MAKE[name](), epochs=1, x=X[:4], y=Y[:4])
    assert np.isfinite(history["loss"][0])


@pytest.mark.slow
@every_callback
def test_config_round_trip(name):
    callback = MAKE[name]()
    config = callback.get_config()
    again = type(callback).from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    first, second = compiled(name), compiled(name)
    assert fit(first, callback) == fit(second, again)
    assert_equal_weights(first, second)


def trios(names):
    """Threes of the names, few of them, in which each two meet at least once."""
    apart = set(combinations(names, 2))
    while apart:
        trio = max(combinations(names, 3), key=lambda trio: len(apart & {*combinations(trio, 2)}))
        apart -= {*combinations(trio, 2)}
        yield trio


# A range test ends the fit before the others have come to their ends.
@pytest.mark.filterwarnings("ignore:MagnitudePruning. reached a sparsity")
@pytest.mark.filterwarnings("ignore:QuantizationSchedule. the fit ended after")
@pytest.mark.parametrize(
    "names",
    [
        pytest.param(names, marks=() if {*names} <= COMMON else pytest.mark.slow, id="-".join(names))
        for names in trios(sorted(tfopt.callbacks.__all__, key=lambda name: (name not in COMMON, name)))
    ],
)
def test_each_two_do_the_same_in_either_order(names):
    # Three at once, and then in reverse: each two of them change places.
    model, reference = compiled(*names), compiled(*names)
    history = fit(model, *(MAKE[name]() for name in names))
    expected = fit(reference, *(MAKE[name]() for name in reversed(names)))
    assert_equal_weights(model, reference)
    assert history.keys() == expected.keys()


@pytest.mark.slow
@every_callback
def test_steps_per_execution_of_1_epoch(name):
    model = compiled(name, steps_per_execution=STEPS_PER_EPOCH)
    history = fit(model, MAKE[name]())
    assert len(history["loss"]) == (1 if name == "LearningRateFinder" else 2)
    assert all(np.isfinite(weights).all() for weights in model.get_weights())


@pytest.mark.slow
@every_callback
def test_steps_per_execution_delays_a_change_to_the_end_of_an_execution_and_alters_nothing_else(name):
    model, reference = compiled(name, steps_per_execution=3), compiled(name)
    history, expected = fit(model, MAKE_ALIGNED[name]()), fit(reference, MAKE_ALIGNED[name]())
    assert history.keys() == expected.keys()
    assert_equal_weights(model, reference)


@pytest.mark.slow
@every_callback
def test_the_same_instance_serves_two_fits(name):
    once, again = MAKE[name](), MAKE[name]()
    first, second = compiled(name), compiled(name)
    fit(first, once)
    fit(second, again)
    # The second fit of an instance is the fit of a fresh one.
    history, expected = fit(first, once), fit(second, MAKE[name]())
    assert history == expected
    assert_equal_weights(first, second)


@pytest.mark.slow
@every_callback
def test_the_same_instance_serves_two_models(name):
    callback = MAKE[name]()
    first, second = compiled(name), compiled(name)
    assert fit(first, callback) == fit(second, callback)
    assert_equal_weights(first, second)


@pytest.mark.slow
@every_callback
def test_interrupted_and_resumed_equals_uninterrupted(name, tmp_path):
    whole, broken, resumed = compiled(name), compiled(name), compiled(name)
    fit(whole, make_resumable(name, tmp_path), epochs=3)
    with pytest.raises(KeyboardInterrupt):
        fit(
            broken,
            make_resumable(name, tmp_path),
            keras.callbacks.BackupAndRestore(tmp_path),
            Interrupt(*INTERRUPTED_AT[name]),
            epochs=3,
        )
    history = fit(resumed, make_resumable(name, tmp_path), keras.callbacks.BackupAndRestore(tmp_path), epochs=3)
    assert len(history["loss"]) == 1
    assert_equal_weights(whole, resumed)


@every_callback
def test_bad_input_is_refused_with_what_was_received(name):
    make, received = BAD[name]
    with pytest.raises(ConfigError, match=f"^{name}: .*{received}"):
        make()
