"""A small trained network with two exits, and its data: stripes that are told apart early, or late, or not at all."""

from __future__ import annotations

import keras
import numpy as np

import tfopt

layers = keras.layers


def samples(count: int = 256, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images of 8 × 8 pixels and their class of three; some are noisier than others."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 3, count)
    x = generator.normal(size=(count, 8, 8, 1)) * generator.uniform(0.1, 2.0, (count, 1, 1, 1))
    x[np.arange(count), 2 * y] += 1.5
    return x.astype(np.float32), y


def classifier(*, softmax: bool = True) -> keras.Model:
    """A convolutional network with a shortcut that runs past its second exit."""
    x = inputs = keras.Input((8, 8, 1), name="image")
    early = layers.Conv2D(6, 3, padding="same", activation="relu", name="early")(x)
    x = layers.Conv2D(6, 3, padding="same", name="middle")(early)
    x = layers.Add(name="sum")([layers.ReLU()(x), early])
    x = layers.Flatten()(layers.Conv2D(8, 3, strides=2, activation="relu", name="late")(x))
    return keras.Model(inputs, layers.Dense(3, activation="softmax" if softmax else None, name="classes")(x))


def flat_head(features: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.Dense(3, activation="softmax", name=name)(layers.Flatten()(features))


def trained(*, softmax: bool = True) -> keras.Model:
    keras.utils.set_random_seed(0)
    network = tfopt.early_exit(classifier(softmax=softmax), ["early", "middle"], head=flat_head if softmax else None)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not softmax)
    network.compile(keras.optimizers.Adam(0.01), loss)
    network.fit(*samples(), batch_size=32, epochs=4, verbose=0)
    return network
