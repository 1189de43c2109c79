"""The samples on which an exported file is compared with Keras, and what Keras answers."""

from __future__ import annotations

import keras
import numpy as np

from tfopt.data import Samples, check_samples
from tfopt.export.signature import input_names, input_structure

__all__ = ["checked_samples", "keras_answers", "verification_samples"]

VERIFICATION_SAMPLES = 64
MADE_UP_SAMPLES = 32


def checked_samples(model: keras.Model, data: Samples, *, limit: int) -> dict[str, np.ndarray]:
    """Calibration data as an array of shape `(n, ...)` for each input, by its name in the signature.

    Args:
        model: with symbolic inputs.
        data: as `tfopt.data.check_samples` takes it.
        limit: at most this many samples, evenly spaced.

    Raises:
        DataError: if the data is empty or does not fit.
    """
    arrays = check_samples(data, model.inputs, limit=limit)
    return {
        name: array.astype(tensor.dtype)
        for name, tensor, array in zip(input_names(model), model.inputs, arrays, strict=True)
    }


def verification_samples(
    model: keras.Model, calibration: dict[str, np.ndarray] | None
) -> tuple[dict[str, np.ndarray], str]:
    """The first 64 calibration samples, or else 32 standard normal ones (zeros for integers), and what they are.

    Example:
        >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.ReLU()])
        >>> samples, source = verification_samples(model, None)
        >>> samples["x"].shape, source
        ((32, 4), 'standard normal samples')
    """
    if calibration is not None:
        return {name: array[:VERIFICATION_SAMPLES] for name, array in calibration.items()}, "calibration data"
    generator = np.random.default_rng(0)
    made_up = {
        name: generator.standard_normal((MADE_UP_SAMPLES, *tensor.shape[1:])).astype(tensor.dtype)
        if "float" in tensor.dtype
        else np.zeros((MADE_UP_SAMPLES, *tensor.shape[1:]), tensor.dtype)
        for name, tensor in zip(input_names(model), model.inputs, strict=True)
    }
    return made_up, "standard normal samples"


def keras_answers(model: keras.Model, samples: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Keras's outputs for the samples, in order."""
    inputs = keras.tree.pack_sequence_as(input_structure(model), list(samples.values()))
    return [np.asarray(array) for array in keras.tree.flatten(model.predict(inputs, verbose=0))]
