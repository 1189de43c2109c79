import re
import subprocess
import sys
import textwrap
import warnings

import keras
import numpy as np
import pytest

from tfopt.callbacks import MagnitudePruning
from tfopt.errors import ConfigError, ModelError
from tfopt.schedules import constant, step_decay
from tfopt.surgery.select import select_kernels

pytestmark = pytest.mark.slow

layers = keras.layers
STEPS_PER_EPOCH = 8
rng = np.random.default_rng(0)
X = rng.normal(size=(STEPS_PER_EPOCH * 4, 6, 6, 2)).astype(np.float32)
Y = rng.normal(size=(STEPS_PER_EPOCH * 4, 3)).astype(np.float32)


def small_model(**dense):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(7, 3, name="conv"),
            layers.Flatten(),
            layers.Dense(5, activation="relu", name="hidden", **dense),
            layers.Dense(3, name="head"),
        ]
    )


def compiled(optimizer="adam", **options):
    model = small_model()
    model.compile(optimizer, "mse", **options)
    return model


def fit(model, *callbacks, epochs=2, **options):
    return model.fit(
        X, Y, batch_size=4, shuffle=False, epochs=epochs, verbose=0, callbacks=list(callbacks), **options
    ).history


def prune(sparsity=0.8, **options):
    return MagnitudePruning(sparsity, **{"end_step": 12, "frequency": 5, **options})


def zeros(model, chosen=None):
    return [kernel.shape.num_elements() - int(np.count_nonzero(kernel)) for _, kernel in select_kernels(model, chosen)]


def requested(model, sparsity, chosen=None):
    sizes = [kernel.shape.num_elements() for _, kernel in select_kernels(model, chosen)]
    return [size - max(round((1 - sparsity) * size), 1) for size in sizes]


def assert_sparse(model, sparsity=0.8, chosen=None):
    assert zeros(model, chosen) == requested(model, sparsity, chosen)


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.8, 0.97])
def test_zeros_are_exact_after_fit(sparsity):
    model = compiled()  # at 0.97 the smallest kernel would have no weight left, and keeps one
    history = fit(model, prune(sparsity))
    assert_sparse(model, sparsity)
    size = sum(kernel.shape.num_elements() for _, kernel in select_kernels(model))
    assert history["sparsity"][-1] == pytest.approx(sum(requested(model, sparsity)) / size)


@pytest.mark.parametrize("options", [{"steps_per_execution": 8}, {"jit_compile": True}, {"run_eagerly": True}], ids=str)
def test_zeros_are_exact_however_the_step_runs(options):
    model = compiled(**options)
    fit(model, prune())
    assert_sparse(model)


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.01),
        keras.optimizers.Adam(use_ema=True),
        keras.optimizers.Adam(use_ema=True, ema_overwrite_frequency=3),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(), initial_scale=2.0),
    ],
    ids=["momentum", "ema", "ema_overwrite", "loss_scale"],
)
def test_zeros_are_exact_with_every_kind_of_optimizer(optimizer):
    model = compiled(optimizer.from_config(optimizer.get_config()))
    fit(model, prune())
    assert_sparse(model)


def test_zeros_are_exact_with_gradient_accumulation():
    model = compiled(keras.optimizers.SGD(0.05, gradient_accumulation_steps=2))
    fit(model, prune(end_step=8))  # 16 batches are 8 updates
    assert_sparse(model)


def test_zeros_are_exact_after_a_previous_fit():
    model = compiled()
    fit(model)
    assert zeros(model) == [0, 0, 0]
    seen = []
    fit(model, prune(begin_step=6), Watch(lambda: seen.append(sum(zeros(model)))))
    assert_sparse(model)
    assert seen[:5] == [0] * 5  # its step 0 is that of this fit, not of the optimizer
    assert seen[5:] == sorted(seen[5:])


def test_zeros_are_exact_in_mixed_float16():
    policy = keras.dtype_policies.DTypePolicy("mixed_float16")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Flatten(),
            layers.Dense(5, dtype=policy),
            layers.Dense(3, dtype=policy),
        ]
    )
    model.compile("adam", "mse")
    fit(model, prune())
    assert_sparse(model)


def test_nested_models_and_wrappers_are_pruned():
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((6, 2)), layers.Conv1D(9, 3), layers.Flatten(), layers.Dense(5)])
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.TimeDistributed(inner),
            layers.TimeDistributed(layers.Dense(4)),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    model.compile("adam", "mse")
    fit(model, prune())
    assert len(zeros(model)) == 4
    assert_sparse(model)


def test_a_model_that_is_not_built_is_refused():
    # Keras builds it while it traces the first step, too late for a constraint.
    model = keras.Sequential([layers.Flatten(), layers.Dense(3, name="dense")])
    model.compile("adam", "mse")
    with pytest.raises(ModelError, match=r"'dense' is not built: .* Give the model a keras.Input"):
        fit(model, prune())


class Watch(keras.callbacks.Callback):
    def __init__(self, look):
        super().__init__()
        self.look = look

    def on_train_batch_end(self, batch, logs=None):
        self.look()


def test_the_ramp_is_followed_at_its_frequency():
    model, seen = compiled(), []
    schedule = {2: 0.1, 5: 0.2, 8: 0.4, 10: 0.6}.__getitem__  # asked at no other step
    fit(
        model,
        MagnitudePruning(begin_step=2, end_step=10, frequency=3, schedule=schedule),
        Watch(lambda: seen.append(zeros(model))),
    )
    due = [0, 0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.4, 0.4] + [0.6] * 7
    assert seen == [requested(model, sparsity) for sparsity in due]


def test_an_update_within_a_long_execution_is_made_at_its_end():
    model, seen = compiled(steps_per_execution=4), []
    schedule = {0: 0.1, 3: 0.2, 6: 0.4, 9: 0.6, 10: 0.7}.__getitem__
    fit(
        model,
        MagnitudePruning(end_step=10, frequency=3, schedule=schedule),
        Watch(lambda: seen.append(zeros(model))),
    )
    assert seen == [requested(model, sparsity) for sparsity in (0.2, 0.4, 0.7, 0.7)]


class WatchBegin(keras.callbacks.Callback):
    def __init__(self, look):
        super().__init__()
        self.look = look

    def on_train_batch_begin(self, batch, logs=None):
        self.look()


def test_pruning_in_one_shot_holds_from_the_first_step_on():
    model, seen = compiled(), []
    fit(model, MagnitudePruning(0.5, end_step=0), WatchBegin(lambda: seen.append(zeros(model))), epochs=1)
    assert seen == [requested(model, 0.5)] * STEPS_PER_EPOCH


def test_a_resumed_fit_is_masked_from_its_first_step_on():
    model, seen = compiled(), []
    watch = WatchBegin(lambda: seen.append(zeros(model)))
    fit(model, prune(), watch, epochs=3, initial_epoch=2)
    assert seen == [requested(model, 0.8)] * STEPS_PER_EPOCH


def test_the_largest_weights_are_kept():
    model = compiled(keras.optimizers.SGD(0.0))
    before = [np.abs(kernel.numpy()) for _, kernel in select_kernels(model)]
    fit(model, prune(), epochs=2)
    for magnitudes, (_, kernel) in zip(before, select_kernels(model), strict=True):
        kept = kernel.numpy() != 0
        assert magnitudes[kept].min() > magnitudes[~kept].max()
        assert np.array_equal(np.abs(kernel.numpy())[kept], magnitudes[kept])


def test_a_filter_leaves_the_others_dense():
    model = compiled()
    history = fit(model, prune(layers="hidden"))
    assert_sparse(model, 0.8, "hidden")
    assert_sparse(model, 0.0, "conv|head")
    assert history["sparsity"][-1] == pytest.approx(0.8)


def test_frozen_layers_are_pruned_like_the_others():
    model = small_model()
    model.get_layer("conv").trainable = False
    model.compile("adam", "mse")
    fit(model, prune())
    assert_sparse(model)


def test_two_callbacks_share_a_model():
    model = compiled()
    fit(model, prune(0.5, layers="conv"), prune(0.9, layers="hidden"))
    assert_sparse(model, 0.5, "conv")
    assert_sparse(model, 0.9, "hidden")
    assert_sparse(model, 0.0, "head")


def test_two_callbacks_on_one_kernel_are_refused():
    with pytest.raises(ConfigError, match=r"layer 'hidden' is already pruned by another"):
        fit(compiled(), prune(layers="hidden"), prune(layers=".*"))


def test_the_users_constraint_runs_and_is_back_afterwards():
    model = small_model(kernel_constraint="non_neg")
    model.compile("adam", "mse")
    hidden = model.get_layer("hidden")
    users = hidden.kernel.constraint
    seen = []
    fit(model, prune(0.4), Watch(lambda: seen.append(float(np.min(hidden.kernel)))))
    assert min(seen) == 0.0
    assert hidden.kernel.constraint is users
    assert model.get_layer("conv").kernel.constraint is None


def test_a_later_fit_without_the_callback_is_free():
    model = compiled()
    fit(model, prune())
    fit(model)
    assert sum(zeros(model)) < sum(requested(model, 0.8)) / 2


def test_evaluate_and_predict_install_nothing():
    model = compiled()
    callback = prune()
    model.evaluate(X, Y, verbose=0, callbacks=[callback])
    model.predict(X, verbose=0, callbacks=[callback])
    assert all(kernel.constraint is None for _, kernel in select_kernels(model))


class Interrupt(keras.callbacks.Callback):
    def __init__(self, at_epoch):
        super().__init__()
        self.at_epoch = at_epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.at_epoch:
            raise KeyboardInterrupt


@pytest.mark.parametrize("same_instance", [True, False])
def test_a_fit_that_was_interrupted_leaves_nothing_behind(same_instance):
    model = small_model(kernel_constraint="non_neg")
    model.compile("adam", "mse")
    hidden = model.get_layer("hidden")
    users = hidden.kernel.constraint
    first = prune()
    with pytest.raises(KeyboardInterrupt):
        fit(model, first, Interrupt(1))
    fit(model, first if same_instance else prune(0.6, layers="conv"))
    assert hidden.kernel.constraint is users
    assert model.get_layer("conv").kernel.constraint is None
    assert_sparse(model, 0.8 if same_instance else 0.6, "conv")


def test_backup_and_restore_equals_an_uninterrupted_fit(tmp_path):
    # 7 does not divide the epoch of 8 steps, so the restart falls between two updates.
    whole, broken, resumed = compiled(), compiled(), compiled()
    fit(whole, prune(frequency=7, end_step=22), epochs=3)
    backup = [keras.callbacks.BackupAndRestore(tmp_path / name) for name in ("backup", "backup")]
    with pytest.raises(KeyboardInterrupt):
        fit(broken, prune(frequency=7, end_step=22), backup[0], Interrupt(2), epochs=3)
    history = fit(resumed, prune(frequency=7, end_step=22), backup[1], epochs=3)
    assert len(history["loss"]) == 1
    for expected, received in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        assert np.array_equal(expected, received)


def test_checkpoints_in_mid_training_are_sparse_and_plain(tmp_path):
    path = str(tmp_path / "{epoch}.keras")
    model = compiled()
    fit(model, prune(end_step=8, frequency=4), keras.callbacks.ModelCheckpoint(path))
    first = keras.models.load_model(path.format(epoch=1))
    assert_sparse(first)
    assert all(kernel.constraint is None for _, kernel in select_kernels(first))
    assert len(first.weights) == len(small_model().weights)


def test_checkpoints_of_swapped_averages_are_sparse(tmp_path):
    path = str(tmp_path / "{epoch}.keras")
    model = compiled(keras.optimizers.Adam(use_ema=True))
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    fit(model, swap, prune(end_step=8), keras.callbacks.ModelCheckpoint(path))
    assert_sparse(keras.models.load_model(path.format(epoch=1)))
    assert_sparse(model)


def test_validation_sees_masked_averages():
    model = compiled(keras.optimizers.Adam(use_ema=True))
    seen = []

    class AtValidation(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            seen.append(zeros(model))

    fit(
        model,
        keras.callbacks.SwapEMAWeights(),
        prune(end_step=8),
        AtValidation(),
        validation_data=(X, Y),
    )
    assert seen == [requested(model, 0.8)] * 2


def test_a_fit_that_ends_too_early_warns():
    model = compiled()
    text = r"a sparsity of 0\.\d{4} of the 0.8 asked for, because the fit ended at step 8, before end_step=80"
    with pytest.warns(UserWarning, match=text):
        fit(model, prune(end_step=80), epochs=1)
    assert model.get_layer("conv").kernel.constraint is None


def test_weights_that_became_nan_are_named():
    model = compiled()

    def poison():
        kernel = model.get_layer("hidden").kernel
        kernel.assign(np.full(kernel.shape, np.nan, np.float32))

    with pytest.raises(ModelError, match=r"kernel of the layer 'hidden': .* NaN"):
        fit(model, Watch(poison), prune(frequency=1, layers="hidden"))


def test_a_schedule_that_leaves_the_range_names_the_step():
    with pytest.raises(ConfigError, match=r"schedule\(5\) must be in \[0, 1\). Received: 50"):
        fit(compiled(), prune(schedule=lambda step: 10 * step))


@pytest.mark.parametrize("schedule", [constant(0.3), step_decay(0.3, factor=1.0, every_steps=3)])
def test_any_schedule_of_the_package_serves(schedule):
    model = compiled()
    fit(model, prune(schedule=schedule))
    assert_sparse(model, 0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"final_sparsity": 80}, r"final_sparsity must be in \[0, 1\). Received: 80. Did you mean 0.80\?"),
        ({"final_sparsity": 1.0}, r"final_sparsity must be in \[0, 1\). Received: 1.0.$"),
        ({"final_sparsity": 0.5, "initial_sparsity": 0.6}, r"at most final_sparsity \(0.5\). Received: 0.6"),
        ({"begin_step": -1}, r"begin_step must be a whole number of at least 0. Received: -1"),
        ({"begin_step": 20}, r"end_step must be at least begin_step \(20\). Received: 10"),
        ({"end_step": None}, r"end_step must be a whole number.* Received: None"),
        ({"frequency": 0}, r"frequency must be a whole number of at least 1. Received: 0"),
        ({"schedule": 0.5}, r"schedule must be a function.* Received: 0.5. Wrap a number as .*constant"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ConfigError, match="^MagnitudePruning: .*" + message):
        MagnitudePruning(**{"end_step": 10, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"allocation": "uniform"}, r"allocation must be one of .*'erk'.* Received: 'uniform'"),
        ({"pattern": "4:2"}, r"pattern must be 'N:M' with 1 ≤ N < M.* Received: '4:2'"),
        ({"block": 4}, r"block must be two whole numbers.* Received: 4"),
        ({"block": (1, 0)}, r"block must be two whole numbers.* Received: \(1, 0\)"),
        ({"block_pooling": "sum"}, r"block_pooling must be 'average' or 'max'. Received: 'sum'"),
        ({"pattern": "2:4", "block": (1, 4)}, r"exclude each other. Received: '2:4' and \(1, 4\)"),
        ({"pattern": "2:4", "final_sparsity": 0.8}, r"'2:4' ends at a sparsity of 0.5. Received: final_sparsity=0.8"),
        ({"pattern": "2:4", "allocation": "erk"}, r"'2:4' has the same sparsity in every kernel.*'erk'"),
        ({"layers": {"a": 0.5}, "final_sparsity": 0.8}, r"how sparse each kernel ends, and so does final_sparsity="),
        ({"layers": {"a": 0.5}, "schedule": constant(0.5)}, r"and so does schedule="),
        ({"layers": {"a": 0.5}, "pattern": "2:4"}, r"and so does pattern="),
        ({"layers": {"a": 0.5}, "allocation": "global"}, r"and so does allocation="),
        ({"layers": {"a": 50}}, r"layers\['a'\] must be in \[0, 1\). Received: 50. Did you mean 0.50\?"),
        ({"layers": {"a": 0.5}, "initial_sparsity": 0.6}, r"at most layers\['a'\] \(0.5\). Received: 0.6"),
        ({"layers": {}}, r"layers=\{\} prunes nothing"),
    ],
    ids=lambda value: value if isinstance(value, str) else ", ".join(value),
)
def test_arguments_that_do_not_fit_are_named(options, message):
    with pytest.raises(ConfigError, match="^MagnitudePruning: .*" + message):
        MagnitudePruning(**{"end_step": 10, **options})


@pytest.mark.parametrize("allocation", ["global", "erk"])
def test_allocations_differ_between_layers_and_meet_the_total(allocation):
    model = compiled()
    history = fit(model, prune(0.9, allocation=allocation))
    sizes = [kernel.shape.num_elements() for _, kernel in select_kernels(model)]
    expected = {"global": sum(requested_of(sum(sizes), 0.9)), "erk": pytest.approx(0.9 * sum(sizes), abs=2)}
    assert sum(zeros(model)) == expected[allocation]
    assert len({round(count / size, 2) for count, size in zip(zeros(model), sizes, strict=True)}) > 1
    assert history["sparsity"][-1] == pytest.approx(0.9, abs=5e-3)


def requested_of(size, sparsity):
    return [size - round((1 - sparsity) * size)]


def test_global_keeps_the_largest_of_all_kernels():
    model = compiled(keras.optimizers.SGD(0.0))
    before = np.concatenate([np.abs(kernel.numpy()).ravel() for _, kernel in select_kernels(model)])
    fit(model, prune(allocation="global"))
    kept = np.concatenate([kernel.numpy().ravel() for _, kernel in select_kernels(model)]) != 0
    assert before[kept].min() > before[~kept].max()


def test_a_kernel_that_global_allocation_empties_is_named():
    model = compiled(keras.optimizers.SGD(0.0))
    head = model.get_layer("head").kernel
    head.assign(head * 1e-6)
    with pytest.warns(UserWarning, match=r"left no weight in the kernels of head: .*'erk'"):
        fit(model, prune(allocation="global"))


def test_weights_that_became_nan_are_named_under_global_allocation():
    model = compiled()

    def poison():
        kernel = model.get_layer("hidden").kernel
        kernel.assign(np.full(kernel.shape, np.nan, np.float32))

    with pytest.raises(ModelError, match=r"kernel of the layer 'hidden': .* NaN"):
        fit(model, Watch(poison), prune(frequency=1, allocation="global"))


def test_targets_per_layer():
    model = compiled()
    fit(model, prune(None, layers={"conv": 0.5, "h.*": 0.9, lambda layer: layer.name == "hidden": 0.1}))
    assert_sparse(model, 0.5, "conv")
    assert_sparse(model, 0.9, "hidden|head")  # the first filter that matches counts
    with pytest.raises(ConfigError, match=r"layers='tail' matches no layer.* Available: conv, hidden, head"):
        fit(compiled(), prune(None, layers={"conv": 0.5, "tail": 0.5}))


def groups_of_inputs(kernel, size):
    """Whole groups along the inputs, in the layout (..., out, in) that TFLite stores."""
    rows = np.swapaxes(kernel, -1, -2)
    rows = rows[..., : rows.shape[-1] // size * size]
    return rows.reshape(-1, size)


def test_every_group_of_a_pattern_has_its_zeros():
    model, seen = compiled(), []
    hidden = model.get_layer("hidden").kernel
    fit(
        model,
        MagnitudePruning(end_step=10, frequency=2, pattern="2:4", layers="hidden"),
        Watch(lambda: seen.append(int(np.sum(np.count_nonzero(groups_of_inputs(hidden.numpy(), 4), axis=1) <= 2)))),
    )
    groups = groups_of_inputs(hidden.numpy(), 4)
    assert np.all(np.count_nonzero(groups, axis=1) == 2)
    assert seen == sorted(seen)  # ever more groups, by the ramp
    assert 0 < seen[2] < len(groups) == seen[-1]


def test_blocks_are_zeroed_as_one():
    model = compiled()
    fit(model, prune(0.75, block=(1, 4), block_pooling="max", layers="hidden"))
    blocks = np.count_nonzero(groups_of_inputs(model.get_layer("hidden").kernel.numpy(), 4), axis=1)
    assert set(blocks.tolist()) == {0, 4}
    assert np.sum(blocks > 0) == round(0.25 * len(blocks))


def test_a_kernel_that_a_pattern_does_not_fit_is_named():
    with pytest.raises(ConfigError, match=r"pattern='2:4' does not fit the kernel of 'conv': it has 2 input channels"):
        fit(compiled(), MagnitudePruning(end_step=4, pattern="2:4"))
    with pytest.raises(
        ConfigError, match=r"block=\(1, 16\) does not fit .*'head': it has 5 input and 3 output channels"
    ):
        fit(compiled(), prune(block=(1, 16), layers="head"))


def test_a_schedule_beyond_the_pattern_is_refused():
    with pytest.raises(ConfigError, match=r"pattern='2:4' has at most 0.5 zeros. Received a sparsity of 0.8"):
        fit(compiled(), MagnitudePruning(end_step=4, schedule=constant(0.8), pattern="2:4", layers="hidden"))


def test_depthwise_kernels_are_pruned_on_demand():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6, 6, 2)), layers.DepthwiseConv2D(3), layers.SeparableConv2D(3, 3)])
    model.add(layers.GlobalAveragePooling2D())
    model.compile("adam", "mse")
    separable = model.layers[1]
    fit(model, prune(0.5))
    assert np.count_nonzero(model.layers[0].kernel) == 18
    assert np.count_nonzero(separable.depthwise_kernel) == 18
    fit(model, prune(0.5, depthwise=True))
    assert np.count_nonzero(model.layers[0].kernel) == 9
    assert np.count_nonzero(separable.depthwise_kernel) == 9
    assert np.count_nonzero(separable.pointwise_kernel) == 3


def test_a_zeroed_weight_grows_back_until_end_step():
    # The gradient of each weight is -1 at the first and +1 elsewhere: only a free first weight grows.
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, use_bias=False)])
    kernel = model.layers[0].kernel
    model.compile(keras.optimizers.SGD(1.0), lambda y_true, y_pred: keras.ops.mean(y_pred))
    x = np.array([[-10.0, 0.0, 0.0, 0.0]], np.float32).repeat(4, 0)

    def masks(**options):
        kernel.assign(np.array([[0.1], [0.2], [0.3], [0.4]], np.float32))
        seen = []
        watch = Watch(lambda: seen.append(np.flatnonzero(kernel).tolist()))
        callbacks = [MagnitudePruning(schedule=constant(0.5), **options), watch]
        model.fit(x, x[:, :1], batch_size=1, verbose=0, callbacks=callbacks)
        return seen

    assert masks(end_step=0) == [[2, 3]] * 4
    assert masks(end_step=None, frequency=3) == [[2, 3], [2, 3], [0, 3], [0, 3]]
    assert masks(end_step=2, frequency=1) == [[0, 3]] * 4


def test_a_schedule_without_end_is_complete_whenever_the_fit_ends():
    model = compiled()
    fit(model, MagnitudePruning(schedule=constant(0.5), frequency=4), epochs=1)
    assert_sparse(model, 0.5)


def test_a_subclassed_model_is_pruned():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = small_model()

        def call(self, x):
            return self.inner(x)

    model = Subclassed()
    model(X[:1])
    model.compile("adam", "mse")
    fit(model, prune())
    assert_sparse(model)


# Logical devices must be set before TensorFlow starts, hence a process of its own.
MIRRORED = textwrap.dedent("""
    import keras, numpy as np, tensorflow as tf
    from tfopt.callbacks import LearningRate, MagnitudePruning
    from tfopt.schedules import constant

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = keras.Sequential(
            [keras.Input((10,)), keras.layers.Dense(7, kernel_constraint="max_norm"), keras.layers.Dense(3)]
        )
        model.compile(keras.optimizers.Adam(), "mse")
    x = np.random.default_rng(0).normal(size=(32, 10)).astype("float32")
    prune = MagnitudePruning(0.8, end_step=12, frequency=5)
    rate = LearningRate(constant(0.01))
    history = model.fit(x, x[:, :3], batch_size=4, epochs=2, verbose=0, callbacks=[prune, rate]).history
    print("rate", round(history["learning_rate"][-1], 6))
    print("replicas", strategy.num_replicas_in_sync)
    for layer in model.layers:
        copies = [copy.numpy() for copy in strategy.experimental_local_results(layer.kernel.value)]
        print("zeros", [int((copy == 0).sum()) for copy in copies], np.array_equal(*copies))
""")


@pytest.mark.thorough
def test_zeros_are_exact_under_a_mirrored_strategy():
    done = subprocess.run([sys.executable, "-c", MIRRORED], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "rate 0.01",
        "replicas 2",
        "zeros [56, 56] True",
        "zeros [17, 17] True",
    ]


@pytest.mark.parametrize(
    ("target", "options", "warned"),
    [
        (
            "edge_tpu",
            {"block": (1, 4), "layers": "hidden"},
            "not make the model faster on edge_tpu: the Edge TPU multiplies zeros too",
        ),
        ("tflite", {}, r"TFLite multiplies single zeros too; Dense layers gain from block=\(1, 4\)"),
        ("tflite", {"block": (1, 4), "layers": "hidden"}, None),
        ("ethos_u", {}, None),
    ],
)
def test_a_target_that_cannot_use_the_zeros_is_named_before_training(target, options, warned):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(compiled(), prune(target=target, **options))
    messages = [str(one.message) for one in caught if "faster" in str(one.message)]
    assert len(messages) == (warned is not None)
    if warned:
        assert re.search(warned, messages[0])
        with pytest.warns(UserWarning, match=warned), pytest.raises(RuntimeError, match="stop"):
            fit(compiled(), prune(target=target, **options), Stop())


class Stop(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        raise RuntimeError("stop")


def test_an_unknown_target_is_refused():
    with pytest.raises(ConfigError, match=r"MagnitudePruning: target must be one of tflite, .* Received: 'gpu'"):
        prune(target="gpu")


def test_an_embedding_is_pruned_where_it_is_chosen():
    """Its gradients are sparse: rows of words that a batch does not hold get no update."""
    model = keras.Sequential(
        [keras.Input((6,), dtype="int32"), layers.Embedding(40, 4, name="words"), layers.Flatten(), layers.Dense(3)]
    )
    model.compile("adam", "mse")
    tokens = rng.integers(0, 20, (32, 6))
    callback = prune(0.5, layers=lambda layer: True, end_step=8, frequency=2)
    history = model.fit(tokens, Y, batch_size=4, epochs=2, verbose=0, callbacks=[callback]).history
    assert zeros(model, "words") == [80]
    assert history["sparsity"][-1] == 0.5
    kept = np.array(model.get_layer("words").embeddings)
    model.fit(tokens, Y, batch_size=4, verbose=0, callbacks=[prune(0.5, layers="words", begin_step=0, end_step=0)])
    assert zeros(model, "words") == [80]
    assert not np.array_equal(kept, model.get_layer("words").embeddings)
