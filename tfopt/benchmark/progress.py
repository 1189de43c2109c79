"""A progress bar that takes no time from what is being timed."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["advance", "progress_bar"]


def progress_bar(shown: bool | None) -> Progress:
    """A bar on stderr; without a choice it is shown if the terminal is interactive."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Drawn between the turns only: a thread that draws would take the cores that are being timed.
    return Progress(
        *columns,
        console=console,
        transient=True,
        auto_refresh=False,
        disable=not (console.is_terminal if shown is None else shown),
    )


def advance(bar: Progress, task: Any, count: float = 1) -> None:
    """Moves a task on, and draws where that can be seen."""
    before = bar.tasks[task].percentage
    bar.advance(task, count)
    if int(bar.tasks[task].percentage) != int(before):
        bar.refresh()
