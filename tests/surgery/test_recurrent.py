"""Recurrent layers written out step by step compute the same."""

import keras
import numpy as np
import pytest
from keras import layers

from tfopt.surgery.recurrent import LONGEST_SEQUENCE, unroll_recurrent

X = np.random.default_rng(0).normal(size=(3, 6, 4)).astype(np.float32)


def recurrent(kind: str) -> keras.Model:
    x = keras.Input((6, 4))
    y = {
        "lstm": lambda: layers.LSTM(5)(x),
        "gru of a gru": lambda: layers.GRU(3)(layers.GRU(5, return_sequences=True)(x)),
        "simple": lambda: layers.SimpleRNN(5, go_backwards=True)(x),
        "cells": lambda: layers.RNN([layers.LSTMCell(5), layers.GRUCell(3)])(x),
        "bidirectional": lambda: layers.Bidirectional(layers.GRU(3), merge_mode="sum")(x),
        "states": lambda: layers.Concatenate()(layers.LSTM(3, return_state=True)(x)),
        "masked": lambda: layers.LSTM(3)(layers.Masking(X[0, 0, 0])(x)),
        "nested": lambda: keras.Sequential([keras.Input((6, 4)), layers.LSTM(3)])(x),
    }[kind]()
    return keras.Model(x, y)


@pytest.mark.parametrize(
    "kind", ["lstm", "gru of a gru", "simple", "cells", "bidirectional", "states", "masked", "nested"]
)
def test_the_outputs_are_the_same(kind: str) -> None:
    model = recurrent(kind)
    unrolled = unroll_recurrent(model)
    assert unrolled is not model
    np.testing.assert_allclose(unrolled(X), model(X), rtol=1e-5, atol=1e-6)


def test_every_loop_is_written_out_and_the_original_stays() -> None:
    model = recurrent("bidirectional")
    unrolled = unroll_recurrent(model)
    wrapper = unrolled.layers[1]
    assert (wrapper.forward_layer.unroll, wrapper.backward_layer.unroll) == (True, True)
    assert not model.layers[1].forward_layer.unroll
    assert unroll_recurrent(unrolled) is unrolled


def test_a_shared_layer_stays_one() -> None:
    first, second = keras.Input((6, 4)), keras.Input((6, 4))
    shared = layers.LSTM(3)
    unrolled = unroll_recurrent(keras.Model([first, second], layers.Add()([shared(first), shared(second)])))
    assert [layer.unroll for layer in unrolled.layers if isinstance(layer, layers.LSTM)] == [True]


@pytest.mark.parametrize(
    ("shape", "layer"),
    [
        ((None, 4), layers.LSTM(3)),
        ((LONGEST_SEQUENCE + 1, 4), layers.LSTM(3)),
        ((4, 6, 6, 2), layers.ConvLSTM2D(2, 3)),
        ((6, 4), layers.Dense(3)),
    ],
    ids=["open length", "too long", "convolutional", "none"],
)
def test_what_cannot_be_written_out_stays(shape: tuple[int | None, ...], layer: keras.Layer) -> None:
    model = keras.Sequential([keras.Input(shape), layer])
    assert unroll_recurrent(model) is model
