"""The machine that figures were measured on."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tfopt.artifact import library_versions

__all__ = ["Machine", "this_machine"]

INSTRUCTION_SETS = (
    *("avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "sve"),
)


class Machine(BaseModel):
    """What a latency depends on besides the model.

    Args:
        cpu: model name of the processor.
        logical_cores: cores that this process may use.
        memory_bytes: physical memory, None where the system does not tell.
        system: operating system and architecture.
        distribution: name of the Linux distribution, empty where there is none.
        instruction_sets: extensions of the processor that kernels for neural networks use, such as avx512_vnni.
        load_average: processes that ran or waited to run, on average of the minute before; None where the system does
            not tell. As many as cores, and others took part of the time.
        python: version of Python.
        versions: versions of the libraries, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: str
    logical_cores: int
    memory_bytes: int | None
    system: str
    distribution: str = ""
    instruction_sets: tuple[str, ...] = ()
    load_average: float | None = None
    python: str
    versions: dict[str, str] = {}

    @property
    def cores(self) -> str:
        """How many logical cores, in words."""
        return f"{self.logical_cores} logical core{'' if self.logical_cores == 1 else 's'}"

    @property
    def processor(self) -> str:
        """The processor and its cores, in words.

        Example:
            >>> this_machine().model_copy(update={"cpu": "Cortex-A53", "logical_cores": 1}).processor
            'Cortex-A53, 1 logical core'
        """
        return f"{self.cpu}, {self.cores}"

    def is_like(self, other: Machine) -> bool:
        """Whether times of both may be put beside each other: the same processor, number of cores and kind of system.

        Example:
            >>> here = this_machine()
            >>> here.is_like(here.model_copy(update={"load_average": 0.0}))
            True
        """
        mine, theirs = ((one.cpu, one.logical_cores, one.system.split()[:1]) for one in (self, other))
        return mine == theirs


def this_machine() -> Machine:
    """Describes the machine this process runs on.

    Example:
        >>> this_machine().logical_cores >= 1
        True
    """
    return Machine(
        cpu=_cpu(),
        logical_cores=_logical_cores(),
        memory_bytes=_memory_bytes(),
        system=f"{platform.system()} {platform.release()} ({platform.machine()})",
        distribution=_distribution(),
        instruction_sets=_instruction_sets(),
        load_average=_load_average(),
        python=platform.python_version(),
        versions=library_versions(),
    )


def _cpu() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(field: str) -> str:
    """The first core's value; empty where the system does not tell."""
    try:
        found = re.search(rf"^{field}\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return ""
    return found.group(1).strip() if found else ""


def _instruction_sets() -> tuple[str, ...]:
    flags = (_cpuinfo("flags") or _cpuinfo("Features")).split()  # x86, Arm
    return tuple(name for name in INSTRUCTION_SETS if name in flags)


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _load_average() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def _logical_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
