"""What Arm's compiler Vela estimates for an Ethos-U: nothing here runs on the device."""

from __future__ import annotations

import csv
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tfopt.benchmark.measurements import Estimate
from tfopt.errors import BenchmarkError, ConfigError, MissingExtraError

__all__ = ["Platform", "estimate_latency", "platform_of"]


@dataclass(frozen=True)
class Platform:
    """The system a configuration is estimated in; without one Vela assumes an unnamed default."""

    accelerator: str
    system_config: str
    memory_mode: str


# Arm's own reference systems, as named in the vela.ini that Vela brings.
SYSTEMS = {
    "ethos-u55": ("Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "ethos-u65": ("Ethos_U65_High_End", "Dedicated_Sram"),
    "ethos-u85": ("Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_384KB"),
}
MACS = {
    "ethos-u55": (32, 64, 128, 256),
    "ethos-u65": (256, 512),
    "ethos-u85": (128, 256, 512, 1024, 2048),
}


def platform_of(accelerator: str) -> Platform:
    """The reference system of an accelerator such as "ethos-u55-128".

    Raises:
        ConfigError: if there is no such accelerator.
        MissingExtraError: if Vela is not installed.

    Example:
        >>> platform_of("ethos-u55-100")
        Traceback (most recent call last):
        ...
        tfopt.errors.ConfigError: benchmark: estimate must be one of ethos-u55-32, ethos-u55-64, \
ethos-u55-128, ethos-u55-256, ethos-u65-256, ethos-u65-512, ethos-u85-128, ethos-u85-256, \
ethos-u85-512, ethos-u85-1024, ethos-u85-2048. Received: 'ethos-u55-100'.
    """
    known = [f"{family}-{macs}" for family, choices in MACS.items() for macs in choices]
    if accelerator not in known:
        raise ConfigError(f"benchmark: estimate must be one of {', '.join(known)}. Received: {accelerator!r}.")
    _vela()
    return Platform(accelerator, *SYSTEMS[accelerator.rpartition("-")[0]])


def estimate_latency(path: Path, platform: Platform) -> Estimate | None:
    """Compiles a .tflite and reads what Vela estimates for one inference.

    Args:
        path: the file.
        platform: what to compile it for.

    Returns:
        The estimate, or None if no operator can run on the accelerator (a float file): Vela's figures leave
        out what stays on the CPU, and would be zero.

    Raises:
        BenchmarkError: if Vela fails or crashes.

    References: ethos-u-vela, PERFORMANCE.md of its documentation, on the accuracy of these estimates.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [str(_vela()), str(path), "--accelerator-config", platform.accelerator]
        command += ["--system-config", platform.system_config, "--memory-mode", platform.memory_mode]
        done = subprocess.run([*command, "--output-dir", folder], capture_output=True, text=True, check=False)
        summaries = list(Path(folder).glob("*_summary_*.csv"))
        if done.returncode or len(summaries) != 1:
            raise BenchmarkError(
                f"Vela cannot compile {path} for {platform.accelerator}: expected a summary. "
                f"Received: {_reason(done)}. Leave out estimate=, or export the file as int8."
            )
        with summaries[0].open(newline="") as file:
            summary = next(csv.DictReader(file))
    on_cpu, on_npu = _operators(done.stdout, "CPU"), _operators(done.stdout, "NPU")
    if on_npu == 0:
        return None
    return Estimate(
        target=platform.accelerator,
        source=f"ethos-u-vela {version('ethos-u-vela')}, {platform.system_config}, {platform.memory_mode}",
        latency_ms=float(summary["inference_time"]) * 1e3,
        cycles=round(float(summary["cycles_total"])),
        sram_bytes=round(float(summary["sram_memory_used"]) * 1024),
        accelerator_operators=on_npu,
        cpu_operators=on_cpu,
    )


def _vela() -> Path:
    """The executable that belongs to this Python, not one of another environment that PATH may find."""
    executable = Path(sys.executable).parent / ("vela.exe" if sys.platform == "win32" else "vela")
    try:
        version("ethos-u-vela")
    except PackageNotFoundError:
        raise MissingExtraError("The Ethos-U estimate", extra="edge") from None
    if not executable.exists():
        raise MissingExtraError("The Ethos-U estimate", extra="edge")
    return executable


def _operators(log: str, processor: str) -> int:
    found = re.search(rf"^{processor} operators = (\d+)", log, re.MULTILINE)
    if found is None:
        raise BenchmarkError(f"Vela's log does not tell how many operators run on the {processor}: version not known.")
    return int(found.group(1))


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"it crashed ({signal.Signals(-done.returncode).name})"
    return ((done.stderr or done.stdout).strip() or f"exit status {done.returncode}").splitlines()[-1].rstrip(".")
