import keras
import numpy as np
import pytest
from keras import layers

from tfopt.surgery.elementary import as_elementary


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    "options",
    [{}, {"use_bias": False}, {"value_dim": 3}, {"output_shape": 5}, {"dropout": 0.2}],
    ids=lambda options: next(iter(options), "plain"),
)
def test_self_attention_is_made_of_projections_products_and_a_softmax(options):
    keras.utils.set_random_seed(0)
    x = keras.Input((7, 8))
    attention = layers.MultiHeadAttention(2, 4, bias_initializer="normal", name="attention", **options)
    model = keras.Model(x, attention(x, x))
    rewritten = as_elementary(model)
    assert not any(isinstance(layer, layers.MultiHeadAttention) for layer in rewritten.layers)
    assert sum(isinstance(layer, layers.EinsumDense) for layer in rewritten.layers) == 4
    assert sum(isinstance(layer, layers.Dropout) for layer in rewritten.layers) == ("dropout" in options)
    assert rewritten.operations[-1].name == "attention"
    assert rewritten.count_params() == model.count_params()
    np.testing.assert_allclose(rewritten(normal(3, 7, 8)), model(normal(3, 7, 8)), rtol=1e-4, atol=1e-5)


def test_cross_attention_with_a_key_of_its_own():
    keras.utils.set_random_seed(0)
    query, value, key = keras.Input((7, 8)), keras.Input((5, 6)), keras.Input((5, 4))
    model = keras.Model([query, value, key], layers.MultiHeadAttention(2, 4)(query, value=value, key=key))
    data = [normal(3, 7, 8), normal(3, 5, 6), normal(3, 5, 4)]
    np.testing.assert_allclose(as_elementary(model)(data), model(data), rtol=1e-4, atol=1e-5)


def test_a_shared_attention_keeps_its_weights_shared():
    keras.utils.set_random_seed(0)
    x, attention = keras.Input((7, 8)), layers.MultiHeadAttention(2, 4)
    y = attention(x, x)
    model = keras.Model(x, attention(y, y))
    rewritten = as_elementary(model)
    assert rewritten.count_params() == model.count_params()
    np.testing.assert_allclose(rewritten(normal(3, 7, 8)), model(normal(3, 7, 8)), rtol=1e-4, atol=1e-5)


def test_a_frozen_attention_stays_frozen():
    x, attention = keras.Input((7, 8)), layers.MultiHeadAttention(2, 4)
    model = keras.Model(x, attention(x, x))
    attention.trainable = False
    assert not as_elementary(model).trainable_weights


@pytest.mark.parametrize(
    "call",
    [
        {"use_causal_mask": True},
        {"return_attention_scores": True},
        {"attention_mask": np.tril(np.ones((1, 7, 7), bool))},
    ],
    ids=lambda call: next(iter(call)),
)
def test_with_masks_or_scores_it_stays(call):
    keras.utils.set_random_seed(0)
    x = keras.Input((7, 8))
    model = keras.Model(x, layers.MultiHeadAttention(2, 4)(x, x, **call))
    rewritten = as_elementary(model)
    assert isinstance(rewritten.layers[-1], layers.MultiHeadAttention)
