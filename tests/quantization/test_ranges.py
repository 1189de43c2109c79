import keras
import numpy as np
import pytest
from keras import layers

from tfopt.errors import DataError
from tfopt.quantization import quantize_aware
from tfopt.quantization.layers import FakeQuantize
from tfopt.quantization.range_search import Histogram, entropy_range, mse_range, percentile_range
from tfopt.quantization.ranges import calibrate
from tfopt.recipe import RANGE_METHODS


def small_model():
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 6, 3), name="x")
    y = layers.Conv2D(4, 3, padding="same", name="conv")(x)
    y = layers.BatchNormalization(name="norm")(layers.Concatenate(name="joined")([x, y]))
    y = layers.GlobalAveragePooling2D(name="pool")(layers.Dropout(0.5)(y))
    return keras.Model(x, layers.Dense(3, name="scores")(y))


def ranges_of(model):
    return {layer.name: layer for layer in model.layers if isinstance(layer, FakeQuantize)}


SAMPLES = np.random.default_rng(0).normal(1.0, 2.0, size=(70, 6, 6, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def calibrated():
    aware = quantize_aware(small_model())
    calibrate(aware, [SAMPLES], batch_size=32)  # the last batch holds 6
    return aware


@pytest.fixture(scope="module")
def values():
    """What each tensor is in the float model with rounded weights."""
    model = small_model()
    aware = quantize_aware(model)
    for name in ("conv", "scores"):
        model.get_layer(name).kernel.assign(aware.get_layer(f"{name}_int8").rounded_weights()["kernel"])
    names = ["x", "conv", "joined", "norm", "pool", "scores"]
    probe = keras.Model(model.input, [model.get_layer(name).output for name in names])
    return dict(zip(names, probe.predict(SAMPLES, verbose=0), strict=True))


def test_ranges_are_the_smallest_and_largest_values_of_the_samples(calibrated, values):
    ranges = ranges_of(calibrated)
    assert set(ranges) == {"x_range", "norm_range", "pool_range", "scores_range"}
    for name in ("norm", "pool", "scores"):
        received = [float(end) for end in ranges[f"{name}_range"].range()]
        np.testing.assert_allclose(received, [values[name].min(), values[name].max()], atol=1e-5)


def test_members_of_a_shared_range_are_calibrated_one_by_one(calibrated, values):
    grid = ranges_of(calibrated)["x_range"]
    members = [values[name] for name in ("x", "conv", "joined")]
    np.testing.assert_allclose(grid.minima, [member.min() for member in members], atol=1e-5)
    np.testing.assert_allclose(grid.maxima, [member.max() for member in members], atol=1e-5)
    assert grid.batches.numpy().tolist() == [1, 1, 1]


def test_calibration_changes_nothing_but_the_ranges(calibrated):
    fresh = quantize_aware(small_model())
    ranges = {weight.path for layer in ranges_of(fresh).values() for weight in layer.weights}
    for before, after in zip(fresh.weights, calibrated.weights, strict=True):
        if before.path not in ranges:
            np.testing.assert_array_equal(before, after)


def test_batch_size_does_not_matter(calibrated):
    other = quantize_aware(small_model())
    calibrate(other, [SAMPLES], batch_size=7)
    for one, another in zip(ranges_of(calibrated).values(), ranges_of(other).values(), strict=True):
        np.testing.assert_allclose(one.range(), another.range(), atol=1e-5)


def test_new_calibration_replaces_the_old_one():
    aware = quantize_aware(small_model(), calibration=100 * SAMPLES)
    calibrate(aware, [SAMPLES])
    grid = ranges_of(aware)["x_range"]
    assert float(grid.maxima[0]) == pytest.approx(SAMPLES.max())


@pytest.mark.slow
def test_each_method_sets_the_range_its_search_finds(values):
    for method in RANGE_METHODS:
        aware = quantize_aware(small_model())
        calibrate(aware, [SAMPLES], method=method, batch_size=32)
        grid = ranges_of(aware)["x_range"]
        for member, name in enumerate(("x", "conv", "joined")):
            histogram = Histogram(values[name].min(), values[name].max())
            histogram.add(values[name])
            expected = {
                "min_max": lambda found: (found.minimum, found.maximum),
                "percentile": percentile_range,
                "mse": lambda found: mse_range(found, steps=255),
                "entropy": lambda found: entropy_range(found, steps=255),
            }[method](histogram)
            received = grid.minima.numpy()[member], grid.maxima.numpy()[member]
            np.testing.assert_allclose(received, expected, atol=0.01)
        union = [float(end) for end in grid.range()]
        np.testing.assert_allclose(union, [grid.minima.numpy().min(), grid.maxima.numpy().max()])


@pytest.mark.slow
def test_searched_ranges_leave_outliers_out():
    samples = np.tile(SAMPLES, (8, 1, 1, 1))  # one value in 60,000 is then below 0.005 %
    samples[3, 0, 0, 0] = 200.0
    whole, most = (quantize_aware(small_model()) for _ in range(2))
    calibrate(whole, [samples])
    calibrate(most, [samples], method="percentile")
    assert float(ranges_of(whole)["x_range"].maxima[0]) == 200
    assert float(ranges_of(most)["x_range"].maxima[0]) < 20


def test_samples_that_overflow_are_refused():
    samples = np.full((4, 6, 6, 3), 3e38, np.float32)
    model = small_model()
    model.get_layer("conv").kernel.assign(np.full((3, 3, 3, 4), 10.0))
    aware = quantize_aware(model)
    with pytest.raises(DataError, match=r"finite activations\. Received: values from .* to inf at 'x_range'"):
        calibrate(aware, [samples])


def test_a_model_with_one_range():
    x = keras.Input((4, 2), name="x")
    aware = quantize_aware(keras.Model(x, [layers.MaxPooling1D(2)(x)]), calibration=np.ones((3, 4, 2), np.float32))
    (shared,) = ranges_of(aware).values()
    np.testing.assert_allclose(shared.range(), [1.0, 1.0])


def test_layers_may_have_the_names_of_operations():
    x = keras.Input((4, 2), name="min")
    y = layers.MaxPooling1D(2, name="max")(layers.Dense(3, name="cast")(x))
    model = keras.Model(x, layers.Dense(2, name="stack")(y))
    keras.utils.clear_session()  # so that Keras would call the next operations "min", "max", …
    aware = quantize_aware(model, calibration=np.ones((3, 4, 2), np.float32))
    np.testing.assert_allclose(ranges_of(aware)["min_range"].range(), [1.0, 1.0])
