"""Makes a trained `separable_cnn` hard to quantize without changing what it computes, in Keras 3 and tf_keras."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["RESCALINGS"]

Scales = Callable[[int], np.ndarray]
"""Gives positive factors for so many channels."""


def rescale_channels(model: Any, scales: Scales) -> None:
    """Spreads the channels of each activation over different widths.

    relu(s·x) = s·relu(x) for s > 0. So each channel of each batch norm is multiplied by an s of its own, and what
    the next layer takes from this channel is divided by it. One grid per tensor then serves channels that differ
    by far, and fits few of them.
    """
    spread = None
    for layer in model.layers:
        match type(layer).__name__:
            case "BatchNormalization":
                gamma, beta, *moving = layer.get_weights()
                spread = scales(len(gamma))
                layer.set_weights([gamma * spread, beta * spread, *moving])
            case "Conv2D" | "DepthwiseConv2D" | "Dense" if spread is not None:
                kernel, *bias = layer.get_weights()
                # (h, w, in, out), (h, w, in, multiplier) or (in, out)
                layer.set_weights([kernel / spread[:, np.newaxis], *bias])
                spread = None


def rescale_depthwise_kernels(model: Any, scales: Scales) -> None:
    """Spreads the channels of each depthwise kernel over different widths; its batch norm takes the factors back.

    No activation changes, so only the grids of the weights meet the difference.
    """
    spread = None
    for layer in model.layers:
        match type(layer).__name__:
            case "DepthwiseConv2D":
                (kernel,) = layer.get_weights()
                spread = scales(kernel.shape[2])
                layer.set_weights([kernel * spread[:, np.newaxis]])
            case "BatchNormalization" if spread is not None:
                gamma, beta, mean, variance = layer.get_weights()
                deviations = np.sqrt(variance + layer.epsilon), np.sqrt(variance * spread**2 + layer.epsilon)
                gamma = gamma * deviations[1] / (deviations[0] * spread)
                layer.set_weights([gamma, beta, mean * spread, variance * spread**2])
                spread = None


RESCALINGS = {"channels": rescale_channels, "depthwise_kernels": rescale_depthwise_kernels}
"""Ways to make a `separable_cnn` hard to quantize without changing what it computes."""
