"""The line on the terminal that tells what takes so long."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.status import Status

__all__ = ["status_line"]


def status_line(text: str) -> Status:
    """A line with a spinner on stderr for as long as a block runs; nothing where stderr is no terminal.

    By itself rich takes a cell of Jupyter for a terminal (FORCE_COLOR, which Jupyter sets, is about colours), and every
    turn of the spinner would stay in the notebook.

    Example:
        >>> with status_line("Converting"):
        ...     converted = True
    """
    return Console(stderr=True, force_jupyter=False, force_terminal=sys.stderr.isatty()).status(text)
