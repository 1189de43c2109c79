import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt.callbacks import InputPipelineMonitor
from tfopt.callbacks.input_waiting import InputWaiting, read_input_waiting
from tfopt.errors import ConfigError
from tfopt.trace import Event, Recording

NAP_SECONDS = 0.02
rng = np.random.default_rng(0)
X = rng.normal(size=(120, 4)).astype(np.float32)
Y = rng.normal(size=(120, 1)).astype(np.float32)


def compiled(**options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", **options)
    return model


def batches():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)


def nap(x, y):
    def slowly(values):
        time.sleep(NAP_SECONDS)
        return values

    return tf.ensure_shape(tf.numpy_function(slowly, [x], tf.float32), (None, 4)), y


def measured(data, *, y=None, model=None, **options):
    monitor = InputPipelineMonitor(**{"warmup_batches": 6, "batches": 12, "verbose": 0, **options})
    options = {"steps_per_epoch": 30} if y is None else {"batch_size": 4}
    (model or compiled()).fit(data, y, shuffle=False, verbose=0, callbacks=[monitor], **options)
    return monitor.report


def test_a_slow_map_is_input_bound_and_its_fix_is_a_parallel_map():
    report = measured(batches().map(nap))
    assert report.is_input_bound
    assert report.verdict.startswith("input-bound ")
    # The pipeline naps while the model computes, so a batch takes a nap at least, and most of it is waiting.
    assert report.step_ms > 0.9 * NAP_SECONDS * 1e3
    assert report.input_share > 0.2
    name, took_ms = report.slowest_stage
    assert name == "Map"
    assert took_ms > 0.8 * NAP_SECONDS * 1e3  # naps under way at the ends are cut off
    assert "parallel map" in report.fixes[0]
    assert any("cache" in fix for fix in report.fixes)


def test_data_in_memory_is_not_input_bound_and_has_nothing_to_fix():
    # A step long enough that the machine's own unrest does not count.
    layers = [keras.layers.Dense(1500) for _ in range(3)]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    report = measured(X, y=Y, model=model, threshold=0.3)
    assert not report.is_input_bound
    assert report.verdict.startswith("compute-bound ")
    assert report.fixes == ()
    assert report.compute_ms > report.input_wait_ms


@pytest.mark.parametrize("options", [{"steps_per_execution": 3}, {"jit_compile": True}])
def test_a_slow_pipeline_shows_whatever_the_step_is(options):
    report = measured(batches().map(nap), model=compiled(**options))
    assert report.is_input_bound
    assert report.batches == 12
    assert report.step_ms > 0.9 * NAP_SECONDS * 1e3


def test_a_python_generator_is_named():
    def generate():
        for x, y in zip(X.reshape(-1, 4, 4), Y.reshape(-1, 4, 1), strict=True):
            time.sleep(NAP_SECONDS)
            yield x, y

    report = measured(generate())
    assert report.is_input_bound
    assert "Python generator" in report.fixes[0]


def test_what_it_measures_ends_with_the_epoch_and_leaves_validation_out():
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_test_batch_begin(self, batch, logs=None):
            seen.append(monitor._recording.is_running)

    monitor = InputPipelineMonitor(warmup_batches=6, batches=500, verbose=0)
    compiled().fit(batches(), shuffle=False, validation_data=batches(), callbacks=[monitor, Watch()], verbose=0)
    assert monitor.report.batches == len(X) // 4 - 6
    assert seen
    assert not any(seen)


def test_it_prints_its_verdict(capsys):
    report = measured(batches(), verbose=1)
    assert capsys.readouterr().out == f"{report}\n"


def test_a_fit_that_is_too_short_warns():
    monitor = InputPipelineMonitor(warmup_batches=30)
    with pytest.warns(UserWarning, match=r"ended after 30 batches. Expected: more than 30"):
        compiled().fit(X, Y, batch_size=4, callbacks=[monitor], verbose=0)
    assert monitor.report is None


def test_a_profiler_in_use_is_left_alone():
    other = Recording()

    class Occupy(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            other.start()

    monitor = InputPipelineMonitor(warmup_batches=1, verbose=0)
    with pytest.warns(UserWarning, match=r"profiler is running already"):
        compiled().fit(X, Y, batch_size=4, callbacks=[Occupy(), monitor], verbose=0)
    assert other.is_running
    assert any("IteratorGetNext" in event.name for event in other.stop())


def test_a_recording_that_an_exception_left_does_not_stand_in_the_way():
    class Fail(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 8:
                raise KeyboardInterrupt

    model, monitor = compiled(), InputPipelineMonitor(warmup_batches=2, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, batch_size=4, callbacks=[monitor, Fail()], verbose=0)
    assert monitor._recording.is_running
    assert measured(X, y=Y, model=model).batches == 12
    assert not monitor._recording.is_running


def event(name, begin, end, run="1"):
    return Event("/host:CPU", 0, name, begin, end, (("id", run),))


def test_asking_beside_computing_is_no_waiting():
    events = [
        event("IteratorGetNextAsOptionalOp::DoCompute", 0.0, 4.0),
        event("ExecutorState::Process", 3.0, 9.0),
        event("ExecutorState::Process", 0.0, 4.0, run="2"),  # the map's own graph
        event("IteratorGetNextAsOptionalOp::DoCompute", 5.0, 11.0),
        event("Iterator::Root", 0.0, 4.0),
        event("Iterator::Root::ParallelMapV2", 0.0, 6.0),
        event("Iterator::Root::ParallelMapV2::Zip", 1.0, 5.0),
        event("Iterator::Root::ParallelMapV2::Zip[0]::TFRecord", 1.0, 4.5),
    ]
    report = read_input_waiting(events, batches=2, milliseconds=12.0, threshold=0.1)
    assert report.input_wait_ms == pytest.approx((3.0 + 2.0) / 2)
    assert report.compute_ms == pytest.approx(6.0 - 2.5)
    assert dict(report.stages) == pytest.approx({"ParallelMapV2": 1.0, "Zip": 0.25, "TFRecord": 1.75})
    assert "several files" in report.fixes[0]
    assert "prefetch" in report.fixes[1]


def test_no_request_no_report():
    assert read_input_waiting([event("Iterator::Root", 0.0, 4.0)], batches=1, milliseconds=1.0, threshold=0.1) is None


@pytest.mark.parametrize(
    ("stage", "fix"),
    [
        ("Map", "parallel map"),
        ("ParallelMapV2", "parallel already"),
        ("BatchV2", "parallel batch"),
        ("Shuffle", "names"),
    ],
)
def test_each_stage_has_its_fix(stage, fix):
    report = InputWaiting(1, 10.0, 5.0, 0.1, (("Prefetch", 0.0), (stage, 5.0), ("MemoryCacheImpl", 0.1)))
    assert fix in report.fixes[0]
    assert len(report.fixes) == 1


@pytest.mark.parametrize(
    "options", [{"warmup_batches": -1}, {"batches": 0}, {"threshold": 1.0}, {"threshold": float("nan")}]
)
def test_bad_arguments_are_refused(options):
    with pytest.raises(ConfigError, match=r"InputPipelineMonitor: .*Received"):
        InputPipelineMonitor(**options)
