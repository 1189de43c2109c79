import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from tfopt.callbacks import MagnitudePruning, PreserveCompression
from tfopt.errors import ConfigError, ModelError

pytestmark = pytest.mark.slow

layers = keras.layers
rng = np.random.default_rng(0)
X = rng.normal(size=(32, 6, 6, 2)).astype(np.float32)
Y = rng.normal(size=(32, 3)).astype(np.float32)
CODEBOOK = np.array([-0.2, -0.05, 0.0, 0.1, 0.15], np.float32)


def dense_model(**hidden):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(8, 3, activation="relu", name="conv"),
            layers.Flatten(name="flat"),
            layers.Dense(6, activation="relu", name="hidden", **hidden),
            layers.Dense(3, name="head"),
        ]
    )


def kernel_of(model, name):
    return model.get_layer(name).kernel


def zero_half(kernel):
    weights = np.array(kernel)
    weights[np.abs(weights) < np.median(np.abs(weights))] = 0
    kernel.assign(weights)


def cluster(kernel):
    weights = np.array(kernel)
    kernel.assign(CODEBOOK[np.abs(weights[..., np.newaxis] - CODEBOOK).argmin(axis=-1)])


def compressed(optimizer="adam", **options):
    """A model with a clustered convolution, a pruned layer and a free one."""
    model = dense_model()
    cluster(kernel_of(model, "conv"))
    zero_half(kernel_of(model, "hidden"))
    model.compile(optimizer, "mse", **options)
    return model


def fit(model, *callbacks, epochs=2, **options):
    return model.fit(
        X, Y, batch_size=4, shuffle=False, epochs=epochs, verbose=0, callbacks=list(callbacks), **options
    ).history


def groups(weights):
    """Which weights are equal, as a list of sets that does not depend on the values."""
    _, indices = np.unique(weights, return_inverse=True)
    return {frozenset(np.flatnonzero(indices.reshape(-1) == group).tolist()) for group in range(indices.max() + 1)}


def assert_preserved(model, before):
    """`before`: the kernels by layer name. The compressed ones kept their form, and everything was trained."""
    conv, hidden, head = (np.array(kernel_of(model, name)) for name in ("conv", "hidden", "head"))
    assert groups(conv) == groups(before["conv"])
    assert np.array_equal(conv == 0, before["conv"] == 0)
    assert np.array_equal(hidden == 0, before["hidden"] == 0)
    for name, weights in (("conv", conv), ("hidden", hidden), ("head", head)):
        assert np.mean(weights != before[name]) > 0.45, name


def kernels(model):
    return {name: np.array(kernel_of(model, name)) for name in ("conv", "hidden", "head")}


@pytest.mark.parametrize(
    "options", [{}, {"steps_per_execution": 8}, {"jit_compile": True}, {"run_eagerly": True}], ids=str
)
def test_zeros_and_shared_values_are_kept_however_the_step_runs(options):
    model = compressed(**options)
    before = kernels(model)
    fit(model, PreserveCompression(), epochs=1)
    assert_preserved(model, before)


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.01),
        keras.optimizers.SGD(0.05, gradient_accumulation_steps=2),
        keras.optimizers.Adam(use_ema=True, ema_overwrite_frequency=3),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(), initial_scale=2.0),
    ],
    ids=["momentum", "accumulation", "ema_overwrite", "loss_scale"],
)
def test_zeros_and_shared_values_are_kept_with_every_kind_of_optimizer(optimizer):
    model = compressed(optimizer.from_config(optimizer.get_config()))
    before = kernels(model)
    fit(model, PreserveCompression(), epochs=1)
    assert_preserved(model, before)


def test_without_the_callback_both_are_lost():
    model = compressed()
    fit(model, epochs=1)
    assert np.count_nonzero(kernel_of(model, "hidden") == 0) == 0
    assert np.unique(kernel_of(model, "conv")).size > 100


def test_a_group_moves_by_the_mean_of_its_updates():
    model, free = (compressed(keras.optimizers.SGD(0.1)) for _ in range(2))
    before = kernels(model)["conv"]
    for each, callbacks in ((model, [PreserveCompression()]), (free, [])):
        each.fit(X[:4], Y[:4], batch_size=4, verbose=0, callbacks=callbacks)
    received, updated = kernels(model)["conv"], kernels(free)["conv"]
    for value in CODEBOOK:
        group = before == value
        expected = 0 if value == 0 else updated[group].astype(np.float64).mean()
        np.testing.assert_allclose(received[group], expected, rtol=1e-6)


def test_a_million_equal_weights_do_not_drift():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((1000,)), layers.Dense(1000, use_bias=False, name="wide")])
    kernel = kernel_of(model, "wide")
    before = np.where(np.array(kernel) > 0, np.float32(0.1), np.float32(-0.3))
    kernel.assign(before)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(np.ones((8, 1000)), np.ones((8, 1000)), batch_size=2, verbose=0, callbacks=[PreserveCompression()])
    np.testing.assert_array_equal(kernel, before)


def test_what_is_preserved_can_be_read():
    model = compressed()
    callback = PreserveCompression()
    fit(model, callback, epochs=1)
    conv, hidden = kernel_of(model, "conv").path, kernel_of(model, "hidden").path
    assert callback.preserved == {conv: "5 shared values", hidden: "384 zeros of 768 weights"}
    assert list(callback.preserved) == [conv, hidden]


@pytest.mark.parametrize("initializer", ["zeros", "ones", "glorot_uniform"])
def test_a_kernel_that_was_just_initialized_is_free(initializer):
    model = dense_model(kernel_initializer=initializer)
    model.compile("adam", "mse")
    kernel = kernel_of(model, "hidden")
    kernel_of(model, "head").assign(np.ones((6, 3)))
    model.get_layer("hidden").bias.assign(np.ones(6))
    callback = PreserveCompression()
    before = np.array(kernel)
    fit(model, callback, epochs=1)
    assert callback.preserved == {}
    assert np.mean(np.array(kernel) != before) > 0.5
    assert kernel.constraint is None


def test_a_model_without_compression_trains_as_without_the_callback():
    one, other = dense_model(), dense_model()
    for model in (one, other):
        model.compile("adam", "mse")
    step = []

    class Note(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            step.append(self.model.train_function)

    fit(one, Note(), PreserveCompression())
    fit(other)
    for expected, received in zip(other.get_weights(), one.get_weights(), strict=True):
        np.testing.assert_array_equal(expected, received)
    assert len(set(map(id, step))) == 1  # nothing was traced anew


def test_a_filter_leaves_the_others_free():
    model = compressed()
    before = kernels(model)
    fit(model, PreserveCompression(layers="conv"), epochs=1)
    assert groups(kernels(model)["conv"]) == groups(before["conv"])
    assert np.all(kernels(model)["hidden"] != 0)


def test_kernels_in_nested_models_wrappers_and_cells_are_held():
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((6, 2)), layers.Conv1D(9, 3), layers.Flatten(), layers.Dense(5)])
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.TimeDistributed(inner),
            layers.Bidirectional(layers.LSTM(4)),
            layers.Dense(3),
        ]
    )
    lstm = model.layers[1].forward_layer.cell.kernel
    held = [inner.layers[0].kernel, inner.layers[2].kernel, lstm]
    for kernel in held:
        zero_half(kernel)
    before = [np.array(kernel) for kernel in held]
    model.compile("adam", "mse")
    callback = PreserveCompression()
    fit(model, callback, epochs=1)
    assert len(callback.preserved) == 3
    for kernel, weights in zip(held, before, strict=True):
        assert np.array_equal(np.array(kernel) == 0, weights == 0)


def test_zeros_of_an_embedding_are_held():
    model = keras.Sequential(
        [keras.Input((6,), dtype="int32"), layers.Embedding(9, 4), layers.Flatten(), layers.Dense(3)]
    )
    table = model.layers[0].embeddings
    zero_half(table)
    before = np.array(table)
    model.compile("adam", "mse")
    model.fit(np.arange(192).reshape(32, 6) % 9, Y, verbose=0, callbacks=[PreserveCompression()])
    assert np.array_equal(np.array(table) == 0, before == 0)
    assert np.all(np.array(table)[before != 0] != before[before != 0])


@pytest.mark.parametrize("policy", ["mixed_float16", "float16", "bfloat16"])
def test_low_precision_weights_keep_their_form(policy):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((72,), dtype="float32"), layers.Dense(3, name="head", dtype=policy)])
    cluster(kernel_of(model, "head"))
    before = np.array(kernel_of(model, "head").numpy().astype(np.float32))
    model.compile(keras.optimizers.SGD(0.01), "mse")
    model.fit(X.reshape(32, 72), Y, batch_size=4, verbose=0, callbacks=[PreserveCompression()])
    after = np.array(kernel_of(model, "head").numpy().astype(np.float32))
    assert groups(after) == groups(before)
    assert np.array_equal(after == 0, before == 0)
    assert not np.array_equal(after, before)


def test_the_users_constraint_runs_and_is_back_afterwards():
    model = dense_model(kernel_constraint="non_neg")
    kernel = kernel_of(model, "hidden")
    kernel.assign(np.maximum(np.array(kernel), 0))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    users, before = kernel.constraint, np.array(kernel)
    fit(model, PreserveCompression())
    assert kernel.constraint is users
    assert np.all(np.array(kernel)[before == 0] == 0)
    assert np.min(kernel) >= 0


def test_after_the_fit_the_kernels_are_free():
    model = compressed()
    fit(model, PreserveCompression(), epochs=1)
    fit(model, epochs=1)
    assert np.count_nonzero(kernel_of(model, "hidden") == 0) == 0


def test_every_checkpoint_and_swapped_average_is_compressed(tmp_path):
    path = str(tmp_path / "{epoch}.keras")
    model = compressed(keras.optimizers.Adam(use_ema=True))
    before, seen = kernels(model), []

    class AtValidation(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            seen.append(groups(kernels(model)["conv"]) == groups(before["conv"]))

    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    checkpoint = keras.callbacks.ModelCheckpoint(path)
    fit(model, swap, PreserveCompression(), AtValidation(), checkpoint, validation_data=(X, Y))
    assert seen == [True, True]
    assert_preserved(keras.models.load_model(path.format(epoch=1)), before)
    assert_preserved(model, before)


@pytest.mark.parametrize("order", [1, -1])
def test_pruning_goes_on_from_the_zeros_that_are_there(order):
    model = dense_model()
    zero_half(kernel_of(model, "hidden"))
    before = kernels(model)["hidden"]
    model.compile("adam", "mse")
    # Pruned only from step 4 on: until then the zeros are held by the other callback.
    callbacks = [PreserveCompression(), MagnitudePruning(0.75, begin_step=4, end_step=8, layers="hidden")]
    fit(model, *callbacks[::order])
    after = kernels(model)["hidden"]
    assert np.count_nonzero(after) == round(0.25 * after.size)
    assert np.all(after[before == 0] == 0)
    assert kernel_of(model, "hidden").constraint is None
    fit(model, epochs=1)
    assert np.count_nonzero(kernels(model)["hidden"]) > 0.9 * after.size


@pytest.mark.parametrize("order", [1, -1])
def test_shared_values_are_not_pruned_in_the_same_fit(order):
    callbacks = [PreserveCompression(), MagnitudePruning(0.5, end_step=4, layers="conv")]
    with pytest.raises(ConfigError, match=r"'conv' is held by another .*share values.*Give the callbacks layers="):
        fit(compressed(), *callbacks[::order])
    model = compressed()
    before = kernels(model)
    fit(model, PreserveCompression("conv"), MagnitudePruning(0.5, end_step=4, layers="hidden"))
    assert_preserved(model, before)


def test_two_on_one_kernel_are_refused():
    with pytest.raises(ConfigError, match=r"'hidden' is held by another callback of this fit\. Give"):
        fit(compressed(), PreserveCompression("hidden"), PreserveCompression("hidden"))
    fit(compressed(), PreserveCompression("hidden"), PreserveCompression("conv"), epochs=1)


class Interrupt(keras.callbacks.Callback):
    def __init__(self, at_epoch):
        super().__init__()
        self.at_epoch = at_epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.at_epoch:
            raise KeyboardInterrupt


def test_a_fit_that_was_interrupted_leaves_nothing_behind():
    model = compressed()
    with pytest.raises(KeyboardInterrupt):
        fit(model, PreserveCompression(), MagnitudePruning(0.6, end_step=1, layers="hidden"), Interrupt(1))
    kernel_of(model, "conv").assign(rng.normal(size=(3, 3, 2, 8)))
    fit(model, PreserveCompression("conv"), epochs=1)
    assert all(kernel.constraint is None for kernel in (kernel_of(model, "conv"), kernel_of(model, "hidden")))
    assert np.count_nonzero(kernels(model)["hidden"] == 0) == 0


def test_backup_and_restore_equals_an_uninterrupted_fit(tmp_path):
    whole, broken = compressed(), compressed()
    resumed = dense_model()  # gets its weights, and so its zeros, from the backup
    resumed.compile("adam", "mse")
    fit(whole, PreserveCompression())
    with pytest.raises(KeyboardInterrupt):
        fit(broken, PreserveCompression(), keras.callbacks.BackupAndRestore(tmp_path), Interrupt(1))
    fit(resumed, PreserveCompression(), keras.callbacks.BackupAndRestore(tmp_path))
    for expected, received in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(expected, received)


def test_a_filter_that_matches_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"layers='tail' matches no layer.*conv, hidden, head"):
        fit(compressed(), PreserveCompression("tail"))


def test_a_model_without_kernels_has_nothing_to_preserve():
    model = keras.Sequential([keras.Input((6, 6, 2)), layers.Flatten(), layers.BatchNormalization()])
    model.compile("sgd", "mse")
    model.fit(X, X.reshape(32, 72), verbose=0, callbacks=[PreserveCompression()])


def test_a_model_that_is_not_built_is_refused():
    model = keras.Sequential([layers.Flatten(), layers.Dense(3, name="dense")])
    model.compile("adam", "mse")
    with pytest.raises(ModelError, match=r"'dense' is not built"):
        fit(model, PreserveCompression())


# Logical devices must be set before TensorFlow starts, hence a process of its own.
MIRRORED = textwrap.dedent("""
    import keras, numpy as np, tensorflow as tf
    from tfopt.callbacks import PreserveCompression

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(8), keras.layers.Dense(3)])
        model.compile("adam", "mse")
    pruned, shared = (layer.kernel for layer in model.layers)
    weights = pruned.numpy()
    pruned.assign(weights * (weights > 0))
    shared.assign(np.where(shared.numpy() > 0, 0.5, -0.25))
    zeros, groups = pruned.numpy() == 0, shared.numpy() > 0
    x = np.random.default_rng(0).normal(size=(32, 10)).astype("float32")
    model.fit(x, x[:, :3], batch_size=4, epochs=2, verbose=0, callbacks=[PreserveCompression()])
    for copy in strategy.experimental_local_results(pruned.value):
        print(np.array_equal(copy.numpy() == 0, zeros))
    for copy in strategy.experimental_local_results(shared.value):
        print(np.unique(copy.numpy()[groups]).size, np.unique(copy.numpy()[~groups]).size, 0.5 in copy.numpy())
""")


@pytest.mark.thorough
def test_compression_is_kept_under_a_mirrored_strategy():
    done = subprocess.run([sys.executable, "-c", MIRRORED], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True"] * 2 + ["1 1 False"] * 2
