"""Running a .tflite file on float samples: the file's side of the comparison with Keras."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tfopt.errors import ExportError
from tfopt.quantization.spec import ActivationGrid

__all__ = ["run_tflite"]


def run_tflite(path: Path, samples: dict[str, np.ndarray], *, xnnpack: bool = True) -> dict[str, np.ndarray]:
    """Runs a batch-1 file on each sample and returns its outputs as float arrays of shape `(n, ...)`.

    Args:
        path: the file, with one signature.
        samples: an array of shape `(n, ...)` for each input of the signature.
        xnnpack: whether the XNNPACK delegate computes; else TFLite's own kernels do.

    Raises:
        ExportError: if the runtime cannot load or run the file.
    """
    resolver = OpResolverType.AUTO if xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        runner = Interpreter(str(path), experimental_op_resolver_type=resolver, num_threads=1).get_signature_runner()
        inputs, outputs = runner.get_input_details(), runner.get_output_details()
        results: dict[str, list[np.ndarray]] = {name: [] for name in outputs}
        for row in range(len(next(iter(samples.values())))):
            received = runner(**{name: _to_file(samples[name][row : row + 1], inputs[name]) for name in inputs})
            for name, collected in results.items():
                collected.append(_from_file(received[name], outputs[name]))
    except (RuntimeError, ValueError) as error:
        raise ExportError(f"The TFLite runtime cannot run the converted file: {error}") from error
    return {name: np.concatenate(collected) for name, collected in results.items()}


def _to_file(x: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    grid, dtype = _grid(detail), np.dtype(detail["dtype"])
    if grid is None:
        return x.astype(dtype)
    if dtype == np.uint8:  # the grid of int8, shifted
        return (replace(grid, zero_point=grid.zero_point - 128).quantize(x).astype(np.int16) + 128).astype(dtype)
    return grid.quantize(x)


def _from_file(x: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    grid = _grid(detail)
    return x if grid is None else grid.dequantize(x)


def _grid(detail: dict[str, Any]) -> ActivationGrid | None:
    scale, zero_point = detail["quantization"]
    return ActivationGrid(scale, zero_point, 8 * np.dtype(detail["dtype"]).itemsize) if scale else None
