"""A minute of 64 clients on two models, with a version replaced in the middle and a connection killed every second.

    python benchmarks/serving_soak.py [--seconds 60] [--clients 64]

Every answer of `tfopt serve`, over REST, is compared with what the model computes. A model of each version multiplies
by a factor of its own, so that an answer tells which model, version and signature gave it. Lost requests are those
that nobody answered though their connection lived.

Writes benchmarks/results/serving_soak.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfopt.benchmark.machine import this_machine
from tfopt.load.http_connection import HttpConnection, http_request
from tfopt.load.local_server import local_server

RESULTS = Path(__file__).resolve().parent / "results" / "serving_soak.json"
WIDTH = 64
FACTORS = {("a", 1): 2.0, ("a", 2): 3.0, ("b", 1): 5.0}


def write_model(folder: Path, factor: float) -> None:
    """`serving_default` gives factor · x, and `negated` the same times -1."""
    module = tf.Module()
    module.factor = tf.Variable(factor)
    spec = [tf.TensorSpec([None, WIDTH], tf.float32, name="x")]
    signatures = {
        "serving_default": tf.function(lambda x: {"y": module.factor * x}, spec),
        "negated": tf.function(lambda x: {"y": -module.factor * x}, spec),
    }
    functions = {name: one.get_concrete_function() for name, one in signatures.items()}
    tf.saved_model.save(module, str(folder), functions)


class Soak:
    """The clients and what came of their requests."""

    def __init__(self, host: str, port: int, seconds: float) -> None:
        self.host, self.port = host, port
        self.end = time.monotonic() + seconds
        self.counts: Counter[str] = Counter()
        self.connections: dict[int, HttpConnection] = {}
        self.killed: set[int] = set()

    async def client(self, number: int) -> None:
        random = np.random.default_rng(number)
        while time.monotonic() < self.end:
            if number not in self.connections:
                _, connection = await asyncio.get_running_loop().create_connection(HttpConnection, self.host, self.port)
                self.connections[number] = connection
            name, signature = str(random.choice(["a", "b"])), str(random.choice(["serving_default", "negated"]))
            x = random.integers(-1000, 1000, (random.integers(1, 4), WIDTH)).astype(np.float32)
            body = json.dumps({"signature_name": signature, "instances": x.tolist()}).encode()
            request = http_request("POST", f"/v1/models/{name}:predict", f"{self.host}:{self.port}", body)
            try:
                status, answer = await self.connections[number].send(request)
            except OSError:
                self.counts["killed" if number in self.killed else "lost"] += 1
                self.killed.discard(number)
                self.connections.pop(number, None)
                continue
            self.counts[self.judge(name, signature, x, status, answer)] += 1

    def judge(self, name: str, signature: str, x: np.ndarray, status: int, answer: bytes) -> str:
        if status != 200:
            return f"status {status}"
        got = np.array(json.loads(answer)["predictions"], np.float32)
        sign = -1 if signature == "negated" else 1
        for (model, version), factor in FACTORS.items():
            if model == name and got.shape == x.shape and np.array_equal(got, np.float32(sign * factor) * x):
                return f"{name} version {version}"
        return "wrong"

    async def killer(self) -> None:
        random = np.random.default_rng(0)
        while time.monotonic() < self.end:
            await asyncio.sleep(1)
            number = int(random.choice(sorted(self.connections)))
            self.killed.add(number)
            self.connections[number].close()


async def run(soak: Soak, clients: int, replace: Any, seconds: float) -> None:
    async def later() -> None:
        await asyncio.sleep(seconds / 2)
        replace()

    await asyncio.gather(later(), soak.killer(), *(soak.client(number) for number in range(clients)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tfopt-soak-") as temporary:
        folder = Path(temporary, "models")
        for (name, version), factor in FACTORS.items():
            write_model(folder / name / str(version), factor)
        later = Path(temporary, "2")
        (folder / "a" / "2").rename(later)
        with local_server(folder, options=("--poll-seconds", "0.5")) as server:
            host, _, port = server.rest.removeprefix("http://").rpartition(":")
            soak = Soak(host, int(port), arguments.seconds)
            asyncio.run(run(soak, arguments.clients, lambda: os.rename(later, folder / "a" / "2"), arguments.seconds))
    counts = dict(sorted(soak.counts.items()))
    print(counts)
    result = {
        "machine": this_machine().model_dump(),
        "seconds": arguments.seconds,
        "clients": arguments.clients,
        "requests": sum(counts.values()),
        "counts": counts,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"Wrote {arguments.out}.")


if __name__ == "__main__":
    main()
