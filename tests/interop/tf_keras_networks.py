"""Networks of tf_keras for the tests of its translation."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfopt.interop.legacy import import_tf_keras

tf_keras = import_tf_keras()
L = tf_keras.layers


def randomized(model: Any, seed: int = 0) -> Any:
    """Sets every float weight to noise, variances to positive noise: fresh weights are all too often zero or one."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.dtype.is_floating:
            values = generator.normal(size=weight.shape) * 0.3
            weight.assign(np.abs(values) + 0.5 if "variance" in weight.name else values)
    return model


def image_network() -> Any:
    """What tfmot can prune, cluster and quantize: batch norm, a depthwise convolution, two branches, softmax."""
    inputs = L.Input((8, 8, 3), name="image")
    x = L.Conv2D(16, 3, use_bias=False, name="conv")(inputs)
    x = L.ReLU(name="conv_relu")(L.BatchNormalization(name="norm")(x))
    left = L.Conv2D(8, 1, activation="relu", name="left")(x)
    x = L.Concatenate(name="both")([left, L.Conv2D(8, 1, name="right")(x)])
    x = L.Add(name="sum")([x, L.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(x)])
    x = L.Flatten(name="flat")(L.MaxPooling2D(name="pool")(x))
    return tf_keras.Model(inputs, L.Dense(10, "softmax", name="scores")(x), name="images")


def images(count: int = 64) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(count, 8, 8, 3)).astype(np.float32), generator.integers(0, 10, count)


def functions_network() -> Any:
    """Functions of TensorFlow on tensors, a constant first among them, and a name that an operation would take."""
    inputs = L.Input((6, 6, 4))
    x = 1.5 - tf.nn.relu(inputs) * 2.0 + 1
    x = tf.concat([x[:, 1:, ::2], tf.abs(x)[:, 1:, ::2]], axis=-1)
    x = L.Concatenate(name="concatenate")([x, tf.nn.leaky_relu(x, alpha=0.3)])
    x = tf.reduce_mean(x, [1, 2], keepdims=True)
    x = tf.transpose(tf.reshape(x, [-1, 4, 4]), [0, 2, 1])
    x = tf.matmul(x, x, transpose_b=True)
    parts = tf.split(x, [1, 3], axis=-1)
    x = tf.clip_by_value(parts[1], -0.5, 0.5) + tf.sqrt(tf.square(parts[0]) + 1e-3)
    return tf_keras.Model(inputs, tf.squeeze(tf.expand_dims(tf.cast(x, "float32"), 1), [1]))


def nested_network() -> Any:
    """Two inputs, a dict of outputs, a model nested and shared, attention with keyword arguments."""
    inner = tf_keras.Sequential([L.Input((4,)), L.Dense(4, "hard_sigmoid"), L.Dense(4)], name="inner")
    first, second = L.Input((4,), name="first"), L.Input((3, 4), name="second")
    shared = L.Dense(4, name="shared")
    x, y = inner(shared(first)), L.TimeDistributed(inner)(shared(second))
    attended = L.MultiHeadAttention(2, 3, name="attention")(tf.expand_dims(x, 1), value=y)
    return tf_keras.Model([first, second], {"b": inner(x), "a": attended}, name="nested")


def recurrent_network() -> Any:
    return tf_keras.Sequential(
        [
            L.Input((7,), dtype="int32"),
            L.Embedding(20, 8),
            L.Bidirectional(L.LSTM(5, return_sequences=True, recurrent_activation="hard_sigmoid")),
            L.GRU(4, return_sequences=True, reset_after=False),
            L.GRU(4, return_sequences=True, dropout=0.2),
            L.RNN(L.StackedRNNCells([L.LSTMCell(3), L.SimpleRNNCell(3)]), return_sequences=True),
            L.LeakyReLU(0.1),
            L.Conv1D(3, 2, activation="swish", kernel_regularizer="l2", kernel_constraint="max_norm"),
            L.GlobalMaxPooling1D(),
        ]
    )


def translating_network() -> Any:
    """An encoder that hands its states to a decoder, names with slashes, and a batch norm called in training mode."""
    first, second = L.Input((5, 3), name="from"), L.Input((4, 3), name="to")
    _, *states = L.LSTM(6, return_state=True, name="encoder/memory")(first)
    x = L.LSTM(6, return_sequences=True, name="decoder/memory")(second, initial_state=states)
    x = L.BatchNormalization(name="decoder/norm")(x, training=False)
    return tf_keras.Model([first, second], L.TimeDistributed(L.Dense(4), name="words")(x))


def plain_network() -> Any:
    """Layers with settings of their own kind."""
    return tf_keras.Sequential(
        [
            L.Input((12, 12, 3)),
            L.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0]),
            L.Rescaling(0.5, offset=0.1),
            L.ZeroPadding2D(((0, 1), (0, 1))),
            L.SeparableConv2D(6, 3, activation="elu"),
            L.BatchNormalization(axis=-1, scale=False),
            L.PReLU(shared_axes=[1, 2]),
            L.UpSampling2D(interpolation="bilinear"),
            L.Conv2DTranspose(4, 3, strides=2, activation="gelu"),
            L.LayerNormalization(),
            L.ThresholdedReLU(0.2),
            L.AveragePooling2D(),
            L.GlobalAveragePooling2D(),
            L.Dropout(0.5),
            L.Dense(5, activation="hard_sigmoid"),
        ]
    )
