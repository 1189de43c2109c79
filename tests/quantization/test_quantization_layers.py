import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from reference_weights import weight_scales

from tfopt.quantization import quantize_aware
from tfopt.quantization.layers import FakeQuantize, FixedFakeQuantize, NamedOutput, QuantizeAware
from tfopt.quantization.spec import activation_grid


def rounded(x, minimum, maximum):
    grid = activation_grid(float(minimum), float(maximum))
    return grid.dequantize(grid.quantize(x))


def batch(minimum, maximum):
    return np.linspace(minimum, maximum, 12, dtype=np.float32).reshape(4, 3)


def train_on(layer, *limits, **options):
    for minimum, maximum in limits:
        layer(batch(minimum, maximum), training=True, **options)


def range_of(layer):
    return [float(end) for end in layer.range()]


def test_first_batches_are_averaged_evenly():
    layer = FakeQuantize(momentum=0.9)
    train_on(layer, (-1, 4))
    assert range_of(layer) == [-1, 4]
    train_on(layer, (-3, 2))
    assert range_of(layer) == [-2, 3]
    train_on(layer, (-5, 9))
    np.testing.assert_allclose(range_of(layer), [-3, 5], rtol=1e-6)
    assert layer.batches.numpy().tolist() == [3]


def test_later_batches_move_the_range_by_momentum():
    layer = FakeQuantize(momentum=0.75)
    train_on(layer, *[(-1, 2)] * 4)  # 3 / 4 of the fourth average is kept, just as momentum says
    train_on(layer, (-9, 10))
    np.testing.assert_allclose(range_of(layer), [0.75 * -1 + 0.25 * -9, 0.75 * 2 + 0.25 * 10], rtol=1e-6)
    train_on(layer, (0, 0))
    np.testing.assert_allclose(range_of(layer), [0.75 * -3, 0.75 * 4], rtol=1e-6)


def test_training_rounds_to_the_range_just_moved():
    layer = FakeQuantize()
    train_on(layer, (0, 2))
    x = batch(0, 4)
    np.testing.assert_allclose(layer(x, training=True)[0], rounded(x, 0, 3), atol=1e-6)


def test_inference_uses_the_observed_range_and_leaves_it():
    layer = FakeQuantize()
    train_on(layer, (-1, 2))
    x = batch(-5, 5)
    np.testing.assert_allclose(layer(x)[0], rounded(x, -1, 2), atol=1e-6)
    assert range_of(layer) == [-1, 2]
    assert layer.batches.numpy().tolist() == [1]


def test_before_anything_was_observed_the_batchs_own_range_is_used():
    layer = FakeQuantize()
    for x in (batch(-4, 5), batch(0, 0.1)):
        np.testing.assert_allclose(layer(x)[0], rounded(x, x.min(), x.max()), atol=1e-6)
    assert layer.batches.numpy().tolist() == [0]


def test_range_is_the_union_of_the_members():
    layer = FakeQuantize(members=3)
    train_on(layer, (-1, 2), (-3, 4), member=0)
    train_on(layer, (-1, 7), member=2)
    assert layer.minima.numpy().tolist() == [-2, 0, -1]
    assert layer.maxima.numpy().tolist() == [3, 0, 7]
    assert layer.batches.numpy().tolist() == [2, 0, 1]
    assert range_of(layer) == [-2, 7]
    x = batch(-2, 7)
    np.testing.assert_allclose(layer(x, member=2)[0], rounded(x, -2, 7), atol=1e-6)


def test_member_not_yet_observed_is_rounded_to_its_own_batchs_range():
    layer = FakeQuantize(members=2)
    train_on(layer, (-1, 1), member=0)
    x = batch(-4, 5)
    np.testing.assert_allclose(layer(x, member=1)[0], rounded(x, -4, 5), atol=1e-6)


def test_set_range_counts_as_one_batch():
    layer = FakeQuantize(members=2)
    layer.start_at(-1.0, 3.0, member=1)
    assert range_of(layer) == [-1, 3]
    assert layer.batches.numpy().tolist() == [0, 1]
    train_on(layer, (-3, 5), member=1)
    assert range_of(layer) == [-2, 4]


def test_ranges_are_not_trained():
    layer = FakeQuantize(members=2)
    assert layer.trainable_weights == []
    assert [weight.shape for weight in layer.weights] == [(2,), (2,), (2,)]


def test_float16_values_keep_their_dtype_and_ranges_theirs():
    layer = FakeQuantize(dtype="mixed_float16")
    x = ops.cast(batch(-1, 1), "float16")
    assert layer(x, training=True)[0].dtype == "float16"
    assert layer.minima.dtype == "float32"


def test_fixed_range_never_moves():
    layer = FixedFakeQuantize(0.0, 255 / 256)
    x = batch(-1, 2)
    np.testing.assert_allclose(layer(x)[0], rounded(x, 0, 255 / 256), atol=1e-6)
    assert layer.weights == []


LAYERS = {
    "dense": (lambda **options: layers.Dense(5, **options), (6,), (0,)),
    "dense_on_images": (lambda **options: layers.Dense(5, **options), (4, 4, 6), (0,)),
    "conv": (lambda **options: layers.Conv2D(5, 3, **options), (6, 6, 4), (0, 1, 2)),
    "depthwise": (
        lambda kernel_regularizer=None, **options: layers.DepthwiseConv2D(
            3, depthwise_regularizer=kernel_regularizer, **options
        ),
        (6, 6, 4),
        (0, 1),
    ),
}


def wrapped(kind, **options):
    keras.utils.set_random_seed(0)
    build, shape, axes = LAYERS[kind]
    model = keras.Sequential([keras.Input(shape), QuantizeAware(build(name="inner", **options), axes)])
    x = np.random.default_rng(0).normal(size=(16, *shape)).astype(np.float32)
    return model, model.layers[0], x


@pytest.mark.parametrize("kind", LAYERS)
def test_layer_runs_with_its_kernel_rounded_and_keeps_it_unrounded(kind):
    model, wrapper, x = wrapped(kind)
    kernel = wrapper.layer.kernel.numpy()
    received = model(x).numpy()
    np.testing.assert_array_equal(wrapper.layer.kernel.numpy(), kernel)

    scales = weight_scales(kernel, wrapper.scale_axes)
    on_grid = np.round(kernel / scales) * scales
    assert not np.allclose(on_grid, kernel, atol=1e-6)
    np.testing.assert_allclose(wrapper.rounded_weights()["kernel"], on_grid, rtol=1e-5, atol=1e-7)
    wrapper.layer.kernel.assign(on_grid)
    np.testing.assert_allclose(wrapper.layer(x), received, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", LAYERS)
def test_gradient_of_the_kernel_is_that_of_the_rounded_one(kind):
    _, wrapper, x = wrapped(kind)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(wrapper(x) ** 2)
    kernel, bias = tape.gradient(loss, [wrapper.layer.kernel.value, wrapper.layer.bias.value])
    wrapper.layer.kernel.assign(wrapper.rounded_weights()["kernel"])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(wrapper.layer(x) ** 2)
    expected = tape.gradient(loss, [wrapper.layer.kernel.value, wrapper.layer.bias.value])
    np.testing.assert_allclose(kernel, expected[0], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(bias, expected[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", LAYERS)
def test_training_lowers_the_loss_and_moves_the_kernel_off_the_grid(kind):
    model, wrapper, x = wrapped(kind)
    target = np.random.default_rng(1).normal(size=model(x).shape).astype(np.float32)
    model.compile(keras.optimizers.Adam(0.05), "mse", run_eagerly=True)
    loss = [float(model.train_on_batch(x, target)) for _ in range(10)]
    assert loss[-1] < 0.9 * loss[0]
    kernel = wrapper.layer.kernel.numpy()
    assert not np.allclose(wrapper.rounded_weights()["kernel"], kernel, atol=1e-6)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("regularizer", ["kernel_regularizer", "bias_regularizer", "activity_regularizer"])
def test_regularizers_count_once(kind, regularizer):
    options = {regularizer: keras.regularizers.L2(0.1), "bias_initializer": "ones"}
    model, wrapper, x = wrapped(kind, **options)
    plain = keras.Sequential([keras.Input(x.shape[1:]), wrapper.layer])
    plain(x)
    expected = [float(loss) for loss in plain.losses]
    model(x)
    received = [float(loss) for loss in model.losses]
    assert len(received) == len(expected) == 1
    np.testing.assert_allclose(received, expected, rtol=0.02)
    assert received[0] > 0

    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    np.testing.assert_allclose(model.train_on_batch(x, model(x)), received[0], rtol=1e-3)


def test_frozen_layer_has_nothing_to_train():
    model, wrapper, _ = wrapped("dense")
    wrapper.trainable = False
    assert model.trainable_weights == []
    assert len(model.non_trainable_weights) == 2


def test_named_output_passes_its_input_on():
    x = keras.Input((3,))
    model = keras.Model(x, NamedOutput(name="scores")(x))
    assert model.output_names == ["scores"]
    np.testing.assert_array_equal(model(batch(0, 1)), batch(0, 1))


@pytest.mark.parametrize(
    "layer",
    [
        FakeQuantize(3, 0.9, name="a"),
        FixedFakeQuantize(-1.0, 2.0, name="b"),
        QuantizeAware(layers.Dense(3), (0,), name="c"),
        NamedOutput(name="d"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_config_round_trip(layer):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained model, its data, its outputs, and the file it was saved to."""
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 6, 3))
    y = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    y = layers.BatchNormalization()(layers.DepthwiseConv2D(3)(layers.Concatenate()([x, y])))
    y = layers.Dense(3, activation="softmax", name="scores")(layers.Flatten()(y))
    model = quantize_aware(keras.Model(x, y))
    model.compile("adam", "sparse_categorical_crossentropy")
    generator = np.random.default_rng(0)
    data = generator.normal(size=(32, 6, 6, 3)).astype(np.float32)
    model.fit(data, generator.integers(0, 3, 32), epochs=2, verbose=0)
    path = tmp_path_factory.mktemp("trained") / "model.keras"
    model.save(path)
    return model, data, model.predict(data, verbose=0), path


@pytest.mark.slow
def test_saved_model_loads_with_the_same_outputs_ranges_and_optimizer(trained):
    model, data, expected, path = trained
    loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(loaded.predict(data, verbose=0), expected)
    for old, new in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(old, new)
    assert loaded.optimizer.iterations == model.optimizer.iterations

    history = loaded.fit(data, np.zeros(32), epochs=6, verbose=0).history["loss"]
    assert history[-1] < history[0]


LOAD = """
import sys
import keras
import numpy as np
import tfopt
model = keras.saving.load_model(sys.argv[1])
np.save(sys.argv[3], model.predict(np.load(sys.argv[2]), verbose=0))
"""


@pytest.mark.slow
def test_importing_tfopt_after_keras_is_enough_to_load(trained, tmp_path):
    _, data, expected, path = trained
    np.save(tmp_path / "x.npy", data)
    arguments = [str(path), str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)
