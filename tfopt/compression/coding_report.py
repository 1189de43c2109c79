"""What coding makes of the weights of a model, in numbers and as a table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfopt.compression.coding import coded_size_bytes, entropy_bits
from tfopt.plain_table import aligned

__all__ = ["CodedCheckpoint", "CodedWeight"]


@dataclass(frozen=True)
class CodedWeight:
    """What one weight of a model takes.

    Args:
        path: the path of the variable.
        shape: its shape.
        distinct_values: how many different values it has.
        nonzeros: how many of them are not zero.
        raw_bytes: as it is.
        coded_bytes: coded.
        entropy_bits: the least mean bits of a weight where each is coded on its own.
    """

    path: str
    shape: tuple[int, ...]
    distinct_values: int
    nonzeros: int
    raw_bytes: int
    coded_bytes: int
    entropy_bits: float

    @classmethod
    def of(cls, path: str, array: np.ndarray) -> CodedWeight:
        """Measures an array.

        Example:
            >>> CodedWeight.of("kernel", np.float32([0.5, 0.0] * 500)).coded_bytes
            94
        """
        return cls(
            path=path,
            shape=array.shape,
            distinct_values=np.unique(array).size,
            nonzeros=int(np.count_nonzero(array)),
            raw_bytes=array.nbytes,
            coded_bytes=coded_size_bytes(array),
            entropy_bits=entropy_bits(array),
        )


@dataclass(frozen=True)
class CodedCheckpoint:
    """What `save_coded` wrote; printing it gives the table.

    Args:
        path: the file.
        size_bytes: of the whole file: weights, architecture and tables.
        weights: one row per weight of the model.
    """

    path: Path
    size_bytes: int
    weights: tuple[CodedWeight, ...]

    @property
    def raw_bytes(self) -> int:
        """Of the weights as they are."""
        return sum(weight.raw_bytes for weight in self.weights)

    @property
    def ratio(self) -> float:
        """How many times smaller the file is than the bare weights."""
        return self.raw_bytes / self.size_bytes

    def __str__(self) -> str:
        cells = [("weight", "shape", "distinct", "nonzero", "raw bytes", "coded bytes", "bits/weight", "entropy")]
        for row in self.weights:
            count = max(math.prod(row.shape), 1)
            cells.append(
                (
                    row.path,
                    "×".join(map(str, row.shape)),
                    f"{row.distinct_values:,}",
                    f"{row.nonzeros:,}",
                    f"{row.raw_bytes:,}",
                    f"{row.coded_bytes:,}",
                    f"{8 * row.coded_bytes / count:.2f}",
                    f"{row.entropy_bits:.2f}",
                )
            )
        total = f"{self.path}: {self.size_bytes:,} bytes, {self.ratio:.1f} times smaller than {self.raw_bytes:,}"
        return "\n".join([*aligned(cells, "<<>>>>>>"), total])
