"""The servers of benchmarks/serving.py: tfopt's with and without batching, and its peers in their own environments."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from peers import peer_python

from tfopt.load.endpoint import Endpoint
from tfopt.load.local_server import local_server

__all__ = ["MODEL", "OWN", "PEERS", "install", "running"]

ROOT = Path(__file__).resolve().parent
MODEL = "m"
PATH = f"/v1/models/{MODEL}"
TENSORFLOW = {"tensorflow": "2.21.0", "keras": "3.15.1"}
PEERS = {
    "litserve": {"litserve": "0.2.19", **TENSORFLOW},
    "bentoml": {"bentoml": "1.4.39", **TENSORFLOW},
    "ray": {"ray[serve]": "2.60.0", **TENSORFLOW},
}
OWN = {"no batching": ("--no-batching",), "tfopt": ()}
"""tfopt's own servers, by the options that they are started with."""
START_SECONDS = 300.0
STOP_SECONDS = 60.0
ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "BENTOML_DO_NOT_TRACK": "True",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # 15 by default, which would give way to the clients on the same machine
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",  # as docs.ray.io has it, "Performance Tuning"
}


def install(environments: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The Python of each server, and why a peer has none."""
    pythons = {name: Path(sys.executable) for name in OWN}
    missing = {}
    for name, versions in PEERS.items():
        try:
            pythons[name] = peer_python(environments, name, versions)
        except subprocess.CalledProcessError as error:
            missing[name] = f"pip ended with code {error.returncode}"
            print(f"{name} is left out: {missing[name]}", flush=True)
    return pythons, missing


@contextmanager
def running(name: str, folder: Path, python: Path, *, max_batch_size: int, probe: bytes) -> Iterator[Endpoint]:
    """A server from its start to its end.

    Args:
        name: one of `OWN` or `PEERS`.
        folder: with the model, as `tfopt.export_serving` writes it.
        python: of the server's environment.
        max_batch_size: of a peer; tfopt's is in the folder.
        probe: the body of a request; a peer has started when it answers it.
    """
    if name in OWN:
        with local_server(folder, options=OWN[name]) as server:
            yield Endpoint.of(f"{server.rest}{PATH}")
        return
    port = _free_port()
    command = [str(python), str(ROOT / f"serving_{name}.py"), str(folder / MODEL / "1"), str(port), str(max_batch_size)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | ENVIRONMENT
    # Commands of the peer's environment, such as `ray`, come before others of that name.
    environment["PATH"] = f"{python.parent}{os.pathsep}{environment.get('PATH', '')}"
    with (
        # A peer that was killed may still be writing into it.
        tempfile.TemporaryDirectory(prefix="serving-", ignore_cleanup_errors=True) as work,
        Path(work, "log.txt").open("wb") as log,
    ):
        process = subprocess.Popen(
            command, cwd=work, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            endpoint = Endpoint.of(f"http://127.0.0.1:{port}{PATH}")
            _await_answer(process, f"{endpoint.url}:predict", probe, Path(log.name))
            yield endpoint
        finally:
            _end(process)


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def _await_answer(process: subprocess.Popen[bytes], url: str, probe: bytes, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    said = "nothing answers"
    while time.monotonic() < end and process.poll() is None:
        request = urllib.request.Request(url, probe, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60):
                return
        except urllib.error.HTTPError as error:
            with error:
                said = f"{error.code}: {error.read(300).decode('utf-8', 'replace')}"
        except OSError as error:
            said = str(error)
        time.sleep(0.3)
    raise SystemExit(f"{process.args} did not start ({said}):\n{log.read_text('utf-8', 'replace')[-4000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"{Path(process.args[1]).name} did not end on SIGTERM and was killed", file=sys.stderr)  # type: ignore[index]
    with suppress(ProcessLookupError):  # what it has left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
