"""An .onnx file in ONNX Runtime: its answers, to be compared with Keras's, and what of it is computed in float."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tfopt.errors import ExportError, MissingExtraError, first_line

__all__ = ["float_operators", "require_onnxruntime", "run_onnx"]

QUIET = 3
"""Of ONNX Runtime's log levels, that which tells errors only."""


def require_onnxruntime(what: str) -> None:
    """Refuses to begin what could not be ended.

    Args:
        what: needs it.

    Raises:
        MissingExtraError: if ONNX Runtime is not installed.
    """
    if find_spec("onnxruntime") is None:
        raise MissingExtraError(what, extra="onnx")


def run_onnx(path: Path, samples: dict[str, np.ndarray], *, batch_size: int) -> dict[str, np.ndarray]:
    """Runs a file on samples and returns its outputs, of shape `(n, ...)`, by name.

    Args:
        path: the file.
        samples: an array of shape `(n, ...)` for each input.
        batch_size: how many samples are given at once.

    Raises:
        ExportError: if ONNX Runtime cannot load or run the file.
    """
    count = len(next(iter(samples.values())))
    try:
        session = _session(path)
        names = [output.name for output in session.get_outputs()]
        batches = [
            session.run(names, {name: array[start : start + batch_size] for name, array in samples.items()})
            for start in range(0, count, batch_size)
        ]
    except Exception as error:  # it has a dozen of its own, all of them plain exceptions
        raise ExportError(
            f"ONNX Runtime cannot run the converted file at batch size {batch_size}: {first_line(error)}"
        ) from error
    return {name: np.concatenate(parts) for name, parts in zip(names, zip(*batches, strict=True), strict=True)}


def float_operators(path: Path) -> dict[str, int]:
    """How often which operators of a quantized file are computed in float on the CPU, the most frequent first.

    ONNX Runtime makes int8 operators of those that stand between quantizing ones where it has them, and computes the
    others in float; so it is asked what it has made of the file.
    """
    import onnx

    with tempfile.TemporaryDirectory(prefix="tfopt-onnx-") as folder:
        optimized = Path(folder, "optimized.onnx")
        _session(path, optimized)
        return dict(Counter(_float_nodes(onnx.load(optimized).graph, set())).most_common())


def _session(path: Path, optimized: Path | None = None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = QUIET
    options.intra_op_num_threads = 1
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
        # One level more is made for the processor at hand, in operators of layouts of its own.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _float_nodes(graph: Any, outer: set[str]) -> Iterator[str]:
    """The types of nodes that read and write floats; what the optimizer has put in comes without its type."""
    from onnx import TensorProto

    types = {TensorProto.FLOAT, TensorProto.FLOAT16}
    values = (*graph.input, *graph.output, *graph.value_info)
    others = {value.name for value in values if value.type.tensor_type.elem_type not in types}
    floats = outer | ({value.name for value in values} - others)
    for node in graph.node:
        if node.op_type == "DequantizeLinear":
            floats.update(node.output)
        elif node.op_type != "QuantizeLinear" and not floats.isdisjoint(node.input) and set(node.output) - others:
            floats.update(set(node.output) - others)
            yield node.op_type
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _float_nodes(body, floats)
