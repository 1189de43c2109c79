import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_digits

from tfopt.callbacks import MagnitudePruning
from tfopt.errors import DataError, ModelError
from tfopt.quantization import is_quantize_aware, quantize_aware
from tfopt.quantization.layers import FakeQuantize, QuantizeAware

pytestmark = pytest.mark.slow

SAMPLES = np.random.default_rng(0).normal(size=(40, 6, 6, 3)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 3, 40)


def small_model(**options):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 3), name="x"),
            layers.Conv2D(4, 3, use_bias=False, name="conv", **options),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.Flatten(name="flat"),
            layers.Dense(3, activation="softmax", name="scores"),
        ]
    )


def two_inputs():
    keras.utils.set_random_seed(0)
    image, vector = keras.Input((6, 6, 3), name="image"), keras.Input((4,), name="vector")
    joined = layers.Concatenate(name="joined")([layers.GlobalAveragePooling2D(name="pool")(image), vector])
    outputs = {"scores": layers.Dense(3, name="scores")(joined), "joined": layers.Softmax(name="share")(joined)}
    return keras.Model({"image": image, "vector": vector}, outputs)


PAIR = {"image": SAMPLES, "vector": 5 * SAMPLES[:, 0, 0, [0, 1, 2, 0]]}


def ranges_of(model):
    return {
        layer.name: [float(end) for end in layer.range()] for layer in model.layers if isinstance(layer, FakeQuantize)
    }


def test_outputs_are_close_to_the_float_models_but_rounded():
    model = small_model()
    aware = quantize_aware(model, calibration=SAMPLES)
    expected, received = model.predict(SAMPLES, verbose=0), aware.predict(SAMPLES, verbose=0)
    assert 1e-4 < np.abs(expected - received).max() < 0.05
    np.testing.assert_allclose(received * 256, np.round(received * 256), atol=1e-4)


def test_original_is_left_as_it_is():
    model = small_model()
    model.compile("adam", "sparse_categorical_crossentropy")
    config, before, output = model.get_config(), model.get_weights(), model.get_layer("conv").output
    aware = quantize_aware(model, calibration=SAMPLES)
    aware.compile("sgd", "sparse_categorical_crossentropy")
    aware.fit(SAMPLES, LABELS, verbose=0)
    assert model.get_config() == config
    assert model.get_layer("conv").output is output
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_weights_start_as_the_float_models():
    model = small_model()
    aware = quantize_aware(model)
    for old, new in zip(model.get_layer("conv").weights, aware.get_layer("conv_int8").layer.weights, strict=True):
        np.testing.assert_array_equal(old, new)
    for old, new in zip(model.get_layer("norm").weights, aware.get_layer("norm_folded").layer.weights, strict=True):
        np.testing.assert_array_equal(old, new)
    assert len(aware.trainable_weights) == len(model.trainable_weights)


def test_outputs_keep_their_names_and_structure():
    model = two_inputs()
    aware = quantize_aware(model, calibration=PAIR)
    assert aware.output_names == model.output_names
    assert [x.name for x in aware.inputs] == [x.name for x in model.inputs]
    assert aware(PAIR).keys() == {"scores", "joined"}
    losses = {"scores": "mse", "joined": "mse"}
    targets = {"scores": np.zeros((40, 3)), "joined": np.zeros((40, 7))}
    aware.compile("sgd", losses)
    assert np.isfinite(aware.evaluate(PAIR, targets, verbose=0)).all()


def test_output_of_a_sequential_model_has_its_last_layers_name():
    assert quantize_aware(small_model()).output_names == ["scores"]


def test_outputs_of_one_layer_and_inputs_that_are_outputs_are_told_apart():
    x = keras.Input((4,), name="x")
    shared = layers.Dense(4, name="shared")
    model = keras.Model(x, [shared(shared(x)), shared(x), *keras.ops.split(x, 2, axis=-1), x])
    samples = PAIR["vector"]
    aware = quantize_aware(model, calibration=samples)
    assert len(set(aware.output_names)) == 5
    assert aware.output_names[0] == "shared"
    for expected, received in zip(model(samples), aware(samples), strict=True):
        step = (max(np.max(expected), 0) - min(np.min(expected), 0)) / 255
        np.testing.assert_allclose(received, expected, atol=8 * step)


def test_shared_layer_and_a_layer_named_like_its_second_use_have_ranges_of_their_own():
    x = keras.Input((4,), name="x")
    shared = layers.Dense(4, name="dense")
    large = layers.Dense(4, kernel_initializer=keras.initializers.RandomNormal(stddev=100.0), name="dense_2")
    model = keras.Model(x, layers.Concatenate()([shared(shared(x)), layers.Softmax()(large(x))]))
    aware = quantize_aware(model, calibration=PAIR["vector"])
    ranges = ranges_of(aware)
    assert sum(limits[1] > 100 for limits in ranges.values()) == 1
    assert len(ranges) == 4


def test_without_calibration_the_first_training_batch_sets_the_ranges():
    aware = quantize_aware(small_model())
    assert set(map(tuple, ranges_of(aware).values())) == {(0.0, 0.0)}
    aware.compile("sgd", "sparse_categorical_crossentropy")
    aware.train_on_batch(SAMPLES, LABELS)
    np.testing.assert_allclose(ranges_of(aware)["x_range"], [SAMPLES.min(), SAMPLES.max()])


@pytest.mark.parametrize(
    "calibration",
    [
        PAIR,
        [PAIR["image"], PAIR["vector"]],
        tf.data.Dataset.from_tensor_slices(PAIR).batch(16),
        tf.data.Dataset.from_tensor_slices((PAIR, LABELS)).batch(16),
        tf.data.Dataset.from_tensor_slices(((PAIR["image"], PAIR["vector"]), LABELS)).batch(16),
    ],
    ids=["dict", "list", "dataset", "dataset_with_targets", "dataset_of_tuples"],
)
def test_calibration_of_several_inputs(calibration):
    ranges = ranges_of(quantize_aware(two_inputs(), calibration=calibration))
    np.testing.assert_allclose(ranges["image_range"], [SAMPLES.min(), SAMPLES.max()])
    lowest, highest = PAIR["vector"].min(), PAIR["vector"].max()
    shared = next(limits for name, limits in ranges.items() if name in {"pool_range", "vector_range"})
    assert shared[0] == pytest.approx(lowest)
    assert shared[1] == pytest.approx(highest)


def test_calibration_from_a_dataset_of_batches():
    dataset = tf.data.Dataset.from_tensor_slices((SAMPLES, LABELS)).batch(7)
    expected = ranges_of(quantize_aware(small_model(), calibration=SAMPLES))
    received = ranges_of(quantize_aware(small_model(), calibration=dataset))
    assert received.keys() == expected.keys()
    np.testing.assert_allclose(list(received.values()), list(expected.values()), atol=1e-5)


def test_number_of_calibration_samples_is_limited():
    samples = SAMPLES.copy()
    samples[1:-1] *= 100
    aware = quantize_aware(small_model(), calibration=samples, calibration_samples=2)
    ends = samples[[0, -1]]
    np.testing.assert_allclose(ranges_of(aware)["x_range"], [ends.min(), ends.max()])


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (SAMPLES[:0], "input 'x' is empty"),
        (np.full_like(SAMPLES, np.nan), "must be finite.*Received: 4320 NaN"),
        (SAMPLES[..., :2], r"must have shape \(n, 6, 6, 3\)\. Received: \(40, 6, 6, 2\)"),
        (SAMPLES[0], r"must have shape \(n, 6, 6, 3\)\. Received: \(6, 6, 3\)"),
        ([["a"] * 3], "must"),
        (tf.data.Dataset.from_tensor_slices(SAMPLES).take(0).batch(2), "empty tf.data.Dataset"),
        ({"z": SAMPLES}, r"lacks the inputs \['x'\]"),
    ],
    ids=["empty", "nan", "channels", "one_sample", "text", "empty_dataset", "other_name"],
)
def test_calibration_that_does_not_fit_is_refused(calibration, message):
    with pytest.raises(DataError, match=message):
        quantize_aware(small_model(), calibration=calibration)


def test_missing_input_of_several_is_refused():
    with pytest.raises(DataError, match=r"each of the model's 2 inputs \(image, vector\)\. Received: 1"):
        quantize_aware(two_inputs(), calibration=[SAMPLES])


def test_quantize_aware_model_is_refused():
    aware = quantize_aware(small_model())
    assert is_quantize_aware(aware)
    with pytest.raises(ModelError, match="already quantize-aware"):
        quantize_aware(aware)
    assert not is_quantize_aware(small_model())


def test_strict_names_each_layer_in_float_and_its_reason():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(4, activation="squareplus", name="hidden"),
            layers.Lambda(lambda x: x, name="code"),
        ]
    )
    expected = (
        r"strict=True.*'hidden_activation' \(Activation\): the activation 'squareplus' has no int8 kernel; "
        r"'code' \(Lambda\): the code of a Lambda is unknown"
    )
    with pytest.raises(ModelError, match=expected):
        quantize_aware(model, strict=True)
    assert quantize_aware(model)(np.ones((2, 4))).shape == (2, 4)


def test_unbuilt_and_diverged_models_are_refused():
    with pytest.raises(ModelError, match="is not built"):
        quantize_aware(keras.Sequential([layers.Dense(2)]))
    model = small_model()
    model.get_layer("conv").kernel.assign(np.full((3, 3, 3, 4), np.nan))
    with pytest.raises(ModelError, match="has NaN or infinite values"):
        quantize_aware(model)


@pytest.mark.thorough
@pytest.mark.parametrize("options", [{"steps_per_execution": 8}, {"jit_compile": True}], ids=str)
def test_fit_works_however_the_step_runs(options):
    aware = quantize_aware(small_model(), calibration=SAMPLES)
    plain = quantize_aware(small_model(), calibration=SAMPLES)
    histories = []
    for model, chosen in ((aware, options), (plain, {"run_eagerly": True})):
        model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy", **chosen)
        histories.append(model.fit(SAMPLES, LABELS, batch_size=5, epochs=2, shuffle=False, verbose=0).history["loss"])
    assert histories[0][-1] < histories[0][0]
    np.testing.assert_allclose(*histories, rtol=0.02)
    batches = [int(layer.batches[0]) for layer in aware.layers if isinstance(layer, FakeQuantize)]
    assert set(batches) == {1 + 16}
    assert ranges_of(aware)["x_range"] == pytest.approx(ranges_of(plain)["x_range"])


def test_fit_works_in_mixed_float16():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        aware = quantize_aware(small_model(), calibration=SAMPLES)
        aware.compile("adam", "sparse_categorical_crossentropy")
        loss = aware.fit(SAMPLES, LABELS, batch_size=20, epochs=8, verbose=0).history["loss"]
    finally:
        keras.config.set_dtype_policy("float32")
    assert loss[-1] < loss[0]
    assert aware.get_layer("conv_int8").compute_dtype == "float16"
    assert {weight.dtype for weight in aware.weights} == {"float32"}


def test_layers_keep_their_dtypes_in_a_mixed_model():
    x = keras.Input((4,), dtype="float32")
    hidden = layers.Dense(4, activation="relu", dtype="mixed_float16")(x)
    model = keras.Model(x, layers.Dense(3, activation="softmax", dtype="float32", name="scores")(hidden))
    aware = quantize_aware(model, calibration=SAMPLES[:, 0, 0, [0, 1, 2, 0]])
    assert aware.output.dtype == "float32"
    assert aware.get_layer("scores_int8").compute_dtype == "float32"
    assert [layer.compute_dtype for layer in aware.layers if isinstance(layer, QuantizeAware)] == [
        "float16",
        "float32",
    ]


def test_pruned_weights_stay_exact_zeros_in_the_rounded_kernel():
    aware = quantize_aware(small_model(), calibration=SAMPLES)
    aware.compile("adam", "sparse_categorical_crossentropy")
    prune = MagnitudePruning(0.75, end_step=6, frequency=2)
    aware.fit(SAMPLES, LABELS, batch_size=10, epochs=2, verbose=0, callbacks=[prune])
    wrappers = [layer for layer in aware.layers if isinstance(layer, QuantizeAware)]
    assert len(wrappers) == 2
    for wrapper in wrappers:
        kernel, rounded = wrapper.layer.kernel.numpy(), wrapper.rounded_weights()["kernel"].numpy()
        assert np.count_nonzero(kernel) == round(0.25 * kernel.size)
        assert np.all(rounded[kernel == 0] == 0)


def test_fine_tuned_digits_are_within_two_points_of_float():
    digits = load_digits()
    x, y = (digits.images[..., np.newaxis] / 16).astype(np.float32), digits.target
    x_train, y_train, x_test, y_test = x[:1400], y[:1400], x[1400:], y[1400:]
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    options = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}
    model.compile(keras.optimizers.Adam(0.01), **options)
    model.fit(x_train, y_train, batch_size=50, epochs=5, verbose=0)
    aware = quantize_aware(model, calibration=x_train)
    aware.compile(keras.optimizers.Adam(0.001), **options)
    aware.fit(x_train, y_train, batch_size=50, epochs=1, verbose=0)
    accuracy = [m.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"] for m in (model, aware)]
    assert accuracy[0] > 0.85
    assert accuracy[1] >= accuracy[0] - 0.02


MIRRORED = textwrap.dedent("""
    import keras
    import numpy as np
    import tensorflow as tf

    from tfopt.quantization import quantize_aware
    from tfopt.quantization.layers import FakeQuantize

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    x[:16] *= 2
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(3, "relu"), keras.layers.Dense(1)])
        aware = quantize_aware(model)
        aware.compile(keras.optimizers.SGD(0.05), "mse")
    loss = aware.fit(x, x[:, :1], batch_size=32, epochs=8, shuffle=False, verbose=0).history["loss"]
    print("learns", loss[-1] < loss[0])
    for layer in aware.layers:
        if isinstance(layer, FakeQuantize):
            copies = [copy.numpy() for copy in strategy.experimental_local_results(layer.minima.value)]
            print("replicas agree", np.array_equal(*copies), "batches", float(layer.batches[0]))
    # Each replica sees one half of the batch; its range is the mean of theirs.
    expected = (x[:16].min() + x[16:].min()) / 2
    print("mean range", bool(np.isclose(aware.get_layer("x_range").minima[0], expected)))
""")


@pytest.mark.thorough
def test_fit_works_under_a_mirrored_strategy():
    done = subprocess.run([sys.executable, "-c", MIRRORED], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    agree = "replicas agree True batches 8.0"
    assert done.stdout.splitlines() == ["learns True", agree, agree, agree, "mean range True"]
