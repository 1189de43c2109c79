import keras
import numpy as np
import pytest

from tfopt.errors import ConfigError, ModelError
from tfopt.profiling.mixed_precision import _copy, _underflow, mixed_precision_check
from tfopt.profiling.mixed_precision_report import MixedPrecisionReport, PrecisionTrial

rng = np.random.default_rng(0)
X = rng.normal(size=(64, 6)).astype(np.float32)
Y = rng.normal(size=(64, 1)).astype(np.float32)


def compiled(factor=1.0):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Rescaling(factor), keras.layers.Dropout(0.3)]
    model = keras.Sequential([keras.Input((6,)), *layers, keras.layers.Dense(1, name="top")])
    model.compile("adam", "mse")
    return model


def check(model, **options):
    return mixed_precision_check(model, (X, Y), **{"batch_size": 16, "steps": 6, "seconds": 0.02, **options})


@pytest.mark.slow
def test_a_harmless_model_is_safe_and_left_as_it_was():
    model = compiled()
    before = model.get_weights()
    report = check(model)
    assert all(np.array_equal(one, other) for one, other in zip(before, model.get_weights(), strict=True))
    assert not model.optimizer.built
    assert [trial.policy for trial in report.trials] == ["float32", "mixed_bfloat16", "mixed_float16"]
    reference, brain, half = report.trials
    assert reference.underflow == reference.loss_difference == 0
    assert (reference.loss_scale, brain.loss_scale, half.loss_scale) == (1, 1, 2**15)
    for trial in report.trials:
        assert trial.problem is None
        assert trial.step_ms > 0
    # The same weights and no dropout: only rounding is between them.
    assert 0 < abs(brain.loss_difference) < 0.05
    assert abs(half.loss_difference) < 0.05


@pytest.mark.slow
def test_numbers_that_float16_cannot_hold_are_found():
    report = check(compiled(factor=1e6), policies=["mixed_float16"])
    assert report.trials[1].problem is not None
    assert report.recommended == "float32"
    assert "mixed_float16 is not safe" in report.verdict


def test_the_copy_computes_in_the_policy_but_for_its_output():
    copy = _copy(compiled(), "mixed_float16")
    assert copy.get_layer("hidden").compute_dtype == "float16"
    assert copy.get_layer("top").compute_dtype == "float32"
    assert isinstance(copy.optimizer, keras.optimizers.LossScaleOptimizer)
    assert _copy(copy, "float32").get_layer("hidden").compute_dtype == "float32"


def test_underflow_counts_zeros_that_are_none_in_float32():
    expected = [np.array([1.0, 1e-9, 0.0]), np.array([2.0])]
    assert _underflow(expected, [np.array([1.0, 0.0, 0.0]), np.array([2.0])]) == pytest.approx(1 / 3)
    assert _underflow(expected, [np.array([1.0, np.inf, 0.0]), np.array([2.0])]) is None


def trial(policy, step_ms, *, finite=True, underflow=0.0, difference=0.0):
    return PrecisionTrial(policy, step_ms, None, finite, 1.0, underflow, difference)


@pytest.mark.parametrize(
    ("mixed", "recommended", "words"),
    [
        (trial("mixed_float16", 5.0), "mixed_float16", "is safe and 2.00× as fast"),
        (trial("mixed_float16", 9.8), "float32", "does not pay"),
        (trial("mixed_float16", 5.0, finite=False), "float32", "the loss is not finite"),
        (trial("mixed_float16", 5.0, underflow=None), "float32", "gradients are not finite"),
        (trial("mixed_float16", 5.0, underflow=0.2), "float32", "20.0 % of the gradients underflow"),
        (trial("mixed_float16", 5.0, difference=0.3), "float32", "the loss is 30.0 % higher"),
        (trial("mixed_float16", 5.0, difference=-0.3), "mixed_float16", "is safe"),
    ],
)
def test_the_verdict(mixed, recommended, words):
    report = MixedPrecisionReport((trial("float32", 10.0), mixed), batch_size=32, steps=20)
    assert report.recommended == recommended
    assert words in str(report)


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"steps": 0}, {"seconds": -1}, {"policies": ["float16"]}, {"policies": []}]
)
def test_bad_arguments_are_refused(options):
    with pytest.raises(ConfigError, match=r"mixed_precision_check: .*Received"):
        check(compiled(), **options)


def test_a_training_step_of_its_own_is_refused():
    class Own(keras.Sequential):
        def train_step(self, data):
            return {"loss": 0.0}

    model = Own([keras.Input((6,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ModelError, match=r"Received: Own, which has one of its own"):
        check(model)
