"""The machine that figures were measured on."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tfopt.artifact import library_versions

__all__ = ["Machine", "this_machine"]


class Machine(BaseModel):
    """What a latency depends on besides the model.

    Args:
        cpu: model name of the processor.
        logical_cores: cores that this process may use.
        memory_bytes: physical memory, None where the system does not tell.
        system: operating system and architecture.
        python: version of Python.
        versions: versions of the libraries, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: str
    logical_cores: int
    memory_bytes: int | None
    system: str
    python: str
    versions: dict[str, str] = {}


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
        python=platform.python_version(),
        versions=library_versions(),
    )


def _cpu() -> str:
    try:
        named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        named = None
    return named.group(1).strip() if named else platform.processor() or platform.machine()


def _logical_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
