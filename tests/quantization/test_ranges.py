import keras
import numpy as np
import pytest
from keras import layers

from tfopt.quantization import quantize_aware
from tfopt.quantization.layers import FakeQuantize
from tfopt.quantization.ranges import calibrate


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
        model.get_layer(name).kernel.assign(aware.get_layer(f"{name}_int8").rounded_weights()[0][1])
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
