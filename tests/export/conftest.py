"""What several tests of converters need."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def is_running() -> Callable[[int], bool]:
    """Tells whether a process is there, and not only its entry in the table."""

    def is_running(process_id: int) -> bool:
        try:
            state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        return state != "Z"

    return is_running
