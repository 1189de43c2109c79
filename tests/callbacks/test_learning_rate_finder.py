import keras
import numpy as np
import pytest

from tfopt.callbacks import LearningRateFinder, MagnitudePruning
from tfopt.callbacks.range_test import RangeTest
from tfopt.errors import ConfigError
from tfopt.schedules import as_keras, constant

pytestmark = pytest.mark.slow

rng = np.random.default_rng(0)
X = rng.normal(size=(256, 8)).astype(np.float32)
Y = (X @ rng.normal(size=(8, 1))).astype(np.float32)


def compiled(optimizer="adam", **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(1),
        ]
    )
    model.compile(optimizer, "mse", metrics=["mae"], **options)
    return model


def state(model):
    return [keras.ops.convert_to_numpy(value) for value in (*model.variables, *model.optimizer.variables)]


def assert_equal(first, second):
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one, other)


def fit(model, *callbacks, epochs=9, **options):
    options = {"batch_size": 4, "epochs": epochs, "shuffle": False, "verbose": 0, **options}
    return model.fit(X, Y, callbacks=list(callbacks), **options)


def test_everything_is_put_back():
    model, plain = compiled(), compiled()
    for one in (model, plain):
        fit(one, epochs=1)
    before = state(model)
    finder = LearningRateFinder(1e-5, 1.0, steps=50)
    fit(model, finder)
    assert_equal(state(model), before)
    assert int(model.optimizer.iterations) == 64
    # With dropout's random state too: training goes on as if there had been no test.
    for one in (model, plain):
        fit(one, epochs=1)
    assert_equal(state(model), state(plain))


def test_the_rates_rise_evenly_on_a_logarithmic_axis_and_the_losses_are_those_of_the_batches():
    finder, seen = LearningRateFinder(1e-5, 1e-3, steps=80), []
    model = compiled("sgd")
    note = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["loss"]))
    history = fit(model, finder, note)
    assert len(history.epoch) == 2  # 64 steps and 16
    np.testing.assert_allclose(finder.result.rates, np.geomspace(1e-5, 1e-3, 80), rtol=1e-6)
    assert list(finder.result.losses) == seen
    # At rates that change nothing, each loss is that of its batch alone.
    frozen, finder = compiled("sgd"), LearningRateFinder(1e-30, 1e-29, steps=10, smoothing=0.0)
    frozen.layers[2].rate = 0.0
    fit(frozen, finder, epochs=1)
    alone = compiled("sgd")
    alone.layers[2].rate = 0.0
    expected = [alone.train_on_batch(X[start : start + 4], Y[start : start + 4]) for start in (0,)]
    assert finder.result.losses[0] == pytest.approx(expected[0][0], rel=1e-5)
    assert np.ptp(finder.result.losses) > 0.1


def test_it_finds_the_rate_of_a_known_problem():
    # For the loss (w - y)**2, SGD multiplies the error by (1 - 2 * rate): divergent from 1 on.
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(), keras.losses.MeanSquaredError())
    finder = LearningRateFinder(1e-4, 10.0, steps=200)
    targets = rng.normal(1, 0.1, size=(300, 1))
    model.fit(np.ones((300, 1)), targets, batch_size=1, shuffle=False, verbose=0, callbacks=[finder])
    assert 0.001 < finder.suggestion < 0.1
    assert finder.suggestion < finder.result.lowest < 1
    assert model.get_weights()[0].item() == 0.0


def test_it_ends_where_the_loss_diverges():
    finder = LearningRateFinder(1e-3, 1e6, steps=200)
    history = fit(compiled("sgd"), finder)
    assert len(finder.result.rates) < 190
    assert np.all(np.isfinite(finder.result.losses))
    assert len(history.epoch) <= 3


def test_steps_per_execution_share_a_rate():
    finder = LearningRateFinder(1e-5, 1e-2, steps=64)
    fit(compiled(steps_per_execution=8), finder)
    assert len(finder.result.rates) == 8
    np.testing.assert_allclose(finder.result.rates, np.geomspace(1e-5, 1e-2, 64)[::8], rtol=1e-6)


def test_an_interrupted_test_can_be_undone():
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 20:
                raise KeyboardInterrupt

    model, whole = compiled(), compiled()
    before = state(compiled())
    finder, expected = LearningRateFinder(steps=40), LearningRateFinder(steps=40)
    with pytest.raises(KeyboardInterrupt):
        fit(model, finder, Interrupt())
    assert not np.array_equal(state(model)[0], before[0])
    finder.put_back()
    fit(model, finder)
    fit(whole, expected)
    assert_equal(state(model), state(whole))
    assert finder.suggestion == expected.suggestion


@pytest.mark.filterwarnings("ignore:MagnitudePruning. reached a sparsity")
@pytest.mark.parametrize("finder_first", [True, False])
def test_masks_do_not_prune_what_is_put_back(finder_first):
    model = compiled()
    before = model.get_weights()
    callbacks = [LearningRateFinder(steps=40), MagnitudePruning(0.8, end_step=100, frequency=10)]
    fit(model, *(callbacks if finder_first else callbacks[::-1]))
    assert_equal(model.get_weights(), before)


def test_under_loss_scaling():
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(), initial_scale=4.0)
    model = compiled(optimizer)
    finder = LearningRateFinder(1e-5, 1.0, steps=50)
    before_rate = float(optimizer.inner_optimizer.learning_rate)
    fit(model, finder)
    assert len(finder.result.rates) > 30
    assert float(optimizer.inner_optimizer.learning_rate) == before_rate


def test_a_fit_that_is_too_short_says_so():
    model = compiled()
    before = model.get_weights()
    finder = LearningRateFinder(steps=500)
    with pytest.warns(UserWarning, match=r"ended after 64 of 500 steps, at a rate of 5.72e-06. Give it more epochs"):
        fit(model, finder, epochs=1)
    assert_equal(model.get_weights(), before)


def test_a_loss_that_never_falls_suggests_nothing():
    finder = LearningRateFinder(1e-3, 1.0, steps=64)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match=r"the loss never fell between 0.001 and 1, so no rate is suggested"):
        model.fit(X, 0 * Y, batch_size=4, verbose=0, callbacks=[finder])
    assert finder.suggestion is None
    assert finder.plot() is not None


def test_the_plot_is_written(tmp_path):
    finder = LearningRateFinder(1e-5, 1.0, steps=50)
    with pytest.raises(ConfigError, match="no range test yet"):
        finder.plot()
    fit(compiled(), finder)
    figure = finder.plot(tmp_path / "plots" / "rates.svg")
    assert figure.axes[0].get_xscale() == "log"
    assert f"suggestion: {finder.suggestion:.2g}" in [
        text.get_text() for text in figure.axes[0].get_legend().get_texts()
    ]
    assert (tmp_path / "plots" / "rates.svg").read_text().startswith("<?xml")
    with pytest.raises(ConfigError, match=r"must end in one of .*svg.* Received: .*rates.txt"):
        finder.plot(tmp_path / "rates.txt")
    assert not (tmp_path / "rates.txt").exists()


def test_the_slope_is_told_in_spite_of_noise():
    rates = np.geomspace(1e-6, 10, 200)
    clean = 2.3 - 2 / (1 + (3e-3 / rates) ** 1.5) + np.maximum(rates - 0.3, 0)
    for seed in range(5):
        noisy = clean + np.random.default_rng(seed).normal(scale=0.15, size=200)
        suggestion = RangeTest(rates, noisy, smoothing=0.9).suggestion
        assert 5e-4 < suggestion < 2e-2, seed
    assert RangeTest(rates[:4], clean[:4], smoothing=0.9).suggestion is None
    assert RangeTest(rates[:0], clean[:0], smoothing=0.9).lowest is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_rate": 0}, "min_rate must be above 0. Received: 0"),
        ({"max_rate": 1e-9}, r"max_rate must be above min_rate \(1e-06\). Received: 1e-09"),
        ({"steps": 1}, "steps .* at least 2. Received: 1"),
        ({"smoothing": 2}, r"smoothing must be in \[0, 1\). Received: 2"),
        ({"divergence": 1}, "divergence must be above 1. Received: 1"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ConfigError, match="LearningRateFinder: .*" + message):
        LearningRateFinder(**options)


def test_an_optimizer_with_a_schedule_of_its_own_is_refused():
    with pytest.raises(ConfigError, match=r"learning_rate is itself a schedule. Compile with a number"):
        fit(compiled(keras.optimizers.SGD(as_keras(constant(0.1)))), LearningRateFinder())
