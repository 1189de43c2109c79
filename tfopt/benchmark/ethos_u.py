"""What Arm's compiler Vela estimates for an Ethos-U: nothing here runs on the device."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tfopt.benchmark.measurements import Estimate
from tfopt.errors import BenchmarkError, ExportError
from tfopt.vela import Accelerator, compile_with_vela

__all__ = ["estimate_latency"]


def estimate_latency(path: Path, accelerator: Accelerator) -> Estimate | None:
    """Compiles a .tflite and reads what Vela estimates for one inference.

    Args:
        path: the file.
        accelerator: what to compile it for.

    Returns:
        The estimate, or None if no operator can run on the accelerator (a float file): Vela's figures leave
        out what stays on the CPU, and would be zero.

    Raises:
        BenchmarkError: if Vela fails or crashes.
    """
    with tempfile.TemporaryDirectory(prefix="tfopt-vela-") as folder:
        try:
            compiled = compile_with_vela(path, accelerator, Path(folder))
        except ExportError as error:
            raise BenchmarkError(f"{error} Leave out estimate=, or export the file as int8.") from error
    if compiled.accelerator_operators == 0:
        return None
    return Estimate(
        target=accelerator.name,
        source=compiled.source,
        latency_ms=compiled.latency_ms,
        cycles=compiled.cycles,
        sram_bytes=compiled.sram_bytes,
        accelerator_operators=compiled.accelerator_operators,
        cpu_operators=compiled.cpu_operators,
    )
