"""What is in a measured file, and whether zeros and shared values save anything."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict

from tfopt.benchmark.units import percent
from tfopt.inspection_table import Part

__all__ = ["Contents"]

NOTABLE_ZEROS = 0.1
NOTABLE_CODED_SHARE = 2 / 3


class Contents(BaseModel):
    """The operators of a .tflite file or the variables of a SavedModel, as `tfopt.inspect` finds them.

    Args:
        target: what `Part.zeros_use` is about.
        total: all parts as one.
        parts: the operators or variables, in order.

    Example:
        >>> half = Part("hidden", "CONV_2D", "float32", (1, 8), 100, 50, 9, 200, 400, 300, 250, "no: they are not")
        >>> contents = Contents.of([half], "tflite")
        >>> contents.total.coded_bytes, contents.is_sparse_or_shared
        (250, True)
        >>> contents.zeros_sentence
        '50.0 % of the weights are zero; faster on tflite? no: they are not'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: str
    total: Part
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, parts: list[Part] | tuple[Part, ...], target: str) -> Self:
        """Adds the total."""
        return cls(target=target, total=Part.total(parts), parts=tuple(parts))

    @property
    def is_sparse_or_shared(self) -> bool:
        """Whether a tenth of the weights are zero, or Huffman codes leave less than two thirds of their bytes.

        Pruned and clustered weights have one or the other; most others neither, in float or in int8.
        """
        coded = self.total.coded_bytes < NOTABLE_CODED_SHARE * self.total.size_bytes
        return (self.total.zeros or 0) >= NOTABLE_ZEROS or coded

    @property
    def zeros_sentence(self) -> str:
        """How many weights are zero and what the target makes of them; empty where few are."""
        if (self.total.zeros or 0) < NOTABLE_ZEROS:
            return ""
        zeros = f"{percent(self.total.zeros)} of the weights are zero"
        return f"{zeros}; faster on {self.target}? {self.total.zeros_use}" if self.total.zeros_use else zeros
