"""How far a model's outputs are from what they should be: the noise ratio, and how the error is distributed."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

__all__ = ["QUANTILES", "ErrorDistribution", "sqnr_db"]

QUANTILES = (0.01, 0.05, 0.5, 0.95, 0.99)
COUNTED = ("bias", "standard_deviation", "max_absolute")


def sqnr_db(expected: np.ndarray, error: np.ndarray) -> float:
    """The signal-to-quantization-noise ratio, 10·log10(Σ expected² / Σ error²), in decibels.

    It is infinite where there is no error, and minus infinite where there is no signal or the error is not finite.

    Args:
        expected: values of any shape.
        error: received less expected values, of the same shape.

    Example:
        >>> sqnr_db(np.array([3.0, 4.0]), np.array([0.3, 0.4]))
        20.0
    """
    signal, noise = (float(np.sum(np.square(values, dtype=np.float64))) for values in (expected, error))
    if not np.isfinite(noise):
        return -np.inf
    if noise == 0:
        return np.inf
    return 10 * float(np.log10(signal / noise)) if signal else -np.inf


class ErrorDistribution(BaseModel):
    """How received values deviate from expected ones, with the sign: what a regression wants to know.

    Args:
        bias: the mean of received less expected values.
        standard_deviation: of the error around the bias.
        quantiles: of the error, at 1, 5, 50, 95 and 99 %.
        max_absolute: the largest error.
        output_standard_deviation: of the expected values, which tells what a small error is; 0 where they are all
            the same.

    Example:
        >>> error = ErrorDistribution.of(np.array([0.0, 2.0]), np.array([0.5, 2.5]))
        >>> error.bias, error.standard_deviation, error.output_standard_deviation
        (0.5, 0.0, 1.0)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bias: float
    standard_deviation: float
    quantiles: tuple[float, float, float, float, float]
    max_absolute: float
    output_standard_deviation: float

    @classmethod
    def of(cls, expected: np.ndarray, received: np.ndarray) -> Self:
        """Measures it over all values of two arrays of one shape."""
        expected = np.asarray(expected, np.float64)
        error = np.asarray(received, np.float64) - expected
        return cls(
            bias=float(error.mean()),
            standard_deviation=float(error.std()),
            quantiles=tuple(np.quantile(error, QUANTILES).tolist()),
            max_absolute=float(np.abs(error).max()),
            output_standard_deviation=float(expected.std()),
        )

    def to_dict(self) -> dict[str, Any]:
        """The measurements as plain data, with those that count in units of the output's standard deviation too."""
        ratios = {name: self.in_output_deviations(getattr(self, name)) for name in COUNTED}
        return {**self.model_dump(mode="json"), "in_output_deviations": ratios}

    def in_output_deviations(self, value: float) -> float | None:
        """A value in units of the output's standard deviation; None where the output never varies."""
        return value / self.output_standard_deviation if self.output_standard_deviation else None
