"""A server of tfopt's own in another process, for as long as it is measured."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tfopt.errors import BenchmarkError

__all__ = ["LocalServer", "local_server"]

START_SECONDS = 600.0
"""In which every model of a folder must be loaded."""
STOP_SECONDS = 15.0


@dataclass(frozen=True)
class LocalServer:
    """Where it listens.

    Args:
        rest: `http://HOST:PORT`.
        grpc: `grpc://HOST:PORT`.
    """

    rest: str
    grpc: str


@contextmanager
def local_server(directory: Path, *, options: tuple[str, ...] = ()) -> Iterator[LocalServer]:
    """Starts `tfopt serve` on free ports and ends it in the end.

    Args:
        directory: a folder of models.
        options: further ones of the command, such as `--no-batching`.

    Raises:
        BenchmarkError: if it does not start.
    """
    command = [sys.executable, "-m", "tfopt", "serve", str(directory), "--rest-port", "0", "--grpc-port", "0"]
    with tempfile.TemporaryDirectory(prefix="tfopt-serve-") as folder, Path(folder, "log.txt").open("wb") as log:
        process = subprocess.Popen([*command, *options], stdout=log, stderr=subprocess.STDOUT)
        try:
            yield _started(process, Path(log.name))
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _started(process: subprocess.Popen[bytes], log: Path) -> LocalServer:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        ended = process.poll() is not None
        said = log.read_text("utf-8", "replace")
        rest, grpc = re.search(r"^REST: (http://[^/\s]+)/", said, re.M), re.search(r"^gRPC: (\S+)$", said, re.M)
        if rest and grpc:
            return LocalServer(rest[1], f"grpc://{grpc[1]}")
        if ended:
            raise BenchmarkError(f"The server did not start: {' '.join(said.split()[-60:])}")
        time.sleep(0.05)
    raise BenchmarkError(f"The server did not start within {START_SECONDS:.0f} s.")
