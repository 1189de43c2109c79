"""Files compiled for the Edge TPU: the device where there is one, and what its compiler said of the file."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tfopt.artifact import Artifact, TensorSpec, record_path
from tfopt.benchmark.measurements import OperatorTime
from tfopt.errors import DataError
from tfopt.export.edge_tpu import predict
from tfopt.export.tflite_file import Tensor, TfliteFile, read_tflite
from tfopt.inspection_table import Part
from tfopt.pruning.sparse_targets import Target

__all__ = [
    "EdgeTpuFileRunner",
    "edge_tpu_delegate",
    "edge_tpu_report",
    "is_compiled_for_edge_tpu",
    "predicted",
    "verdict",
]

OPERATOR = "CUSTOM edgetpu-custom-op"
LIBRARIES = {"linux": "libedgetpu.so.1", "darwin": "libedgetpu.1.dylib", "win32": "edgetpu.dll"}
SUFFIX = "_edgetpu"
"""That the compiler puts behind the name of the file that it compiles."""


class EdgeTpuFileRunner:
    """A file that is compiled for the Edge TPU, where none is at hand: nothing is run, its report is passed on.

    Args:
        path: the file.

    Raises:
        DataError: if the file cannot be read.
    """

    target: Target = "edge_tpu"
    peak_memory_bytes: int | None = None
    arena_bytes: int | None = None

    def __init__(self, path: Path) -> None:
        self._file = read_tflite(path)
        self.inputs = tuple(_spec(name, tensor) for name, tensor in self._file.inputs.items())
        self.note = f"not run: there is no Edge TPU or no {_library()}; {edge_tpu_report(path, self._file)}"

    def timed_calls(self, sample: list[np.ndarray]) -> dict[int | None, Callable[[], object]]:
        """None."""
        return {}

    def predict(self, samples: list[np.ndarray], advance: Callable[[int], None]) -> None:
        """None; the samples count as done."""
        advance(len(samples[0]))

    def operator_times(self, threads: int, sample: list[np.ndarray] | None = None) -> tuple[OperatorTime, ...]:
        """None."""
        return ()

    def parts(self, target: Target) -> tuple[Part, ...]:
        """Nothing: what the compiler makes of operators and weights only the Edge TPU reads.

        Raises:
            DataError: with these words.
        """
        raise DataError("what is compiled for the Edge TPU only that reads; inspect the file that was compiled.")


def is_compiled_for_edge_tpu(path: Path) -> bool:
    """Whether a .tflite file holds what `edgetpu_compiler` makes; not where the file cannot be read."""
    try:
        return any(operator.name == OPERATOR for operator in read_tflite(path).operators)
    except DataError:
        return False


def edge_tpu_delegate() -> Any:
    """The delegate of an Edge TPU, by the runtime's public loader; None without a device or Coral's library."""
    from ai_edge_litert.interpreter import load_delegate

    try:
        ctypes.CDLL(_library())  # looked for first, because the loader leaves a broken object behind without it
        return load_delegate(_library())
    except (OSError, RuntimeError, ValueError):
        return None


def edge_tpu_report(path: Path, file: TfliteFile | None = None) -> str:
    """What is known of a file on the Edge TPU, in a line.

    Args:
        path: a file that is compiled for it.
        file: the same, where it has been read.

    Raises:
        DataError: if the file cannot be read.
    """
    operators = (file or read_tflite(path)).operators
    on_cpu = dict.fromkeys(operator.name for operator in operators if operator.name != OPERATOR)
    told = f"Edge TPU: {sum(operator.name == OPERATOR for operator in operators)} compiled subgraph(s)"
    told += f", on the CPU: {', '.join(on_cpu)}" if on_cpu else ", nothing on the CPU"
    source = path.with_name(path.name.replace(f"{SUFFIX}.tflite", ".tflite"))
    if source == path or not record_path(source).exists():
        return told
    try:
        found = Artifact.load(source).verification.get("edge_tpu")
    except DataError:  # what lies beside it is another file by now
        found = None
    return told if found is None else f"{told}; {verdict(found)}"


def predicted(path: Path) -> dict[str, Any]:
    """What `tfopt.export.edge_tpu` predicts of a .tflite that is not compiled, as `verdict` takes it.

    Raises:
        DataError: if the file cannot be read.
    """
    prediction = predict(path)
    return {
        "source": "predicted",
        "operators": len(prediction.operators),
        "mapped_operators": prediction.mapped_count,
        "cached_bytes": prediction.cached_bytes,
        "streamed_bytes": prediction.streamed_bytes,
        "on_cpu": list(dict.fromkeys(one.name for one in prediction.operators if not (one.mapped or one.cut_off))),
    }


def verdict(found: dict[str, Any]) -> str:
    """What an artifact's record says under "edge_tpu", in words.

    Args:
        found: as `tfopt.export_edge_tpu` writes it.

    Example:
        >>> verdict({"source": "predicted", "operators": 3, "mapped_operators": 2, "subgraphs": 1,
        ...          "cached_bytes": 4096, "streamed_bytes": 0, "on_cpu": {"ELU": "the Edge TPU has no ELU"}})
        'Edge TPU (predicted): 2 of 3 operators, 4,096 bytes of parameters on chip, 0 streamed; on the CPU: ELU'
    """
    on_cpu = f"; on the CPU: {', '.join(found['on_cpu'])}" if found["on_cpu"] else ""
    return (
        f"Edge TPU ({found['source']}): {found['mapped_operators']} of {found['operators']} operators, "
        f"{found['cached_bytes']:,} bytes of parameters on chip, {found['streamed_bytes']:,} streamed{on_cpu}"
    )


def _library() -> str:
    return LIBRARIES.get(sys.platform, LIBRARIES["linux"])


def _spec(name: str, tensor: Tensor) -> TensorSpec:
    return TensorSpec(
        name=name,
        shape=tuple(None if size < 0 else size for size in tensor.shape),
        dtype=tensor.dtype.lower(),
        scale=tensor.scales[0] if tensor.scales else None,
        zero_point=tensor.zero_points[0] if tensor.zero_points else None,
    )
