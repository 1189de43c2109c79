"""TFLite's integer grids: of activations, and of weights.

References: TensorFlow Lite 8-bit quantization specification; Jacob et al. 2018, arXiv:1712.05877.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["ActivationGrid", "activation_grid", "activation_steps"]

WEIGHT_STEPS = 127
"""Weights are symmetric and narrow: -127 … 127, so that zero is exactly 0 and a product never overflows."""
MINIMUM_WIDTH = 1e-6
"""A narrower range is widened to this: a tensor that is always zero still needs a positive scale."""
MIDWAY = 1e-3
"""How near to the middle between two steps zero must lie for the range to be widened by a step."""


def activation_steps(bits: int) -> int:
    """How many steps the range of an activation is divided into."""
    return 2**bits - 1


@dataclass(frozen=True)
class ActivationGrid:
    """The integer grid of an activation: the real value is `scale * (q - zero_point)`.

    Args:
        scale: the step.
        zero_point: the integer that means zero; 0 for int16.
        bits: 8 or 16, of the signed integer q.
    """

    scale: float
    zero_point: int
    bits: int = 8

    @property
    def minimum(self) -> float:
        """The smallest representable value."""
        return self.scale * (-(2 ** (self.bits - 1)) - self.zero_point)

    @property
    def maximum(self) -> float:
        """The largest representable value."""
        return self.scale * (2 ** (self.bits - 1) - 1 - self.zero_point)

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Rounds real values to the grid (ties away from zero, as TFLite does) and clips them, as integers."""
        steps = x / self.scale
        rounded = np.trunc(steps + np.copysign(0.5, steps))
        limit = 2 ** (self.bits - 1)
        return np.clip(rounded + self.zero_point, -limit, limit - 1).astype(f"int{self.bits}")

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """The real values of integers."""
        return self.scale * (q.astype(np.float64) - self.zero_point)


def activation_grid(minimum: float, maximum: float, bits: int = 8) -> ActivationGrid:
    """The grid of the range [minimum, maximum], widened to hold zero and so that zero is a grid point.

    An int8 grid is shifted to it; an int16 grid has its zero point at 0. Where zero lies midway between two steps, as
    in [-1, 1], the range is widened by a step instead: pixels that were scaled to such a range would all lie midway,
    and Keras and the file would round them to either side.

    Example:
        >>> grid = activation_grid(-1.0, 1.55)
        >>> grid.zero_point, round(grid.scale, 6)
        (-28, 0.01)
    """
    minimum, maximum = min(minimum, 0.0), max(maximum, 0.0)
    maximum = max(maximum, minimum + MINIMUM_WIDTH)
    if bits == 16:
        return ActivationGrid(max(-minimum / 2**15, maximum / (2**15 - 1)), 0, bits)
    scale = (maximum - minimum) / activation_steps(8)
    if abs(-minimum / scale % 1 - 0.5) < MIDWAY:
        scale = (maximum - minimum) / (activation_steps(8) - 1)
    zero_point = round(np.clip(-128 - minimum / scale, -128, 127))
    return ActivationGrid(scale, int(zero_point))
