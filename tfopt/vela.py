"""Arm's compiler Vela for Ethos-U accelerators, run in a process of its own; all its figures are estimates."""

from __future__ import annotations

import csv
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tfopt.errors import ConfigError, ExportError, MissingExtraError

__all__ = ["Accelerator", "Compilation", "accelerator_of", "compile_with_vela"]

TIMEOUT_SECONDS = 600.0
SYSTEMS = {
    "ethos-u55": ("Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "ethos-u65": ("Ethos_U65_High_End", "Dedicated_Sram"),
    "ethos-u85": ("Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_384KB"),
}
"""Arm's own reference systems and memory modes, as named in the vela.ini that Vela brings."""
MACS = {
    "ethos-u55": (32, 64, 128, 256),
    "ethos-u65": (256, 512),
    "ethos-u85": (128, 256, 512, 1024, 2048),
}


@dataclass(frozen=True)
class Accelerator:
    """A configuration of the hardware and the system it is estimated in; without one Vela assumes an unnamed default.

    Args:
        name: such as "ethos-u55-128": the family and its multiply-accumulate units.
        system_config: clocks and bandwidths, by their name in vela.ini.
        memory_mode: what lies in which memory, likewise.
    """

    name: str
    system_config: str
    memory_mode: str


@dataclass(frozen=True)
class Compilation:
    """What Vela made of a .tflite, and what it estimates for one inference.

    Args:
        path: the compiled file.
        source: who estimates it, and for which system.
        latency_ms: estimated time, without the operators left on the CPU.
        cycles: estimated clock cycles of the accelerator.
        sram_bytes: working memory that the compiled file needs.
        accelerator_operators: operators that run on the accelerator, as Vela counts them: it splits some of the file's.
        cpu_operators: operators left on the CPU.
        reasons: why operators are left on the CPU, by the name of the tensor that each writes.
    """

    path: Path
    source: str
    latency_ms: float
    cycles: int
    sram_bytes: int
    accelerator_operators: int
    cpu_operators: int
    reasons: dict[str, str]


def accelerator_of(name: str, *, argument: str) -> Accelerator:
    """The reference system of an accelerator; "ethos_u55_128" is "ethos-u55-128".

    Args:
        name: of the accelerator.
        argument: what the caller's user calls it, for the error.

    Raises:
        ConfigError: if there is no such accelerator.
        MissingExtraError: if Vela is not installed.

    Example:
        >>> accelerator_of("ethos-u55-100", argument="benchmark: estimate")
        Traceback (most recent call last):
        ...
        tfopt.errors.ConfigError: benchmark: estimate must be one of ethos-u55-32, ethos-u55-64, \
ethos-u55-128, ethos-u55-256, ethos-u65-256, ethos-u65-512, ethos-u85-128, ethos-u85-256, \
ethos-u85-512, ethos-u85-1024, ethos-u85-2048. Received: 'ethos-u55-100'.
    """
    known = [f"{family}-{macs}" for family, choices in MACS.items() for macs in choices]
    canonical = name.replace("_", "-") if isinstance(name, str) else name
    if canonical not in known:
        raise ConfigError(f"{argument} must be one of {', '.join(known)}. Received: {name!r}.")
    _vela()
    return Accelerator(canonical, *SYSTEMS[canonical.rpartition("-")[0]])


def compile_with_vela(
    path: Path, accelerator: Accelerator, folder: Path, *, timeout_seconds: float = TIMEOUT_SECONDS
) -> Compilation:
    """Compiles a .tflite.

    Args:
        path: the file.
        accelerator: what to compile it for.
        folder: an empty folder, for what Vela writes.
        timeout_seconds: when to give up.

    Raises:
        ExportError: with Vela's last words, if it fails, crashes or does not end in time.
        MissingExtraError: if Vela is not installed.

    References: ethos-u-vela, PERFORMANCE.md of its documentation, on the accuracy of its estimates.
    """
    command = [str(_vela()), str(path.resolve()), "--accelerator-config", accelerator.name]
    command += ["--system-config", accelerator.system_config, "--memory-mode", accelerator.memory_mode]
    command += ["--show-cpu-operations", "--output-dir", str(folder)]
    what = f"Vela cannot compile {path} for {accelerator.name}"
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout_seconds,
        )
    except subprocess.TimeoutExpired:
        raise ExportError(f"{what}: it did not end within {timeout_seconds:.0f} s and was stopped.") from None
    summaries, compiled = list(folder.glob("*_summary_*.csv")), list(folder.glob("*_vela.tflite"))
    if done.returncode or len(summaries) != 1 or len(compiled) != 1:
        raise ExportError(f"{what}: expected a compiled file and a summary. Received: {_reason(done)}.")
    with summaries[0].open(newline="") as file:
        summary = next(csv.DictReader(file))
    return Compilation(
        path=compiled[0],
        source=f"ethos-u-vela {version('ethos-u-vela')}, {accelerator.system_config}, {accelerator.memory_mode}",
        latency_ms=float(summary["inference_time"]) * 1e3,
        cycles=round(float(summary["cycles_total"])),
        sram_bytes=round(float(summary["sram_memory_used"]) * 1024),
        accelerator_operators=_operators(done.stdout, "NPU"),
        cpu_operators=_operators(done.stdout, "CPU"),
        reasons=_refusals(done.stdout),
    )


def _vela() -> Path:
    """The executable that belongs to this Python, not one of another environment that PATH may find."""
    executable = Path(sys.executable).parent / ("vela.exe" if sys.platform == "win32" else "vela")
    try:
        version("ethos-u-vela")
    except PackageNotFoundError:
        raise MissingExtraError("The Ethos-U compiler Vela", extra="edge") from None
    if not executable.exists():
        raise MissingExtraError("The Ethos-U compiler Vela", extra="edge")
    return executable


def _operators(log: str, processor: str) -> int:
    found = re.search(rf"^{processor} operators = (\d+)", log, re.MULTILINE)
    if found is None:
        raise ExportError(f"Vela's log does not tell how many operators run on the {processor}: version not known.")
    return int(found.group(1))


def _refusals(log: str) -> dict[str, str]:
    r"""Vela's reasons, by the name of the tensor that the operator writes.

    Example:
        >>> _refusals("Warning (supported operators) operator: NEG, ofm: 'x/Neg'\nReason: no\nmust be INT8\n\n")
        {'x/Neg': 'no; must be INT8'}
    """
    found = re.findall(r"^Warning \([^)]*\) operator: .*?, ofm: '(.*)'\nReason: ((?:.+\n?)+)", log, re.MULTILINE)
    return {tensor: "; ".join(reason.splitlines()) for tensor, reason in found}


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"it crashed ({signal.Signals(-done.returncode).name})"
    return ((done.stderr or done.stdout).strip() or f"exit status {done.returncode}").splitlines()[-1].rstrip(".")
