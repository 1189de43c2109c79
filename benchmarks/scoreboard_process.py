"""Processes of benchmarks/scoreboard_worker.py, which a tool may crash or hang without ending the scoreboard."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Worker"]

SCRIPT = Path(__file__).resolve().parent / "scoreboard_worker.py"
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")


class Worker:
    """One tool's process, begun at its first task and again after a crash.

    Args:
        tool: its name.
        python: of the tool's environment.
        log: where its error output goes.
        own_environment: whether that is not the one of tfopt.
        timeout_seconds: of a task.
        threads: that TensorFlow computes with; None: as it likes.
    """

    def __init__(
        self,
        tool: str,
        python: str,
        log: Path,
        *,
        own_environment: bool,
        timeout_seconds: float,
        threads: int | None = None,
    ) -> None:
        self.command = [python, str(SCRIPT), tool]
        self.log, self.timeout_seconds = log, timeout_seconds
        self.environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        if threads is not None:
            self.environment |= dict.fromkeys(THREADS, str(threads))
        if own_environment:
            self.environment.pop("PYTHONPATH", None)
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        if self.process:
            self.process.communicate()

    def kill(self) -> None:
        """Ends a task that another thread waits for."""
        if self.process:
            self.process.kill()

    def ask(self, task: dict[str, Any]) -> dict[str, Any]:
        """The answer to a task, or `{"failed": reason}`."""
        if self.process is None:
            self.process = self._start()
        process, late = self.process, threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        assert process.stdin
        assert process.stdout
        timer = threading.Timer(self.timeout_seconds, stop)
        timer.start()
        try:
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if line.endswith("\n"):
            return json.loads(line)
        process.communicate()
        self.process = None
        if late.is_set():
            return {"failed": f"it did not end within {self.timeout_seconds:.0f} s"}
        code = process.returncode
        ended = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"code {code}"
        return {"failed": f"its process ended with {ended}"}

    def _start(self) -> subprocess.Popen[str]:
        with self.log.open("a") as log:
            return subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the caller: a task that it ended would count as one that failed
            )
