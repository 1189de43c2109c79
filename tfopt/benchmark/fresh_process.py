"""Trying a file in a process of its own: what a damaged one does there harms nobody, and its memory is seen."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tfopt.benchmark import peak_memory
from tfopt.errors import BenchmarkError

__all__ = ["peak_memory_in_fresh_process"]

TIMEOUT_SECONDS = 600.0


def peak_memory_in_fresh_process(
    path: Path,
    cannot_run: Callable[[str], BenchmarkError],
    *,
    xnnpack: bool = True,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> int | None:
    """Loads a .tflite or .onnx file in a fresh process, runs it on zeros, and returns how far that process grew.

    Args:
        path: the file.
        cannot_run: makes the error, of the reason.
        xnnpack: whether the XNNPACK delegate runs a .tflite.
        timeout_seconds: when to give up.

    Returns:
        Bytes, or None where the system does not tell.

    Raises:
        BenchmarkError: if the file cannot be loaded or run, the runtime crashes, or does not end in time.
    """
    command = [sys.executable, "-P", peak_memory.__file__, str(path), *([] if xnnpack else [peak_memory.NO_XNNPACK])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds, check=False)
    except subprocess.TimeoutExpired:
        raise cannot_run(f"no answer within {timeout_seconds:g} seconds") from None
    if done.returncode < 0:
        raise cannot_run(f"the runtime crashed ({signal.Signals(-done.returncode).name})")
    if done.returncode:
        raise cannot_run((done.stderr.strip() or "no message").splitlines()[-1])
    answer = json.loads(done.stdout.splitlines()[-1])
    if "error" in answer:
        raise cannot_run(answer["error"])
    return None if answer["peak_memory_bytes"] is None else int(answer["peak_memory_bytes"])
