import keras
import numpy as np
import pytest

from tfopt.errors import ConfigError, ModelError
from tfopt.profiling.op_times import read_op_times
from tfopt.profiling.training_profile import profile
from tfopt.trace import Event, Recording

rng = np.random.default_rng(0)
X = rng.normal(size=(64, 20, 20, 1)).astype(np.float32)
Y = rng.integers(0, 3, 64)


def compiled(**options):
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((18, 18, 8)), keras.layers.Conv2D(8, 3, name="inner_conv")], name="block")
    layers = [keras.layers.Conv2D(8, 3, name="first"), inner, keras.layers.Flatten(), keras.layers.Dense(3, name="top")]
    model = keras.Sequential([keras.Input((20, 20, 1)), *layers])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), **options)
    return model


@pytest.mark.slow
def test_training_is_told_by_layer_and_the_model_is_as_before():
    model, plain = compiled(), compiled()
    report = profile(model, (X, Y), steps=4)
    layers = dict(report.layers)
    assert {"first", "inner_conv", "top", "(update)", "(loss)"} <= set(layers)
    assert layers["inner_conv"] > layers["top"]
    assert report.total_ms == pytest.approx(sum(layers.values()))
    assert {op.part for op in report.ops if op.layer == "inner_conv"} == {"forward", "backward"}
    (convolution,) = (
        op for op in report.ops if op.layer == "inner_conv" and op.part == "forward" and "Conv2D" in op.operation
    )
    assert convolution.count == 1
    assert "inner_conv" in str(report)
    for one in (model, plain):
        one.fit(X, Y, shuffle=False, verbose=0)
    assert all(np.array_equal(*pair) for pair in zip(model.get_weights(), plain.get_weights(), strict=True))


def test_inference_has_no_gradients_and_several_steps_may_be_one_execution():
    model = compiled(steps_per_execution=2, jit_compile=True)
    report = profile(model, (X, Y), training=False, steps=3)
    assert report.steps == 6
    assert {op.part for op in report.ops} <= {"forward", "other"}
    assert {"first", "inner_conv", "top"} <= set(dict(report.layers))
    assert model.jit_compile is True
    assert "predict" in str(report)


def test_the_profiler_is_free_afterwards_whatever_happened():
    model = compiled()
    with pytest.raises(Exception, match=r".+"):
        profile(model, (X, Y.astype(np.float32).repeat(2).reshape(64, 2)))
    other = Recording()
    other.start()
    assert other.stop() is not None


def test_names_are_read_as_graphs_write_them():
    def event(name):
        return Event("/host:CPU", 0, name, 0.0, 1.0)

    names = {
        "StatefulPartitionedCall/net_1/dense_2_1/MatMul:MatMul": ("dense_2", "forward"),
        "while/body/_1/StatefulPartitionedCall/gradient_tape/net_1/dense_1/MatMul/MatMul_1:_MklMatMul": (
            "dense",
            "backward",
        ),
        "StatefulPartitionedCall/adam/Sub_11:Sub": ("", "update"),
        "StatefulPartitionedCall/gradient_tape/compile_loss/mse/Mul:Mul": ("", "loss"),
        "Cast:Cast": ("", "other"),
    }
    for name, expected in names.items():
        (op,) = read_op_times([event(name)], layers=["net", "dense", "dense_2"], optimizer="adam", steps=1)
        assert (op.layer, op.part) == expected
    noise = ["Iterator::Root::Prefetch", "EagerLocalExecute: __inference", "ExecutorState::Process", "PrefetchProduce"]
    assert read_op_times(map(event, noise), layers=["net"], optimizer="adam", steps=1) == []


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"steps": 0}])
def test_bad_arguments_are_refused(options):
    with pytest.raises(ConfigError, match=r"profile: .*Received: 0"):
        profile(compiled(), (X, Y), **options)
    with pytest.raises(ModelError, match=r"profile: the model must be compiled"):
        profile(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), (X, Y))
