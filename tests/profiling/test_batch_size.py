import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfopt.profiling.batch_size
from tfopt.errors import ConfigError, DataError, ModelError
from tfopt.profiling.batch_size import find_batch_size
from tfopt.profiling.step_cost import StepCost

rng = np.random.default_rng(0)
X = rng.normal(size=(512, 6)).astype(np.float32)
Y = rng.normal(size=(512, 1)).astype(np.float32)


def compiled():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(4), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
    )
    model.compile("adam", "mse")
    return model


@pytest.fixture
def machine(monkeypatch):
    """Steps take what a formula says, so that the answer is known; which sizes were timed is noted."""

    def install(step_ms, fits=lambda size: True):
        timed = []

        def time_steps(model, batches, *, seconds, min_steps=3):
            size = len(next(iter(batches))[0])
            if min_steps > 1:  # the first, unrecorded one has a single step
                timed.append(size)
            if not fits(size):
                raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
            return np.full(3, step_ms(size) / 1e3)

        monkeypatch.setattr(tfopt.profiling.batch_size, "time_steps", time_steps)
        return timed

    return install


@pytest.mark.parametrize("fixed_ms", [0.01, 0.5, 2.0, 8.0, 100.0])
@pytest.mark.parametrize("tolerance", [0.05, 0.1])
def test_the_knee_is_the_smallest_size_within_the_tolerance_of_an_exhaustive_sweep(machine, fixed_ms, tolerance):
    cost = StepCost(fixed_ms, 0.1)
    timed = machine(cost.step_ms)
    report = find_batch_size(compiled(), (X, Y), tolerance=tolerance)
    sweep = {size: cost.samples_per_second(size) for size in report.sizes}
    assert report.sizes == (8, 16, 32, 64, 128, 256, 512)
    assert report.batch_size == min(size for size in sweep if sweep[size] >= (1 - tolerance) * max(sweep.values()))
    assert report.samples_per_second == pytest.approx(sweep[report.batch_size])
    assert len(set(timed)) <= 4
    assert len(timed) <= 10


def test_a_throughput_that_falls_again_is_seen(machine):
    # Beyond 64 the batch no longer fits into the cache.
    machine(lambda size: 1 + 0.1 * size * (1 if size <= 64 else 2))
    report = find_batch_size(compiled(), (X, Y))
    assert report.batch_size == 64
    assert "Doubling it loses" in report.reason


def test_small_batches_that_leave_cores_idle_do_not_mislead_the_search(machine):
    # Measured on two cores: a line through all would promise more at 512 than a line through the larger ones.
    measured = {8: 30.0, 16: 37.8, 32: 60.0, 64: 108.0, 128: 213.0, 256: 419.0, 512: 825.0}
    timed = machine(measured.get)
    report = find_batch_size(compiled(), (X, Y))
    # The first line promises more at 256; 512 is not worth a trial.
    assert list(dict.fromkeys(timed)) == [16, 64, 256, 128]
    assert report.batch_size == 64


@pytest.mark.slow
def test_steps_of_noisy_length_still_end_the_search(machine):
    noise = np.random.default_rng(1)
    model = compiled()
    for _ in range(20):
        timed = machine(lambda size: noise.uniform(0.2, 5) * size)
        report = find_batch_size(model, (X[:64], Y[:64]))
        assert len(set(timed)) == len(report.trials)
        assert max(map(timed.count, timed)) <= 3
        assert timed.count(report.batch_size) == 3


@pytest.mark.parametrize("slowed", range(4))
def test_one_slow_timing_decides_nothing(machine, slowed):
    cost, calls = StepCost(2.0, 0.1), itertools.count()
    timed = machine(lambda size: cost.step_ms(size) * (1.6 if next(calls) == slowed else 1))
    report = find_batch_size(compiled(), (X, Y))
    sweep = {size: cost.samples_per_second(size) for size in report.sizes}
    assert sweep[report.batch_size] >= 0.9 * max(sweep.values())
    assert timed.count(report.batch_size) == 3


def test_what_does_not_fit_is_said_and_larger_sizes_are_not_tried(machine):
    timed = machine(StepCost(100.0, 0.1).step_ms, fits=lambda size: size < 128)
    report = find_batch_size(compiled(), (X, Y))
    assert report.batch_size == 64
    assert max(timed) <= 512
    assert "128 does not fit into memory" in report.reason or "does not fit" in str(report)
    too_large = [trial for trial in report.trials if trial.samples_per_second is None]
    assert too_large
    assert all(trial.batch_size >= 128 for trial in too_large)


def test_where_only_the_smallest_fits_it_is_the_answer(machine):
    machine(StepCost(100.0, 0.1).step_ms, fits=lambda size: size < 16)
    assert find_batch_size(compiled(), (X, Y)).batch_size == 8


def test_where_nothing_fits_that_is_the_error(machine):
    machine(StepCost(1.0, 0.1).step_ms, fits=lambda size: False)
    with pytest.raises(ConfigError, match=r"no size fits into memory. Received: min_size=8"):
        find_batch_size(compiled(), (X, Y))


def test_a_size_above_the_memory_limit_is_not_timed(machine):
    timed = machine(StepCost(100.0, 0.1).step_ms)
    report = find_batch_size(compiled(), (X, Y), memory_limit_bytes=1)
    assert list(dict.fromkeys(timed)) == [16, 8]
    assert report.batch_size == 16
    assert "32 does not fit into memory" in report.reason


def test_sizes_are_limited_by_arguments_and_by_the_samples(machine):
    machine(StepCost(100.0, 0.1).step_ms)
    assert find_batch_size(compiled(), (X[:100], Y[:100]), min_size=10).sizes == (10, 20, 40, 80)
    report = find_batch_size(compiled(), (X, Y), min_size=32, max_size=32)
    assert report.sizes == (32,)
    assert report.batch_size == 32
    assert "largest size" in report.reason


@pytest.mark.slow
def test_the_model_is_as_before_and_real_steps_are_timed():
    model, plain = compiled(), compiled()
    for one in (model, plain):
        one.fit(X, Y, shuffle=False, verbose=0)
    before = [np.array(value) for value in (*model.variables, *model.optimizer.variables)]
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
    report = find_batch_size(model, dataset, max_size=32, seconds=0.02)
    after = [np.array(value) for value in (*model.variables, *model.optimizer.variables)]
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
    assert model.fit(X, Y, shuffle=False, verbose=0).history == plain.fit(X, Y, shuffle=False, verbose=0).history
    assert report.batch_size in (8, 16, 32)
    assert all(trial.samples_per_second > 0 and trial.memory_bytes > 0 for trial in report.trials)
    lines = str(report).splitlines()
    assert lines[0].split() == ["batch", "size", "samples/s", "step", "ms", "memory"]
    assert sum("<- knee" in line for line in lines) == 1
    assert lines[-1] == report.reason


@pytest.mark.parametrize(
    "options",
    [{"min_size": 0}, {"max_size": 4}, {"tolerance": 5}, {"tolerance": 0}, {"seconds": 0}, {"memory_limit_bytes": 0}],
)
def test_bad_arguments_are_refused(options):
    with pytest.raises(ConfigError, match=r"find_batch_size: .*Received"):
        find_batch_size(compiled(), (X, Y), **options)


def test_a_model_or_data_that_cannot_train_is_refused():
    with pytest.raises(ModelError, match=r"find_batch_size: the model must be compiled"):
        find_batch_size(keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)]), (X, Y))
    with pytest.raises(DataError, match=r"at least min_size=8 samples. Received: 5"):
        find_batch_size(compiled(), (X[:5], Y[:5]))
