"""Which operators of a graph one Edge TPU subgraph can hold.

The compiler makes a single Edge TPU operator. What it needs may be computed on the CPU before, what it gives may be
used on the CPU after; but nothing that lies behind such a CPU operator can be inside it again.
"""

from __future__ import annotations

from collections.abc import Sequence

from tfopt.export.tflite_file import Operator

__all__ = ["cut_off_by"]


def cut_off_by(operators: Sequence[Operator], supported: Sequence[bool]) -> list[int | None]:
    """For each operator, the CPU operator that keeps it and all behind it off the Edge TPU.

    Args:
        operators: in the order in which they run.
        supported: whether the Edge TPU can run each.

    Returns:
        For each operator, None, or the position of the unsupported operator that follows an Edge TPU operator and
        that it comes after. An operator maps if it is supported and has None.

    Example:
        >>> from tfopt.export.tflite_file import Tensor
        >>> a, b, c, d, e = (Tensor(name, (1, 4), "INT8", (), (), 0, None) for name in "abcde")
        >>> chain = [Operator("RELU", 1, (given,), (made,)) for given, made in ((a, b), (b, c), (c, d), (d, e))]
        >>> cut_off_by(chain, [False, True, False, True])
        [None, None, None, 2]
    """
    on_tpu: set[int] = set()  # tensors that an Edge TPU operator made, or that were made from such
    cut: dict[int, int] = {}  # tensors behind the CPU operator that ended the subgraph
    cuts: list[int | None] = []
    for position, (operator, possible) in enumerate(zip(operators, supported, strict=True)):
        given, made = ({id(tensor) for tensor in tensors} for tensors in (operator.inputs, operator.outputs))
        behind = min((cut[tensor] for tensor in given if tensor in cut), default=None)
        cuts.append(behind)
        if behind is None and possible:
            on_tpu |= made
        elif behind is not None or given & on_tpu:
            cut.update(dict.fromkeys(made, position if behind is None else behind))
    return cuts
