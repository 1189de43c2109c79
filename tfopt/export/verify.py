"""How far an exported file's outputs are from Keras's, and how far they may be."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tfopt.errors import ExportError
from tfopt.output_error import ErrorDistribution, sqnr_db

__all__ = ["Agreement", "check_problems", "check_sqnr", "compare", "relative_error"]

LISTED = 8
"""How many of an audit's problems are told."""


@dataclass(frozen=True)
class Agreement:
    """What a comparison of two sets of outputs measured.

    Args:
        samples: how many samples were compared.
        max_absolute_error: the largest difference of any output value.
        sqnr_db: signal-to-quantization-noise ratio, 10·log10(Σ expected² / Σ error²), in decibels;
            infinite where the outputs are equal.
        top1_agreement: share of samples whose largest output is at the same place, in [0, 1]; None where an
            output has fewer than two values.
        max_lsb: the largest difference in steps of the output's int8 grid; None for a float output.
        error: how the difference is distributed, with its sign, for the output where it is largest beside the
            output's own spread; None where all outputs are class probabilities.
    """

    samples: int
    max_absolute_error: float
    sqnr_db: float
    top1_agreement: float | None
    max_lsb: float | None
    error: ErrorDistribution | None = None

    def to_dict(self) -> dict[str, Any]:
        """The measurements as plain data; an infinite ratio reads "exact"."""
        fields = asdict(self)
        if self.error is None:
            del fields["error"]
        else:
            fields["error"] = self.error.to_dict()
        if np.isinf(self.sqnr_db):
            fields["sqnr_db"] = "exact" if self.sqnr_db > 0 else "no signal"
        return fields


def compare(
    expected: list[np.ndarray], received: list[np.ndarray], *, scales: list[float | None] | None = None
) -> Agreement:
    """Compares the outputs of two models on the same samples.

    Args:
        expected: one array of shape `(n, ...)` per output, from Keras.
        received: arrays of the same shapes, from the file.
        scales: the step of each output's int8 grid, None for a float output.

    Example:
        >>> compare([np.array([[1.0, 0.0]])], [np.array([[0.9, 0.0]])]).top1_agreement
        1.0
    """
    errors = [np.abs(a.astype(np.float64) - b.astype(np.float64)) for a, b in zip(expected, received, strict=True)]
    # The worst output counts, so that a large-valued output does not hide a small one.
    ratios = [sqnr_db(a, error) for a, error in zip(expected, errors, strict=True)]
    agreements = [
        float(np.mean(a.reshape(-1, a.shape[-1]).argmax(-1) == b.reshape(-1, b.shape[-1]).argmax(-1)))
        for a, b in zip(expected, received, strict=True)
        if a.ndim >= 2 and a.shape[-1] > 1
    ]
    steps = [error.max() / scale for error, scale in zip(errors, scales or [], strict=False) if scale]
    return Agreement(
        samples=len(expected[0]),
        max_absolute_error=float(max(error.max() for error in errors)),
        sqnr_db=float(min(ratios)),
        top1_agreement=min(agreements) if agreements else None,
        max_lsb=float(max(steps)) if steps else None,
        error=_worst_error(expected, received),
    )


def relative_error(expected: list[np.ndarray], received: list[np.ndarray]) -> float:
    """The largest error of any output, as a fraction of that output's largest value.

    Example:
        >>> relative_error([np.array([2.0, -4.0])], [np.array([2.0, -3.0])])
        0.25
    """
    errors = []
    for wanted, got in zip(expected, received, strict=True):
        largest = float(np.abs(wanted).max()) or 1.0
        errors.append(float(np.abs(wanted.astype(np.float64) - got.astype(np.float64)).max()) / largest)
    return max(errors)


def check_problems(problems: list[str], quantization: str, *, remedy: str) -> None:
    """Refuses a file in which an audit has found something.

    Args:
        problems: what it found; of many the first are told.
        quantization: what the file was to be.
        remedy: how to get a file that is taken.

    Raises:
        ExportError: if there is a problem.
    """
    if problems:
        more = f"; and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        raise ExportError(
            f"The converted file was refused ({quantization}): {'; '.join(problems[:LISTED])}{more}. {remedy}"
        )


def check_sqnr(measured: Agreement, minimum: float, *, how: str, samples_from: str) -> None:
    """Refuses a file whose outputs are further from Keras's than noise of the given ratio.

    Args:
        measured: the comparison.
        minimum: the least signal-to-noise ratio in decibels.
        how: what was run: the quantization and the runtime.
        samples_from: what it was run on.

    Raises:
        ExportError: if the ratio is less.
    """
    if not measured.sqnr_db >= minimum:
        raise ExportError(
            f"The converted file disagrees with Keras ({how}): expected a signal-to-noise ratio of at least "
            f"{minimum:g} dB on {measured.samples} samples ({samples_from}). Received: {measured.sqnr_db:.1f} dB, "
            f"largest error {measured.max_absolute_error:.3g}. "
            "If the samples are typical, fine-tune the model with tfopt.quantize_aware first."
        )


def _worst_error(expected: list[np.ndarray], received: list[np.ndarray]) -> ErrorDistribution | None:
    pairs = [pair for pair in zip(expected, received, strict=True) if not _are_probabilities(pair[0])]
    # What is not finite agrees with nothing; there is no distribution to speak of.
    if not pairs or not all(np.all(np.isfinite(array)) for pair in pairs for array in pair):
        return None
    errors = [ErrorDistribution.of(*pair) for pair in pairs]
    return max(errors, key=lambda error: error.in_output_deviations(error.max_absolute) or 0.0)


def _are_probabilities(output: np.ndarray) -> bool:
    several = output.ndim >= 2 and output.shape[-1] > 1
    return several and bool(np.all(output >= 0) and np.allclose(output.sum(axis=-1), 1, atol=1e-3))
