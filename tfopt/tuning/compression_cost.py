"""What a model will cost once it is exported, estimated without an export, which is too slow for every trial."""

from __future__ import annotations

import gzip

import keras

from tfopt.budget import Figures
from tfopt.quantization import is_quantize_aware, strip
from tfopt.quantization.stored_weights import stored_weights
from tfopt.surgery.flops import costs

__all__ = ["ESTIMATED", "download_bytes", "estimated_figures"]

ESTIMATED = ("size", "download", "flops")
"""The resources that are told from a model alone."""


def estimated_figures(model: keras.Model) -> Figures:
    """What a model costs, about; no latency, which takes a file and a device.

    "size" is that of the weights as the .tflite stores them (`quantization.stored_weights`), where a zero takes as much
    as another weight; "download" is the same after gzip, which zeros make smaller; neither zeros nor bits change
    "flops".

    Args:
        model: float or quantize-aware, built.

    Example:
        >>> figures = estimated_figures(keras.Sequential([keras.Input((64,)), keras.layers.Dense(8)]))
        >>> figures.size, figures.flops
        (2080, 1024)
    """
    counted = costs(strip(model) if is_quantize_aware(model) else model)
    weights = _bytes_of_weights(model)
    return Figures(len(weights), _compressed(weights), counted.flops or None, latency=None, latency_share=None)


def download_bytes(model: keras.Model) -> int:
    """The weights of a model as the .tflite stores them, after gzip."""
    return _compressed(_bytes_of_weights(model))


def _bytes_of_weights(model: keras.Model) -> bytes:
    return b"".join(array.tobytes() for array in stored_weights(model))


def _compressed(weights: bytes) -> int:
    return len(gzip.compress(weights))
