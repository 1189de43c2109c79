import keras
import numpy as np
import pytest

from tfopt.errors import ConfigError, ModelError
from tfopt.surgery.regularize import RegularizerSum, regularize
from tfopt.surgery.select import select_kernels

layers, regularizers = keras.layers, keras.regularizers
X = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)


def nested():
    """Convolutions, a nested model, a wrapper, a composite head; and a penalty that is there already."""
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((6, 6, 4)), layers.Conv2D(4, 3, name="conv"), layers.ReLU()], name="inner")
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv", kernel_regularizer=regularizers.L2(0.5))(x)
    x = layers.SeparableConv2D(4, 3, padding="same", name="separable")(inner(x))
    x = layers.Reshape((4, 16))(x)
    x = layers.TimeDistributed(layers.Dense(5, name="timed"), name="steps")(x)
    x = layers.Flatten()(x)
    x = layers.Dropout(0.3)(layers.Dense(6, activation="relu", name="hidden")(x))
    return keras.Model(inputs, layers.Dense(2, name="head", dtype="mixed_float16")(x))


def penalty(model, l1, l2, chosen=None):
    kernels = [np.asarray(kernel, np.float64) for _, kernel in select_kernels(model, chosen)]
    return sum(l1 * np.abs(kernel).sum() + l2 * np.square(kernel).sum() for kernel in kernels)


def total(losses):
    return float(sum(np.asarray(loss, np.float64) for loss in losses))


def test_penalties_are_added_and_weights_and_outputs_are_kept(tmp_path):
    model = nested()
    present = total(model.losses)
    result = regularize(model, l1=0.01, l2=0.1)
    assert present > 0
    assert total(model.losses) == present  # the given model is left as it is
    assert total(result.losses) == pytest.approx(present + penalty(model, 0.01, 0.1), rel=1e-5)
    for before, after in zip(model.get_weights(), result.get_weights(), strict=True):
        assert np.array_equal(before, after)
    assert np.array_equal(model.predict(X, verbose=0), result.predict(X, verbose=0))
    result.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert total(loaded.losses) == pytest.approx(total(result.losses), rel=1e-6)


def test_what_was_regularized_can_be_regularized_again():
    model = nested()
    twice = regularize(regularize(model, l1=0.01), l2=0.1, l1=0.02)
    assert total(twice.losses) == pytest.approx(total(model.losses) + penalty(model, 0.03, 0.1), rel=1e-5)


@pytest.mark.parametrize(
    ("present", "kind"),
    [
        (regularizers.L1(0.5), regularizers.L1L2),
        (regularizers.L2(0.5), regularizers.L1L2),
        (regularizers.L1L2(0.5, 0.25), regularizers.L1L2),
        (regularizers.OrthogonalRegularizer(0.5), RegularizerSum),
    ],
)
def test_penalties_that_are_there_stay(present, kind, tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, kernel_regularizer=present)])
    result = regularize(model, l1=0.1, l2=0.2)
    assert type(result.layers[-1].kernel_regularizer) is kind
    assert total(result.losses) == pytest.approx(total(model.losses) + penalty(model, 0.1, 0.2), rel=1e-5)
    result.save(tmp_path / "model.keras")
    assert total(keras.models.load_model(tmp_path / "model.keras").losses) == pytest.approx(total(result.losses))


def test_layers_are_chosen():
    model = nested()
    result = regularize(model, l1=0.01, layers="head|timed")
    assert total(result.losses) == pytest.approx(
        total(model.losses) + penalty(model, 0.01, 0.0, "head|timed"), rel=1e-5
    )
    depthwise = keras.Sequential([keras.Input((8, 8, 3)), layers.DepthwiseConv2D(3, name="depthwise")])
    result = regularize(depthwise, l1=0.01, layers="depthwise")
    assert result.layers[-1].depthwise_regularizer is not None
    assert total(result.losses) == pytest.approx(penalty(depthwise, 0.01, 0.0, "depthwise"), rel=1e-5)
    words = keras.Sequential([keras.Input((8,), dtype="int32"), layers.Embedding(9, 4, name="words")])
    result = regularize(words, l1=0.01, layers="words")
    assert result.layers[-1].get_config()["embeddings_regularizer"] is not None
    assert total(result.losses) == pytest.approx(penalty(words, 0.01, 0.0, "words"), rel=1e-5)


def test_dropout_goes_before_dense_layers_that_have_none():
    model = nested()
    result = regularize(model, dropout=0.5)
    names = [layer.name for layer in result.layers]
    added = [layer for layer in result.layers if layer.name.endswith("_dropout")]
    assert [layer.name for layer in added] == ["steps_dropout", "hidden_dropout"]  # the head has one before it
    assert all(layer.rate == 0.5 and names[names.index(layer.name) + 1] == layer.name[:-8] for layer in added)
    assert np.array_equal(model.predict(X, verbose=0), result.predict(X, verbose=0))
    assert total(result.losses) == pytest.approx(total(model.losses))


def test_a_shared_dense_layer_gets_dropout_at_every_use():
    shared, x = layers.Dense(4, name="shared"), keras.Input((4,))
    result = regularize(keras.Model(x, shared(layers.ReLU()(shared(x)))), l1=0.1, dropout=0.5)
    assert sum(isinstance(layer, layers.Dropout) for layer in result.layers) == 2
    assert len(result.losses) == 1


@pytest.mark.slow
def test_the_penalty_makes_weights_small():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="dense")])
    x = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    sums = {}
    for l1 in (1e-6, 0.3):
        trained = regularize(model, l1=l1)
        trained.compile(keras.optimizers.Adam(0.05), "mse")
        trained.fit(x, x[:, :4], epochs=30, verbose=0)
        sums[l1] = np.abs(trained.layers[-1].kernel.numpy()).sum()
    assert sums[0.3] < 0.8 * sums[1e-6]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to do"),
        ({"l1": -0.1}, "l1 must be a finite number of at least 0. Received: -0.1"),
        ({"l2": float("inf")}, "l2 must be a finite number"),
        ({"l1": "much"}, "l1 must be .* Received: 'much'"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\). Received: 1.0"),
        ({"dropout": 0.5, "layers": "conv"}, "before Dense layers, and none is selected"),
    ],
    ids=str,
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ConfigError, match="^regularize: .*" + message):
        regularize(nested(), **options)


def test_layers_and_models_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"layers='tail' matches no layer"):
        regularize(nested(), l1=0.1, layers="tail")
    with pytest.raises(ModelError, match="has no Dense or Conv layer"):
        regularize(keras.Sequential([keras.Input((4,)), layers.ReLU()]), l1=0.1)
    with pytest.raises(ModelError, match="Expected a Keras 3 model"):
        regularize("model.keras", l1=0.1)
