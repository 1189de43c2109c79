"""Running `edgetpu_compiler`, Coral's closed compiler for Linux on x86, and reading what it says.

References: Coral, "Edge TPU Compiler"; the log is that of version 16.0.384591198.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tfopt.artifact import write_whole
from tfopt.errors import ExportError
from tfopt.plain_table import aligned

__all__ = ["Compilation", "OperatorStatus", "compile_for_edge_tpu"]

COMPILER = "edgetpu_compiler"
TIMEOUT_SECONDS = 900.0
MAPPED = "Mapped to Edge TPU"
UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True)
class OperatorStatus:
    """What the compiler did with some operators of one kind.

    Args:
        name: "CONV_2D", …
        count: how many.
        status: "Mapped to Edge TPU", or the compiler's reason why they stay on the CPU.
    """

    name: str
    count: int
    status: str

    @property
    def mapped(self) -> bool:
        """Whether they run on the Edge TPU."""
        return self.status == MAPPED


@dataclass(frozen=True)
class Compilation:
    """What the compiler made of a file.

    Args:
        version: of the compiler; "" if it does not say.
        path: the compiled file.
        operators: mapped and unmapped operators, grouped as the compiler groups them.
        subgraphs: how many Edge TPU operators the compiled file holds.
        cached_bytes: parameters on chip, to the three digits that the compiler prints.
        remaining_bytes: what is left on chip for parameters.
        streamed_bytes: parameters that are sent at every inference.
    """

    version: str
    path: Path
    operators: tuple[OperatorStatus, ...]
    subgraphs: int
    cached_bytes: int
    remaining_bytes: int
    streamed_bytes: int

    @property
    def mapped_count(self) -> int:
        """How many operators run on the Edge TPU."""
        return sum(operator.count for operator in self.operators if operator.mapped)

    @property
    def operator_count(self) -> int:
        """How many operators the file has."""
        return sum(operator.count for operator in self.operators)

    def __str__(self) -> str:
        rows = [("operator", "count", "status")]
        rows += [(operator.name, str(operator.count), operator.status) for operator in self.operators]
        return "\n".join(
            [
                f"Edge TPU, compiled by {COMPILER} {self.version}: {self.mapped_count} of {self.operator_count} "
                f"operators run on it, in {self.subgraphs} subgraph{'' if self.subgraphs == 1 else 's'}",
                f"parameters: {self.cached_bytes:,} bytes cached on chip ({self.remaining_bytes:,} left), "
                f"{self.streamed_bytes:,} bytes streamed at every inference",
                "",
                *aligned(rows, "<><"),
            ]
        )


def compile_for_edge_tpu(
    path: Path, compiled_path: Path, *, timeout_seconds: float = TIMEOUT_SECONDS
) -> Compilation | None:
    """Compiles a .tflite file with the `edgetpu_compiler` that is on PATH.

    Args:
        path: the file.
        compiled_path: where to write the compiled file.
        timeout_seconds: when to give up.

    Returns:
        What the compiler says, or None if it is not on PATH.

    Raises:
        ExportError: with the compiler's last words, if it fails, crashes or does not end in time; nothing is written.
    """
    executable = shutil.which(COMPILER)
    if executable is None:
        return None
    with tempfile.TemporaryDirectory(prefix="tfopt-edge-tpu-") as folder:
        log = _run([executable, "-s", "-o", folder, str(Path(path).resolve())], folder, timeout_seconds)
        made = Path(folder, f"{Path(path).stem}_edgetpu.tflite")
        if not made.exists():
            raise ExportError(
                f"{COMPILER} wrote no compiled file for {path}, though it did not fail. Its last words: {_last(log)}"
            )
        compilation = _read(log, Path(compiled_path))
        with write_whole(compiled_path) as temporary:
            shutil.copyfile(made, temporary)
    return compilation


def _run(command: list[str], folder: str, timeout_seconds: float) -> str:
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # it compiles in a child of its own, which must end with it
    )
    try:
        log, _ = process.communicate(timeout=timeout_seconds)
    except subprocess.TimeoutExpired as expired:
        said = expired.output or b""
        raise ExportError(
            f"{COMPILER} did not end within {timeout_seconds:g} s and was stopped. Its last words: "
            f"{_last(said.decode(errors='replace') if isinstance(said, bytes) else said)}"
        ) from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    if process.returncode:
        how = f"crashed ({signal.Signals(-process.returncode).name})" if process.returncode < 0 else "failed"
        raise ExportError(
            f"{COMPILER} {how} on {command[-1]}. Its last words: {_last(log)}\n"
            "tfopt.export.edge_tpu.predict tells what it may not like."
        )
    return log


def _read(log: str, compiled_path: Path) -> Compilation:
    version = re.search(r"Edge TPU Compiler version (\S+)", log)
    table = re.split(r"^Operator +Count +Status\s*$", log, maxsplit=1, flags=re.MULTILINE)
    rows = re.findall(r"^(\S+) +(\d+) +(\S.*?) *$", table[-1], re.MULTILINE) if len(table) == 2 else []
    total = re.search(r"^Total number of operations: (\d+)", log, re.MULTILINE)
    subgraphs = re.search(r"^Number of Edge TPU subgraphs: (\d+)", log, re.MULTILINE)
    operators = tuple(OperatorStatus(name, int(count), status) for name, count, status in rows)
    if total is None or subgraphs is None or sum(operator.count for operator in operators) != int(total[1]):
        raise ExportError(
            f"The log of {COMPILER} is not that of version 16, or not complete: expected a count of operations and "
            f"a line for each kind. Received: {_last(log)}"
        )
    return Compilation(
        version="" if version is None else version[1],
        path=compiled_path,
        operators=operators,
        subgraphs=int(subgraphs[1]),
        cached_bytes=_size(log, "On-chip memory used for caching model parameters"),
        remaining_bytes=_size(log, "On-chip memory remaining for caching model parameters"),
        streamed_bytes=_size(log, "Off-chip memory used for streaming uncached model parameters"),
    )


def _size(log: str, what: str) -> int:
    found = re.search(rf"^{what}: ([\d.]+)([KMG]?i?B)", log, re.MULTILINE)
    if found is None or found[2] not in UNITS:
        raise ExportError(
            f"The log of {COMPILER} does not tell '{what}', as that of version 16 does. Received: {_last(log)}"
        )
    return round(float(found[1]) * UNITS[found[2]])


def _last(log: str, lines: int = 6) -> str:
    said = [line for line in log.splitlines() if line.strip()]
    return "\n  " + "\n  ".join(said[-lines:]) if said else "(none)"
