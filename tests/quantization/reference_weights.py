"""The int8 grid of weights, in NumPy: what the package's own rounding is compared with."""

import numpy as np


def weight_scales(kernel: np.ndarray, reduced_axes: tuple[int, ...]) -> np.ndarray:
    """The step of each output channel's symmetric grid of -127 … 127; 1 for a channel of zeros."""
    largest = np.max(np.abs(kernel), axis=reduced_axes, keepdims=True)
    return np.where(largest > 0, largest / 127, 1.0)
