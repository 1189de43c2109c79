"""Tables as plain text: what printing a result gives."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["aligned"]


def aligned(rows: Sequence[Sequence[str]], alignment: str) -> list[str]:
    """Lines in which the cells of a column stand below each other, two spaces apart.

    Args:
        rows: the cells; each row has as many.
        alignment: for each column "<" (left) or ">" (right).

    Example:
        >>> aligned([("layer", "FLOPs", ""), ("conv", "7,776", "shared")], "<><")
        ['layer  FLOPs', 'conv   7,776  shared']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    justify = [{"<": str.ljust, ">": str.rjust}[side] for side in alignment]
    return [
        "  ".join(place(cell, width) for place, cell, width in zip(justify, row, widths, strict=True)).rstrip()
        for row in rows
    ]
