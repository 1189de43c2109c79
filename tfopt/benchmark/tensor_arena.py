"""How much memory the tensors of a .tflite file share, seen in the addresses that TFLite gives them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tfopt.export.tflite_writer import unpack_tflite

__all__ = ["arena_bytes", "covered_bytes"]

ALIGNMENT_BYTES = 64
"""Of tensors in TFLite's arena (`kDefaultTensorAlignment`)."""


def arena_bytes(path: Path) -> int | None:
    """Measures the memory that the tensors of one inference take, without weights and without XNNPACK.

    TFLite's own kernels keep inputs, outputs, activations, states and scratch tensors in arenas, where tensors that are
    not needed at the same time share their place. The file is run, and the addresses that are in use are counted.
    Weights that are stored narrower than they are computed with, such as float16, are counted as they are unpacked.
    It is what to give a microcontroller as an order of magnitude (its kernels have scratch tensors of their own).
    XNNPACK keeps activations in memory that cannot be seen.

    Args:
        path: a file that is known to load.

    Returns:
        Bytes, or None where the file has control flow or several signatures, or TFLite's own kernels cannot run it.
    """
    model = unpack_tflite(path.read_bytes())
    if len(model.subgraphs) != 1:
        return None
    data = [model.buffers[tensor.buffer].data for tensor in model.subgraphs[0].tensors]
    constants = {index for index, content in enumerate(data) if content is not None and len(content)}
    try:
        interpreter = Interpreter(
            model_path=str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        )
        interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
        interpreter.invoke()  # some sizes are known only then
    except (RuntimeError, ValueError):
        return None
    ranges = []
    for detail in interpreter.get_tensor_details():
        if detail["index"] in constants:
            continue
        try:
            values = interpreter.tensor(detail["index"])()
        except (RuntimeError, ValueError):  # a tensor that nothing needs has no place
            continue
        begin = values.__array_interface__["data"][0]
        ranges.append((begin, begin + values.nbytes))
    return covered_bytes(ranges)


def covered_bytes(ranges: Iterable[tuple[int, int]]) -> int:
    """Bytes that ranges of addresses cover together, what lies between two for alignment included.

    Args:
        ranges: the first address of each, and the one behind it.

    Example:
        >>> covered_bytes([(0, 100), (64, 80), (128, 192), (1024, 1088)])
        256
    """
    covered, end = 0, 0
    for begin, behind in sorted(ranges):
        if behind <= end or behind == begin:
            continue
        if begin > end + ALIGNMENT_BYTES - 1 or not covered:
            end = begin
        covered += behind - end
        end = behind
    return covered
