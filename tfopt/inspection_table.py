"""What is known of the layers of a model or the operators of a file, and how it is shown."""

from __future__ import annotations

import io
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

__all__ = ["Inspection", "Part"]


@dataclass(frozen=True)
class Part:
    """A layer or an operator.

    Args:
        name: of the layer, or of the tensor that the operator writes.
        kind: class of the layer, or the operator.
        dtypes: of its inputs and outputs, or of its weights.
        shape: of its output.
        weights: how many numbers it holds.
        nonzeros: how many of them are not zero.
        distinct_values: how many different ones its largest array has.
        flops: floating-point (or integer) operations for one sample, two for a multiply-accumulate; None where they
            are not counted.
        size_bytes: of the numbers as they are.
        gzip_bytes: of the same after gzip.
        coded_bytes: of the same, Huffman-coded (`tfopt.compression`).
        zeros_use: whether the target computes less for zeros, and why; empty without a target, or without zeros.
    """

    name: str
    kind: str
    dtypes: str
    shape: tuple[int | None, ...]
    weights: int
    nonzeros: int
    distinct_values: int
    flops: int | None
    size_bytes: int
    gzip_bytes: int
    coded_bytes: int
    zeros_use: str

    @property
    def zeros(self) -> float | None:
        """Share of the weights that are zero, in [0, 1]; None where there are none."""
        return 1 - self.nonzeros / self.weights if self.weights else None


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found; printing it gives a table.

    Args:
        title: what was inspected.
        size_bytes: of the file or folder; for a model in memory, of its weights.
        parts: layers or operators, in order.
        remarks: facts about the whole.
        target: what `Part.zeros_use` is about.
    """

    title: str
    size_bytes: int
    parts: tuple[Part, ...]
    remarks: tuple[str, ...]
    target: str | None = None

    def table(self) -> Table:
        """The parts as a table for the terminal."""
        table = Table(title=f"{self.title} ({self.size_bytes:,} bytes)", caption="\n".join(self.remarks))
        for heading in ("name", "kind", "dtypes", "shape"):
            table.add_column(heading, overflow="fold", no_wrap=heading == "kind")
        for heading in ("FLOPs", "weights", "zeros", "distinct", "bytes", "gzip", "coded"):
            table.add_column(heading, justify="right")
        if self.target:
            table.add_column(f"zeros on {self.target}", overflow="fold")
        for part in self.parts:
            shape = "×".join("?" if size is None or size < 0 else str(size) for size in part.shape)
            flops = "?" if part.flops is None else f"{part.flops:,}" if part.flops else ""
            numbers = [""] * 6
            if part.weights:
                numbers = [f"{part.weights:,}", f"{part.zeros:.1%}", f"{part.distinct_values:,}"]
                numbers += [f"{size:,}" for size in (part.size_bytes, part.gzip_bytes, part.coded_bytes)]
            use = [part.zeros_use] if self.target else []
            table.add_row(part.name, part.kind, part.dtypes, shape, flops, *numbers, *use)
        return table

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=160)
        console.print(self.table())
        return console.file.getvalue()  # type: ignore[attr-defined]
