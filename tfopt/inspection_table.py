"""What is known of the layers of a model or the operators of a file, and how it is shown."""

from __future__ import annotations

import io
from collections.abc import Iterable
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

    @classmethod
    def total(cls, parts: Iterable[Part]) -> Part:
        """All parts as one, called "total": their figures added up, and how many of their zeros a target can use.

        Distinct values are those of each part, added up: layers do not share them. FLOPs are of the parts where they
        are counted; None where nothing but parts that are not counted computes.
        """
        parts = tuple(parts)
        counted = [part.flops for part in parts if part.flops is not None]
        return cls(
            name="total",
            kind="",
            dtypes="",
            shape=(),
            weights=sum(part.weights for part in parts),
            nonzeros=sum(part.nonzeros for part in parts),
            distinct_values=sum(part.distinct_values for part in parts),
            flops=sum(counted) if any(counted) or len(counted) == len(parts) else None,
            size_bytes=sum(part.size_bytes for part in parts),
            gzip_bytes=sum(part.gzip_bytes for part in parts),
            coded_bytes=sum(part.coded_bytes for part in parts),
            zeros_use=_use_of_all([part for part in parts if part.zeros_use]),
        )


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

    def table(self, width: int = 160) -> Table:
        """The parts as a table for a terminal.

        Args:
            width: characters in a line. Where they are too few for all columns, those that tell least are left out,
                and the caption says so.
        """
        columns = self._columns()
        left_out: list[str] = []
        console = Console(width=10_000)
        while console.measure(_table(self, columns, left_out)).maximum > width and len(left_out) < len(_DISPENSABLE):
            left_out.append(_DISPENSABLE[len(left_out)])
            columns.pop(left_out[-1])
        return _table(self, columns, left_out)

    def _columns(self) -> dict[str, list[str]]:
        parts = self.parts
        columns = {
            "name": [part.name for part in parts],
            "kind": [part.kind for part in parts],
            "dtypes": [part.dtypes for part in parts],
            "shape": [_shape(part.shape) for part in parts],
            "FLOPs": ["?" if part.flops is None else f"{part.flops:,}" if part.flops else "" for part in parts],
            "weights": [f"{part.weights:,}" if part.weights else "" for part in parts],
            "zeros": ["" if part.zeros is None else f"{part.zeros:.1%}" for part in parts],
            "distinct": [f"{part.distinct_values:,}" if part.weights else "" for part in parts],
            "bytes": [f"{part.size_bytes:,}" if part.weights else "" for part in parts],
            "gzip": [f"{part.gzip_bytes:,}" if part.weights else "" for part in parts],
            "coded": [f"{part.coded_bytes:,}" if part.weights else "" for part in parts],
        }
        if self.target:
            columns[f"zeros on {self.target}"] = [part.zeros_use for part in parts]
        return columns

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=160, color_system=None, force_jupyter=False)
        console.print(self.table(console.width))
        return console.file.getvalue()  # type: ignore[attr-defined]


_DISPENSABLE = ("coded", "distinct", "gzip", "dtypes", "FLOPs", "shape")
_TEXTS = ("name", "kind", "dtypes", "shape")


def _use_of_all(parts: list[Part]) -> str:
    if len({part.zeros_use for part in parts}) < 2:
        return parts[0].zeros_use if parts else ""
    using = [part for part in parts if not part.zeros_use.startswith("no")]
    if not using:
        return f"no: in none of {len(parts)} kernels"
    zeros, used = (sum(part.weights - part.nonzeros for part in some) for some in (parts, using))
    return f"can: in {len(using)} of {len(parts)} kernels, for {used / zeros:.1%} of their zeros"


def _table(inspection: Inspection, columns: dict[str, list[str]], left_out: list[str]) -> Table:
    narrow = [f"not shown for want of width: {', '.join(left_out)}"] if left_out else []
    caption = "\n".join([*inspection.remarks, *narrow])
    table = Table(title=f"{inspection.title} ({inspection.size_bytes:,} bytes)", caption=caption)
    for heading in columns:
        is_text = heading in _TEXTS or heading.startswith("zeros on")
        table.add_column(
            heading, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text or heading == "kind"
        )
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table


def _shape(shape: tuple[int | None, ...]) -> str:
    return "×".join("?" if size is None or size < 0 else str(size) for size in shape)
