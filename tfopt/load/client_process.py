"""A script: one client process of a load. `python -m tfopt.load.client_process FOLDER INDEX`.

It reads FOLDER/plan.json and FOLDER/bodies.bin, tries one request and prints its code and what the server said as a
line of JSON, begins when a line comes in, and writes FOLDER/INDEX.npz: for each request when it was due, sent and
answered, in seconds from the begin of what is measured, and the number of its code. It ends when its input does.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tfopt.load.endpoint import Endpoint
from tfopt.load.load import Load, poisson_arrivals
from tfopt.load.loops import closed_loop, open_loop
from tfopt.load.senders import SUCCESS, GrpcSender, RestSender

__all__ = ["write_plan"]

SWITCH_INTERVAL_SECONDS = 0.0005
"""Between threads: the one that keeps the time of arrivals is not to wait for long."""
LONGEST_MESSAGE = 500


def write_plan(folder: Path, endpoint: Endpoint, load: Load, bodies: list[bytes]) -> None:
    """Writes what the client processes read."""
    plan = {"endpoint": vars(endpoint), "load": vars(load), "sizes": [len(body) for body in bodies]}
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    (folder / "bodies.bin").write_bytes(b"".join(bodies))


def main(folder: Path, index: int) -> None:
    """Runs this process's share of the load."""
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    content, bodies, begin = (folder / "bodies.bin").read_bytes(), [], 0
    for size in plan["sizes"]:
        bodies.append(content[begin : begin + size])
        begin += size
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    run = _run(Endpoint(**plan["endpoint"]), Load(**plan["load"]), bodies, folder, index)
    if find_spec("uvloop") is not None:
        import uvloop

        uvloop.run(run)
    else:
        asyncio.run(run)


async def _run(endpoint: Endpoint, load: Load, bodies: list[bytes], folder: Path, index: int) -> None:
    times: list[tuple[float, float, float]] = []
    codes: list[int] = []
    known: dict[str, int] = {}
    messages: dict[str, str] = {}

    def record(due: float, sent: float, answered: float, code: str, said: bytes) -> None:
        times.append((due, sent, answered))
        codes.append(known.setdefault(code, len(known)))
        if code not in SUCCESS and not messages.get(code):
            messages[code] = _text(said)

    kind: Any = RestSender if endpoint.protocol == "rest" else GrpcSender
    sender = kind(endpoint, bodies, timeout_seconds=load.timeout_seconds)
    tried = sender.another()
    code, said = await tried.send(0)
    await tried.close()
    print(json.dumps({"code": code, "said": _text(said)}), flush=True)
    gc.collect()
    gc.freeze()  # a collection would be taken for the server's latency
    if not sys.stdin.readline():
        return
    threading.Thread(target=_end_with_input, daemon=True).start()
    seconds = load.warmup_seconds + load.seconds
    start = time.perf_counter()
    if load.clients is not None:
        # The share of this process: the first ones have one client more where it does not come out even.
        clients = load.clients // load.processes + (index < load.clients % load.processes)
        senders = [sender.another() for _ in range(clients)]
        await closed_loop(senders, seconds, record)
        for one in senders:
            await one.close()
    else:
        # Arrivals of Poisson processes put together are those of one.
        arrivals = poisson_arrivals(load.rate_per_second / load.processes, seconds, seed=load.seed + index)  # type: ignore[operator]
        await open_loop(
            sender.another, arrivals, record, max_connections=max(1, load.max_connections // load.processes)
        )
    np.savez(
        folder / f"{index}.npz",
        times=np.array(times, np.float64).reshape(-1, 3) - (start + load.warmup_seconds),
        codes=np.array(codes, np.int32),
        known=np.array(json.dumps(list(known))),
        messages=np.array(json.dumps(messages)),
    )


def _text(said: bytes) -> str:
    return " ".join(said[:LONGEST_MESSAGE].decode("utf-8", "replace").split())


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
