"""The coverage table: which layers compute on integers, and why the others stay in float."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from tfopt.plain_table import aligned
from tfopt.quantization.plan import CoverageRow, plan_quantization
from tfopt.quantization.strip import settings_of, strip
from tfopt.surgery.elementary import as_elementary
from tfopt.surgery.graph import read_graph

__all__ = ["Coverage", "coverage"]


@dataclass(frozen=True)
class Coverage:
    """What quantization does with each layer of a model; printing it gives the table.

    Args:
        rows: one per layer, in the order of the model.
    """

    rows: tuple[CoverageRow, ...]

    @property
    def in_float(self) -> tuple[CoverageRow, ...]:
        """The rows of the layers that stay in float."""
        return tuple(row for row in self.rows if not row.quantized)

    def __str__(self) -> str:
        cells = [("layer", "kind", "computes", "remark")]
        cells += [(row.layer, row.kind, row.arithmetic, row.remark) for row in self.rows]
        return "\n".join(aligned(cells, "<<<<"))


def coverage(model: keras.Model) -> Coverage:
    """Tells what quantization does with each layer of a quantize-aware model, or what int8 would do with a float one's.

    Raises:
        ModelError: if the model is subclassed.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "squareplus", name="hidden")])
        >>> print(coverage(model))
        layer              kind        computes  remark
        hidden             Dense       int8      int8 weights per output channel, int8 output
        hidden_activation  Activation  float     the activation 'squareplus' has no int8 kernel
    """
    config, exceptions = settings_of(model)
    return Coverage(plan_quantization(read_graph(as_elementary(strip(model))), config, exceptions).coverage)
