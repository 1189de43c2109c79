"""Peers in virtual environments of their own, above all tfmot on tf_keras."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["PEER", "Workers", "peer_python"]

FOLDER = Path(__file__).resolve().parent
PEER = {"tensorflow": "2.21.0", "tf_keras": "2.21.0", "tensorflow-model-optimization": "0.8.1"}


class Workers:
    """Runs a script of this folder with the Python of each framework: `SCRIPT tfopt|tfmot TASK`.

    TASK is JSON, and so is the answer, the last line of the output.
    """

    def __init__(self, script: str, environments: Path) -> None:
        self.script = str(FOLDER / script)
        self.pythons = {"tfopt": sys.executable, "tfmot": str(peer_python(environments))}

    def command(self, framework: str, task: dict[str, Any]) -> list[str]:
        return [self.pythons[framework], self.script, framework, json.dumps(task)]

    def environment(self, framework: str) -> dict[str, str]:
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        if framework != "tfopt":
            environment.pop("PYTHONPATH", None)
        return environment

    def run(self, framework: str, task: dict[str, Any]) -> dict[str, Any]:
        done = subprocess.run(
            self.command(framework, task),
            env=self.environment(framework),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{framework} failed at {task}:\n{done.stderr[-4000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def start(self, framework: str, task: dict[str, Any]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(framework, task),
            env=self.environment(framework),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )


def peer_python(environments: Path, name: str = "tfmot", versions: Mapping[str, str] = PEER) -> Path:
    """A peer's own virtual environment; made at the first run."""
    folder = environments / name
    python = folder / "bin" / "python"
    pins = [f"{package}=={version}" for package, version in versions.items()]
    done = folder / "installed.txt"
    if not done.exists() or done.read_text().split() != pins:
        print(f"installing {' '.join(pins)}", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *pins], check=True)
        done.write_text("\n".join(pins))
    return python
