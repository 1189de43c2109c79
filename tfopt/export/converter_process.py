"""Running a converter in a process of its own, which ends when it fails, hangs, or loses the program that started it.

A converter can crash the process it runs in, and what it imports leaks memory or changes the interpreter; out here
none of it reaches the user's program.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfopt.errors import ExportError

__all__ = ["TIMEOUT_SECONDS", "end_with_parent", "load_samples", "run_converter"]

TIMEOUT_SECONDS = 1800.0


def run_converter(
    module: str,
    arguments: Sequence[str],
    *,
    name: str,
    samples: dict[str, np.ndarray] | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> None:
    """Runs a module of Python's and returns when it has ended well.

    Args:
        module: its name; it must call `end_with_parent` first.
        arguments: of its command line.
        name: what messages call it.
        samples: arrays it is to read with `load_samples`; the file's path is one more argument, the last.
        timeout_seconds: when to give up.

    Raises:
        ExportError: with the converter's last words, if it fails, crashes or does not end in time.

    Example:
        >>> run_converter("calendar", ["2026", "2"], name="The calendar")
        >>> run_converter("calendar", ["2026", "13"], name="The calendar")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        tfopt.errors.ExportError: The calendar failed with code ... Its last words: ...
    """
    with tempfile.TemporaryDirectory(prefix="tfopt-conversion-") as folder:
        command = [sys.executable, "-m", module, *arguments]
        if samples is not None:
            command.append(str(Path(folder, "samples.npz")))
            np.savez(command[-1], **samples)  # type: ignore[arg-type]
        log = Path(folder, "log.txt")
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # held open: when this process dies, the converter sees it and ends
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "1", "CUDA_VISIBLE_DEVICES": "-1"},
            )
            try:
                code = process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                raise ExportError(
                    f"{name} did not end within {timeout_seconds:.0f} s and was stopped. "
                    f"Its last words: {_last_words(log)}"
                ) from None
            finally:
                process.kill()
                process.wait()
                if process.stdin is not None:
                    process.stdin.close()
        if code != 0:
            how = _killed(-code) if code < 0 else f"failed with code {code}"
            raise ExportError(f"{name} {how}. Its last words: {_last_words(log)}")


def _killed(number: int) -> str:
    how = f"was ended by signal {number} ({signal.strsignal(number)})"
    # A crash of the converter's own is another signal.
    return f"{how}, as systems do when memory runs out" if number == signal.SIGKILL else how


def _last_words(log: Path, lines: int = 6) -> str:
    text = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return "\n  " + "\n  ".join(text[-lines:]) if text else "(none)"


def load_samples(path: str | Path) -> dict[str, np.ndarray]:
    """The converter's side: the arrays that it was given."""
    with np.load(path) as file:
        return dict(file)


def end_with_parent() -> None:
    """The converter's side: from now on, this process ends when the one that started it does."""
    threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    # Unbuffered: a thread waiting inside sys.stdin's lock would make the interpreter abort at its end.
    os.read(0, 1)
    os._exit(1)
