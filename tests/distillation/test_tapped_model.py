import keras
import numpy as np
import pytest

from tfopt.distillation.tapped_model import Tap, TappedModel
from tfopt.errors import ConfigError

L = keras.layers
X = np.random.default_rng(0).normal(size=(8, 4, 4, 2)).astype(np.float32)


def nested_model():
    inner = keras.Sequential(
        [keras.Input((4, 4, 2)), L.Conv2D(3, 3, name="conv", activation="relu"), L.BatchNormalization(name="norm")],
        name="inner",
    )
    outer = keras.Sequential([keras.Input((4, 4, 2)), inner, L.Dropout(0.5, name="drop")], name="outer")
    x = keras.Input((4, 4, 2))
    y = L.GlobalAveragePooling2D(name="pool")(outer(x))
    return keras.Model(x, {"a": L.Dense(3, name="a")(y), "b": L.Dense(2, name="b")(y) * 2.0}, name="model")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = L.Dense(3, name="head")

    def call(self, x):
        return self.head(x)


def test_layers_are_read_by_their_path():
    model = nested_model()
    taps = ["outer/inner/conv", "outer/inner", "outer", "pool", "a"]
    output, features = TappedModel(model, [Tap(name) for name in taps])(X)
    assert all(np.allclose(output[key], value, atol=1e-6) for key, value in model(X).items())
    outer = model.get_layer("outer")
    inner = outer.get_layer("inner")
    assert np.allclose(features[0], inner.get_layer("conv")(X), atol=1e-6)
    assert np.allclose(features[1], inner(X), atol=1e-6)
    assert np.allclose(features[2], outer(X), atol=1e-6)
    assert np.allclose(features[4], output["a"])
    shapes = TappedModel(model, [Tap("outer/inner/conv"), Tap("pool")]).shapes
    assert shapes == [(None, 2, 2, 3), (None, 3)]


def test_training_reaches_the_layers_and_the_model_is_left_as_it_was():
    model = nested_model()
    norm = model.get_layer("outer").get_layer("inner").get_layer("norm")
    tapped = TappedModel(model, [Tap("outer")])
    before = norm.moving_mean.numpy()
    tapped(X, training=False)
    assert np.array_equal(before, norm.moving_mean)
    _, (dropped,) = tapped(X, training=True)
    assert not np.array_equal(before, norm.moving_mean)
    assert np.mean(np.asarray(dropped) == 0) > 0.2
    assert tapped.weights == []
    assert norm.output is not None  # a second call of the layer on symbolic tensors would make it ambiguous
    assert model.get_layer("pool").output.shape == (None, 3)


def test_what_no_tap_needs_is_not_run():
    model = nested_model()
    ran = []
    model.get_layer("pool").call = lambda x: ran.append(True) or keras.ops.mean(x, axis=(1, 2))
    assert TappedModel(model, [Tap("outer/inner/conv")], with_output=False)(X)[0] is None
    assert not ran
    TappedModel(model, [Tap("outer/inner/conv")])(X)
    assert ran


def test_inputs_are_taken_as_the_model_takes_them():
    a, b = keras.Input((2,), name="a"), keras.Input((1,), name="b")
    model = keras.Model({"a": a, "b": b}, L.Concatenate(name="both")([a, b]))
    samples = {"b": np.ones(3, np.float32), "a": np.zeros((3, 2), np.float64)}
    output, _ = TappedModel(model, [])(samples)
    assert np.array_equal(output, model(samples))
    sequential = keras.Sequential([keras.Input((4, 4, 1)), L.Flatten()])
    assert np.array_equal(TappedModel(sequential, [])(X[..., 0])[0], sequential(X[..., 0]))


def test_masks_go_along():
    model = keras.Sequential([keras.Input((3,)), L.Embedding(5, 4, mask_zero=True), L.Dense(3, activation="softmax")])
    tokens = np.array([[1, 2, 0]])
    output, (logits,) = TappedModel(model, [Tap(on_logits=True)])(tokens)
    # A masked mean is that of the two steps only if the mask is there.
    pool = keras.layers.GlobalAveragePooling1D()
    for tensor in (output, logits):
        assert np.allclose(pool(tensor), np.asarray(tensor)[:, :2].mean(1), atol=1e-6)


def test_float16_probabilities_have_finite_logarithms():
    dense = L.Dense(3, activation="softmax", dtype="mixed_float16")
    model = keras.Sequential([keras.Input((1,)), dense])
    dense.kernel.assign([[-40.0, 0.0, 40.0]])
    _, (logits,) = TappedModel(model, [Tap(on_logits=True)])(np.ones((1, 1), np.float32))
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert np.isfinite(logits).all()


def test_of_a_subclassed_model_the_output_is_read():
    model = Subclassed()
    expected = model(X)
    output, (read,) = TappedModel(model, [Tap(on_logits=True, from_logits=True)])(X)
    assert np.array_equal(output, expected)
    assert np.array_equal(read, expected)
    assert TappedModel(model, [Tap()]).shapes == [None]


def test_bad_input_is_named():
    model, subclassed = nested_model(), Subclassed()
    subclassed(X)
    shared = L.Dense(2, name="shared")
    x = keras.Input((2,))
    twice = keras.Model(x, shared(shared(x)))
    for make, message in [
        (lambda: TappedModel(model, [Tap("conv")]), "'model' has no layer 'conv'.*Available: outer/inner/conv, .*pool"),
        (lambda: TappedModel(model, [Tap("outer/nothing")]), "no layer 'outer/nothing'"),
        (lambda: TappedModel(model, [Tap()]), "has 2 outputs: name the layer"),
        (lambda: TappedModel(twice, [Tap("shared")]), "calls 2 times the layer 'shared'"),
        (lambda: TappedModel(subclassed, [Tap("head")]), r"'head' of .* cannot be read.*subclassed \(Subclassed\)"),
        (
            lambda: TappedModel(subclassed, [Tap(on_logits=True)]),
            "Received: from_logits=None. Pass student_from_logits",
        ),
    ]:
        with pytest.raises(ConfigError, match=message):
            make()
