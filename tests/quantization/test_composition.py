"""Quantization-aware training beside everything else that Keras and tfopt do in a fit."""

import subprocess
import sys
import textwrap
from operator import attrgetter

import keras
import numpy as np
import pytest
from keras import layers

from tfopt.callbacks import MagnitudePruning, PreserveCompression, QuantizationSchedule
from tfopt.export.tflite import export_tflite
from tfopt.export.tflite_file import read_tflite
from tfopt.quantization import quantize_aware, strip
from tfopt.quantization.layers import FakeQuantize, QuantizeAware
from tfopt.surgery.select import select_kernels

pytestmark = pytest.mark.slow

STEPS_PER_EPOCH = 8
X = np.random.default_rng(0).normal(size=(32, 6, 6, 3)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, 32)


def float_model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 3), name="x"),
            layers.Conv2D(8, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.Flatten(name="flat"),
            layers.Dense(3, activation="softmax", name="scores"),
        ]
    )


def compiled(model=None, optimizer=None, **options):
    aware = quantize_aware(float_model() if model is None else model, calibration=X)
    aware.compile(optimizer or keras.optimizers.Adam(0.005), "sparse_categorical_crossentropy", **options)
    return aware


def fit(model, *callbacks, epochs=2, **options):
    return model.fit(
        X, Y, batch_size=4, shuffle=False, epochs=epochs, verbose=0, callbacks=list(callbacks), **options
    ).history["loss"]


def assert_equal_weights(one, other):
    for expected, received in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(expected, received)


def ranges_of(model):
    return np.array(
        [[float(end) for end in layer.range()] for layer in model.layers if isinstance(layer, FakeQuantize)]
    )


@pytest.fixture
def policy(request):
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"], indirect=True)
@pytest.mark.parametrize("options", [{}, {"jit_compile": True}, {"steps_per_execution": 8}], ids=str)
def test_mixed_precision(policy, options):
    aware = compiled(**options)
    start = ranges_of(aware)
    loss = fit(aware, epochs=3)
    assert loss[-1] < loss[0]
    assert aware.get_layer("conv_int8").compute_dtype == policy.removeprefix("mixed_")
    assert {weight.dtype for weight in aware.weights} == {"float32"}
    moved = ranges_of(aware)
    assert np.isfinite(moved).all()
    assert not np.array_equal(moved[0], start[0])
    batches = {int(layer.batches[0]) for layer in aware.layers if isinstance(layer, FakeQuantize)}
    assert batches == {1 + 3 * STEPS_PER_EPOCH}


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.8),
        keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=3),
        keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=2),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01), initial_scale=4.0),
    ],
    ids=["ema", "ema_overwrite", "accumulation", "loss_scale"],
)
def test_every_kind_of_optimizer_trains(optimizer):
    aware = compiled(optimizer=optimizer.from_config(optimizer.get_config()))
    loss = fit(aware, epochs=4)
    assert loss[-1] < loss[0]
    assert np.isfinite(ranges_of(aware)).all()


def test_averages_of_weights_are_rounded_too():
    aware = compiled(optimizer=keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.8))
    fit(aware)
    kernel = aware.get_layer("conv_int8").layer.kernel
    twin = compiled()  # the same step without averages ends elsewhere
    fit(twin)
    assert not np.array_equal(kernel, twin.get_layer("conv_int8").layer.kernel)
    float_twin = strip(aware)
    assert np.array_equal(float_twin.get_layer("conv").kernel, kernel)
    outputs = aware.predict(X, verbose=0)
    np.testing.assert_allclose(outputs * 256, np.round(outputs * 256), atol=1e-4)
    aware.get_layer("conv_int8").layer.kernel.assign(aware.get_layer("conv_int8").rounded_weights()["kernel"])
    np.testing.assert_allclose(aware.predict(X, verbose=0), outputs, atol=1 / 256)


class Interrupt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def callbacks():
    return QuantizationSchedule(3, 10, 12), MagnitudePruning(0.75, end_step=10, frequency=3), PreserveCompression()


@pytest.mark.thorough
def test_backup_and_restore_equals_an_uninterrupted_fit(tmp_path):
    whole, broken, resumed = (compiled() for _ in range(3))
    fit(whole, *callbacks())
    with pytest.raises(KeyboardInterrupt):
        fit(broken, *callbacks(), keras.callbacks.BackupAndRestore(tmp_path), Interrupt())
    assert len(fit(resumed, *callbacks(), keras.callbacks.BackupAndRestore(tmp_path))) == 1
    assert_equal_weights(whole, resumed)


@pytest.mark.parametrize("options", [{}, {"use_ema": True}, {"gradient_accumulation_steps": 2}], ids=str)
def test_a_file_saved_in_mid_training_goes_on_as_if_it_had_not_been(tmp_path, options):
    path = tmp_path / "1.keras"
    whole = compiled(optimizer=keras.optimizers.Adam(0.005, **options))
    fit(whole, keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.keras")))
    resumed = keras.models.load_model(path)
    fit(resumed, initial_epoch=1)
    assert_equal_weights(whole, resumed)
    np.testing.assert_array_equal(whole.predict(X, verbose=0), resumed.predict(X, verbose=0))


LOAD = textwrap.dedent("""
    import sys
    import numpy as np
    {imports}
    import keras
    model = keras.models.load_model(sys.argv[1])
    np.save(sys.argv[3], model.predict(np.load(sys.argv[2]), verbose=0))
""")


@pytest.mark.thorough
def test_a_file_loads_in_a_fresh_process_without_custom_objects(tmp_path):
    aware = compiled()
    fit(aware, epochs=1)
    aware.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", X)
    arguments = [str(tmp_path / name) for name in ("model.keras", "x.npy", "y.npy")]
    command = [sys.executable, "-c", LOAD.format(imports="import tfopt.quantization"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), aware.predict(X, verbose=0))


def test_pruning_in_the_same_fit():
    aware = compiled()
    fit(aware, MagnitudePruning(0.75, end_step=10, frequency=3), PreserveCompression(), QuantizationSchedule(4, 8))
    for wrapper in aware.layers:
        if isinstance(wrapper, QuantizeAware):
            kernel = np.array(wrapper.layer.kernel)
            rounded = np.asarray(wrapper.rounded_weights()["kernel"])
            assert np.count_nonzero(kernel) == round(0.25 * kernel.size)
            assert np.all(rounded[kernel == 0] == 0)


def compressed_float_model():
    """The convolution pruned to half, the dense layer clustered to 5 values with zero among them."""
    model = float_model()
    (_, conv), (_, dense) = select_kernels(model)
    weights = np.array(conv)
    weights[np.abs(weights) < np.median(np.abs(weights))] = 0
    conv.assign(weights)
    codebook = np.array([-0.2, -0.1, 0.0, 0.1, 0.25], np.float32)
    dense.assign(codebook[np.abs(np.array(dense)[..., np.newaxis] - codebook).argmin(-1)])
    return model


def weights_in_file(path, operator):
    """The int8 weights of the file's only operator of a name."""
    (found,) = (each for each in read_tflite(path).operators if each.name == operator)
    (weights,) = (each for each in found.inputs if each.constant is not None and each.dtype == "INT8")
    return weights.values()


@pytest.mark.usefixtures("conversion_in_this_process")
def test_zeros_and_shared_values_reach_the_file(tmp_path):
    model = compressed_float_model()
    pruned, shared = (np.array(kernel) for _, kernel in select_kernels(model))
    aware = compiled(model)
    fit(aware, PreserveCompression(), QuantizationSchedule(2, 12, 12))
    after = [np.array(kernel) for _, kernel in select_kernels(aware)]
    np.testing.assert_array_equal(after[0] == 0, pruned == 0)
    assert np.unique(after[1]).size == np.unique(shared).size == 5
    np.testing.assert_array_equal(after[1] == 0, shared == 0)
    assert not np.isin(after[0][pruned != 0], pruned).all()

    path = tmp_path / "model.tflite"
    export_tflite(aware, path)
    conv = np.moveaxis(weights_in_file(path, "CONV_2D"), 0, -1)
    assert np.all(conv[pruned == 0] == 0)
    dense = weights_in_file(path, "FULLY_CONNECTED").T
    assert np.all(dense[shared == 0] == 0)
    for channel in range(dense.shape[1]):
        assert len(np.unique(dense[:, channel])) <= 5
        for value in np.unique(shared):
            assert len(np.unique(dense[shared[:, channel] == value, channel])) <= 1


RECURRENT = {
    "lstm": (lambda: layers.LSTM(4, dropout=0.5, seed=3), ("cell.kernel", "cell.recurrent_kernel")),
    "bidirectional": (
        lambda: layers.Bidirectional(layers.LSTM(4, dropout=0.5, seed=3)),
        tuple(
            f"{direction}_layer.cell.{kernel}"
            for direction in ("forward", "backward")
            for kernel in ("kernel", "recurrent_kernel")
        ),
    ),
}


def recurrent(kind):
    keras.utils.set_random_seed(0)
    build, weights = RECURRENT[kind]
    model = keras.Sequential(
        [keras.Input((6, 18)), QuantizeAware(build(), (0,), weights), layers.Dense(3, activation="softmax")]
    )
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    return model


def seeds(model):
    return [np.array(weight) for weight in model.non_trainable_variables if "int" in weight.dtype]


@pytest.mark.parametrize("kind", RECURRENT)
def test_dropout_within_a_wrapped_layer_is_drawn_anew_and_reproducibly(kind):
    x = X.reshape(32, 6, 18)
    one, other = recurrent(kind), recurrent(kind)
    before = seeds(one)
    assert len(before) >= 1
    losses = []
    for model in (one, other):
        history = model.fit(x, Y, batch_size=8, epochs=3, shuffle=False, verbose=0).history["loss"]
        losses.append(history)
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]
    assert_equal_weights(one, other)
    for old, new in zip(before, seeds(one), strict=True):
        assert not np.array_equal(old, new)
    # With the weights as they are, two training calls drop different units, two inference calls none.
    wrapper = one.layers[0]
    assert not np.allclose(wrapper(x, training=True), wrapper(x, training=True))
    np.testing.assert_array_equal(wrapper(x), wrapper(x))


@pytest.mark.parametrize("kind", RECURRENT)
def test_all_weights_of_a_recurrent_layer_are_rounded_and_trained(kind):
    model = recurrent(kind)
    wrapper = model.layers[0]
    x = X.reshape(32, 6, 18)
    before = wrapper.get_weights()
    received = np.asarray(model(x))
    weights = {name: np.asarray(rounded) for name, rounded in wrapper.rounded_weights().items()}
    assert list(weights) == list(wrapper.weight_names)
    for name, rounded in weights.items():
        variable = attrgetter(name)(wrapper.layer)
        assert not np.array_equal(variable, rounded)
        variable.assign(rounded)
    wrapper.rounding = False
    np.testing.assert_allclose(model(x), received, rtol=1e-4, atol=1e-6)
    wrapper.rounding = True
    wrapper.set_weights(before)
    model.fit(x, Y, batch_size=8, epochs=1, verbose=0)
    for old, new in zip(before, wrapper.get_weights(), strict=True):
        assert not np.array_equal(old, new)


# Logical devices must be set before TensorFlow starts, hence a process of its own.
MIRRORED = textwrap.dedent("""
    import keras, numpy as np, tensorflow as tf
    from tfopt.callbacks import MagnitudePruning, PreserveCompression, QuantizationSchedule
    from tfopt.quantization import quantize_aware, strip

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    keras.config.set_dtype_policy("mixed_bfloat16")
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(16, "relu"), keras.layers.Dropout(0.1),
            keras.layers.Dense(1)])
        aware = quantize_aware(model)
        aware.compile(keras.optimizers.Adam(0.01, use_ema=True), "mse")
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    callbacks = [MagnitudePruning(0.5, end_step=8, frequency=2), PreserveCompression(), QuantizationSchedule(4, 12)]
    loss = aware.fit(x, x[:, :1], batch_size=8, epochs=4, verbose=0, callbacks=callbacks).history["loss"]
    print("learns", loss[-1] < loss[0])
    agree = []
    for weight in aware.weights:
        copies = [copy.numpy() for copy in strategy.experimental_local_results(weight.value)]
        agree.append(np.array_equal(*copies) if len(copies) == 2 else True)
    print("replicas agree", all(agree))
    kernel = aware.layers[2].layer.kernel.numpy()
    print("zeros", int((kernel == 0).sum()))
""")


@pytest.mark.thorough
def test_everything_at_once_under_a_mirrored_strategy():
    done = subprocess.run([sys.executable, "-c", MIRRORED], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["learns True", "replicas agree True", "zeros 32"]
