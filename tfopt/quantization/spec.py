"""TFLite's int8 grids: of activations, and of weights.

References: TensorFlow Lite 8-bit quantization specification; Jacob et al. 2018, arXiv:1712.05877.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["ActivationGrid", "activation_grid"]

WEIGHT_STEPS = 127
"""Weights are symmetric and narrow: -127 … 127, so that zero is exactly 0 and a product never overflows."""
ACTIVATION_STEPS = 255
MINIMUM_WIDTH = 1e-6
"""A narrower range is widened to this: a tensor that is always zero still needs a positive scale."""


@dataclass(frozen=True)
class ActivationGrid:
    """The int8 grid of an activation: the real value is `scale * (q - zero_point)`, q in -128 … 127."""

    scale: float
    zero_point: int

    @property
    def minimum(self) -> float:
        """The smallest representable value."""
        return self.scale * (-128 - self.zero_point)

    @property
    def maximum(self) -> float:
        """The largest representable value."""
        return self.scale * (127 - self.zero_point)

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Rounds real values to the grid (ties away from zero, as TFLite does) and clips them, as int8."""
        steps = x / self.scale
        rounded = np.trunc(steps + np.copysign(0.5, steps))
        return np.clip(rounded + self.zero_point, -128, 127).astype(np.int8)

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """The real values of int8 values."""
        return self.scale * (q.astype(np.float64) - self.zero_point)


def activation_grid(minimum: float, maximum: float) -> ActivationGrid:
    """The grid of the range [minimum, maximum], widened to hold zero and shifted so that zero is a grid point.

    Example:
        >>> grid = activation_grid(-1.0, 1.55)
        >>> grid.zero_point, round(grid.scale, 6)
        (-28, 0.01)
    """
    minimum, maximum = min(minimum, 0.0), max(maximum, 0.0)
    maximum = max(maximum, minimum + MINIMUM_WIDTH)
    scale = (maximum - minimum) / ACTIVATION_STEPS
    zero_point = round(np.clip(-128 - minimum / scale, -128, 127))
    return ActivationGrid(scale, int(zero_point))
