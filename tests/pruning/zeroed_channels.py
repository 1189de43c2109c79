"""The reference for channel pruning: the original model with channels set to zero wherever a layer reads them."""

import keras
import numpy as np
from keras import layers

from tfopt.surgery.graph import copy_call, rebuild
from tfopt.surgery.select import iterate_layers

READERS = (
    layers.Dense,
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
    layers.LSTM,
    layers.GRU,
    layers.Bidirectional,
)


def zeroed(groups, stays):
    """The whole model, with the tensors that its readers take multiplied by 0 at the channels that do not stay."""

    def multiply(call, copy, args, kwargs):
        if isinstance(call.operation, READERS) and getattr(call.operation, "groups", 1) == 1:
            factor = stays[groups.channels[call.inputs[0]]].astype(np.float32)
            args = (args[0] * factor, *args[1:])
        return copy_call(call, copy, args, kwargs)

    return rebuild(groups.graph, on_call=multiply)


def samples(model, count=3, seed=1):
    """Random inputs."""
    rng = np.random.default_rng(seed)
    arrays = []
    for tensor in model.inputs:
        shape = (count, *(size or 7 for size in tensor.shape[1:]))
        arrays.append(
            rng.integers(0, 5, shape) if "int" in tensor.dtype else rng.normal(size=shape).astype(tensor.dtype)
        )
    return arrays if len(arrays) > 1 else arrays[0]


def randomize(model, seed=0):
    """Gives all weights values of their own, so that a bias or a statistic at the wrong channel shows.

    Batch norms take the statistics of random samples, so that the signal reaches the end of a deep network.
    """
    rng = np.random.default_rng(seed)
    found = list(iterate_layers(model))
    for layer in found:
        for weight in [] if isinstance(layer, layers.Normalization) else layer.trainable_weights:
            if len(weight.shape) == 1:
                weight.assign(weight + rng.normal(0.0, 0.2, weight.shape))
    norms = [layer for layer in found if isinstance(layer, layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    if norms:
        model(samples(model), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model


def relative_error(model, reference, x):
    """The largest difference of any output, by how much that output varies."""
    pairs = zip(keras.tree.flatten(model(x)), keras.tree.flatten(reference(x)), strict=True)
    errors = []
    for got, expected in pairs:
        got, expected = np.asarray(got), np.asarray(expected)
        assert got.shape == expected.shape
        spread = np.abs(expected - expected.mean(axis=0)).max()
        assert spread > 1e-4  # or the outputs would say nothing about the inputs
        errors.append(np.abs(got - expected).max() / spread)
    return max(errors)
