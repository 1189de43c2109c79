"""Serving: no batching, tfopt's local server, LitServe, BentoML and Ray Serve on one SavedModel, under closed loops.

    python benchmarks/serving.py [--rounds 5] [--seconds 8] [--environments FOLDER]

Each peer has an environment of its own and batches as its documentation has it; all have the same TensorFlow, the same
largest batch, the same SavedModel, and get the same bytes over HTTP from the same clients (`tfopt.load`), which share
the machine with them. In each round every server is started, its answers to 64 requests are compared with the
model's, it is loaded with each number of clients, and ended; no two servers run at a time. The next round begins with
the next server. "no batching" is tfopt's server without it.

Writes benchmarks/results/serving.json; models that were not asked for stay as they are.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
from serving_servers import MODEL, PEERS, install, running
from worker_files import check_equal

import tfopt
from tfopt.artifact import write_whole
from tfopt.benchmark.machine import this_machine
from tfopt.load.endpoint import Endpoint
from tfopt.load.load import Load
from tfopt.load.measurement import measure_load
from tfopt.load.request_bodies import rest_body
from tfopt.serving.batching import usual_batch_sizes

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results" / "serving.json"
MAX_BATCH_SIZE = 64
REQUESTS = 64
"""Different ones; sent in turns."""
CHECKED_AT_ONCE = 16
SPEED = "throughput_per_second"
FIGURES = (SPEED, "p50_ms", "p99_ms")

Settings = dict[str, Any]


def dense() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(3200, activation="relu", kernel_initializer="he_normal") for _ in range(3)]
    return keras.Sequential([keras.Input((3200,), name="x"), *layers, keras.layers.Dense(3200, name="y")])


def cnn() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers: list[keras.Layer] = []
    for channels in (16, 32, 64):
        layers += [keras.layers.Conv2D(channels, 3, padding="same", activation="relu"), keras.layers.MaxPooling2D()]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10, name="y")]
    return keras.Sequential([keras.Input((96, 96, 3), name="x"), *layers])


MODELS = {"dense": dense, "cnn": cnn}


def batching() -> tfopt.BatchingParameters:
    """One batch at a time, as the peers run them: TensorFlow gives all cores to it. The time-out is long, since tfopt
    waits only for as many requests as there are clients; the peers are not faster with a longer one than theirs."""
    return tfopt.BatchingParameters(
        max_batch_size=MAX_BATCH_SIZE,
        allowed_batch_sizes=usual_batch_sizes(MAX_BATCH_SIZE),
        num_batch_threads=1,
        batch_timeout_micros=100_000,
    )


def check_answers(name: str, endpoint: Endpoint, bodies: list[bytes], expected: np.ndarray) -> None:
    """Compares the answers to all requests, several sent at once, with what the model gives."""

    def answer(body: bytes) -> np.ndarray:
        request = urllib.request.Request(f"{endpoint.url}:predict", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                said = json.load(response)
        except OSError as error:
            raise SystemExit(f"{name}: a request of the check failed: {error}") from error
        return np.array(said["predictions"] if isinstance(said, dict) else said, np.float32)

    with ThreadPoolExecutor(CHECKED_AT_ONCE) as pool:
        for number, received in enumerate(pool.map(answer, bodies)):
            if received.shape != (1, *expected.shape[1:]):
                raise SystemExit(f"{name}: expected an answer of shape (1, ...). Received: {received.shape}.")
            check_equal(received[0], expected[number], name)


def measure(endpoint: Endpoint, bodies: list[bytes], clients: int, arguments: argparse.Namespace) -> Settings:
    load = Load(
        clients=clients, seconds=arguments.seconds, warmup_seconds=arguments.warmup_seconds, timeout_seconds=30.0
    )
    result = measure_load(endpoint, bodies, load)
    print(
        f"  {load}: {result.throughput_per_second:.1f}/s, p50 {result.p50_ms or 0:.1f} ms, "
        f"p99 {result.p99_ms or 0:.1f} ms, errors {result.errors}",
        flush=True,
    )
    told = {"errors": result.errors, "messages": result.messages, "batch_sizes": result.server.batch_sizes}
    return {"requests": result.requests, **{key: getattr(result, key) for key in FIGURES}, **told}


def spread(values: list[float]) -> Settings:
    return {"median": statistics.median(values), "smallest": min(values), "largest": max(values)}


def summarised(rounds: list[Settings]) -> Settings:
    """Over the rounds, by clients and server; tfopt's throughput is compared with others' of the same round."""
    summary: Settings = {}
    for clients in rounds[0]["tfopt"]:
        summary[clients] = rows = {}
        for name in rounds[0]:
            found = [one[name][clients] for one in rounds]
            # Percentiles are None in a round in which nothing was answered.
            values = {key: [one[key] for one in found if one[key] is not None] for key in FIGURES}
            rows[name] = {key: spread(each) if each else None for key, each in values.items()}
            rows[name]["requests"] = sum(one["requests"] for one in found)
            rows[name]["errors"] = sum(sum(one["errors"].values()) for one in found)
            speeds = [(one["tfopt"][clients][SPEED], one[name][clients][SPEED]) for one in rounds]
            ratios = [ours / theirs for ours, theirs in speeds if theirs]
            rows[name]["tfopt_times"] = spread(ratios) if ratios and name != "tfopt" else None
    return summary


def compare(name: str, pythons: dict[str, Path], arguments: argparse.Namespace) -> Iterator[Settings]:
    """Gives what was found up to each round."""
    model = MODELS[name]()
    x = np.random.default_rng(0).random((REQUESTS, *model.input_shape[1:]), np.float32)
    bodies = [rest_body({"x": x[row : row + 1]}) for row in range(REQUESTS)]
    expected = model.predict(x, verbose=0)
    found: Settings = {
        "parameters": model.count_params(),
        "input_shape": model.input_shape[1:],
        "request_bytes": statistics.mean(map(len, bodies)),
        "rounds": [],
    }
    servers = list(pythons)
    with tempfile.TemporaryDirectory(prefix="serving-") as temporary:
        folder = Path(temporary)
        tfopt.export_serving(model, folder, name=MODEL, data=x[:1], batching=batching(), base_path=temporary)
        for number in range(arguments.rounds):
            begin = number % len(servers)
            loads: Settings = {server: {} for server in servers}
            for server in servers[begin:] + servers[:begin]:
                start = time.monotonic()
                options = {"max_batch_size": MAX_BATCH_SIZE, "probe": bodies[0]}
                with running(server, folder, pythons[server], **options) as endpoint:
                    print(f"{name}, round {number}, {server}: started in {time.monotonic() - start:.0f} s", flush=True)
                    check_answers(f"{name}, {server}", endpoint, bodies, expected)
                    for clients in arguments.clients:
                        loads[server][str(clients)] = measure(endpoint, bodies, clients, arguments)
            found["rounds"].append(loads)
            yield {**found, "summary": summarised(found["rounds"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--warmup-seconds", type=float, default=6, help="BentoML learns every 5 s")
    parser.add_argument("--environments", type=Path, default=ROOT / ".venvs", help="folder of the peers' environments")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    results: Settings = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    pythons, missing = install(arguments.environments)
    results |= {
        "machine": this_machine().model_dump(),
        "peers": PEERS,
        "missing": missing,
        "settings": {
            "seconds": arguments.seconds,
            "warmup_seconds": arguments.warmup_seconds,
            "max_batch_size": MAX_BATCH_SIZE,
            "tfopt_batching": batching().to_text(),
        },
    }
    for name in arguments.models:
        for found in compare(name, pythons, arguments):
            results.setdefault("models", {})[name] = found
            with write_whole(arguments.results) as temporary:
                temporary.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
