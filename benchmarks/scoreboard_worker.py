"""One tool's part of benchmarks/scoreboard.py, in the tool's environment.

    python benchmarks/scoreboard_worker.py TOOL

Each line of the input is a task, as JSON; each line of the output is the answer to one. What libraries print goes to
the error output.
"""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Answer = dict[str, Any]
# Where something lies on a machine is nobody's business.
FOLDERS = re.compile(r"(?<![\w/.:])(?:[A-Za-z]:)?(?:[\\/][\w.+\-]+)+[\\/](?=[\w.+\-]*\w)")
# Keras tells where an error came up before it tells which.
WITHIN_LAYER = "Exception encountered when calling"
CAUSE = re.compile(r"^\s*(\w+(?:Error|Exception): .+)$", re.MULTILINE)
LONGEST = 240


def methods_of(tool: str) -> dict[str, Callable[[Any], Answer]]:
    """What a tool offers; each environment has the libraries of its own tool only."""
    if tool == "tfopt":
        from scoreboard_tfopt import METHODS

        return METHODS
    if tool == "files":
        import scoreboard_files

        return scoreboard_files.METHODS
    if tool in {"tfmot", "mct", "neural_compressor"}:
        import scoreboard_peers

        return getattr(scoreboard_peers, tool.upper())
    import scoreboard_converters

    return getattr(scoreboard_converters, tool.upper())


def first_words(error: BaseException) -> str:
    """The error's class and first line, without the folders of this machine."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    if lines and lines[0].startswith(WITHIN_LAYER) and (cause := CAUSE.search(str(error))):
        text = cause.group(1)
    text = FOLDERS.sub("", text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def answer(tool: str, line: dict[str, Any], loaded: dict[str, Any]) -> Answer:
    from scoreboard_task import Task

    if loaded.get("path") != line["data"]:
        with np.load(line["data"]) as file:
            loaded |= {"path": line["data"], "data": dict(file), "float_step_ms": {}}
    task = Task(
        tool=tool,
        method=line["method"],
        seed=line["seed"],
        settings=line["settings"],
        folder=Path(line["folder"]),
        data=loaded["data"],
        float_step_ms=loaded["float_step_ms"],
        files=tuple(line.get("files", ())),
    )
    return methods_of(tool)[task.method](task)


def main() -> None:
    tool, loaded = sys.argv[1], dict[str, Any]()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            found = answer(tool, json.loads(line), loaded)
        except Exception as error:  # whatever a tool raises is what the table tells
            traceback.print_exc()
            found = {"failed": first_words(error)}
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
