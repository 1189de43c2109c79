"""`tfopt.tune_batching` beside an exhaustive grid: what it finds, and in how much of the time.

    python benchmarks/batching_search.py [--models dense small convolutions]

Three models whose batches cost differently: the weights of "dense" are read once for a whole batch, "small" costs
little beside its call, and "convolutions" computes as long for each sample in a batch as alone: for two clients, whom
two cores serve as well one by one, batching does not pay. The grid measures each of its settings as long and as often
as the search measures its last ones. The best of 49 noisy figures is too high: the three best of the grid, what the
search chose, and no batching are measured again in turns, and compared by that.

Writes benchmarks/results/batching_search.json; models that were not asked for stay as they are.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import keras
import numpy as np
from serving import MODEL, dense, spread

import tfopt
from tfopt import BatchingParameters
from tfopt.artifact import write_whole
from tfopt.benchmark.machine import this_machine
from tfopt.load.load import Load
from tfopt.load.measurement import measure_load, request_bodies
from tfopt.load.result import LoadResult
from tfopt.serving.batching import usual_batch_sizes
from tfopt.serving.tuning.trial_servers import no_batching, trial_servers

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results" / "batching_search.json"
MAX_BATCH_SIZE = 64
TIMEOUTS_MICROS = (0, 1000, 5000, 20_000)
SERVED_AT_ONCE = 8
"""Settings of the grid whose servers run at the same time, idle but for one."""
BEST = 3
SECONDS, ROUNDS = 2.0, 3
"""What the search takes for its last measurements, by default."""
FINAL_ROUNDS = 21
"""Single ones scatter by 15 % on a shared machine: five are too few to tell 5 %."""

Settings = dict[str, Any]


def small() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((64,), name="x"), keras.layers.Dense(64, "relu"), keras.layers.Dense(10)])


def convolutions() -> keras.Model:
    keras.utils.set_random_seed(0)
    codes = keras.Input((64,), name="x")
    x = keras.layers.Resizing(96, 96)(keras.layers.Reshape((8, 8, 1))(codes))
    for _ in range(6):
        x = keras.layers.Conv2D(64, 3, padding="same", activation="relu")(x)
    return keras.Model(codes, keras.layers.GlobalAveragePooling2D()(x))


@dataclass(frozen=True)
class Case:
    """A model and its load: a closed loop of clients, and the latency within which an answer counts."""

    build: Callable[[], keras.Model]
    clients: int
    slo_ms: float


CASES = {
    "dense": Case(dense, 64, 250.0),
    "small": Case(small, 64, 100.0),
    "convolutions": Case(convolutions, 2, 1000.0),
}


def grid() -> dict[str, BatchingParameters]:
    sizes = usual_batch_sizes(MAX_BATCH_SIZE)
    found = {"no batching": no_batching()}
    threads = sorted({1, os.cpu_count() or 1})
    for size, timeout, at_once in itertools.product(sizes[1:], TIMEOUTS_MICROS, threads):
        found[f"up to {size}, {timeout / 1000:g} ms, {at_once} at once"] = BatchingParameters(
            max_batch_size=size,
            batch_timeout_micros=timeout,
            num_batch_threads=at_once,
            max_enqueued_batches=1000,
            allowed_batch_sizes=usual_batch_sizes(size),
        )
    return found


def figures(results: list[LoadResult], slo_ms: float) -> Settings:
    return {
        "goodput_per_second": spread([result.goodput_per_second(slo_ms) for result in results]),
        "p99_ms": median(result.p99_ms or np.inf for result in results),
    }


def measured(
    folder: Path, settings: dict[str, BatchingParameters], rounds: int, clients: int, slo_ms: float
) -> Settings:
    """Each setting in each round, in turns."""
    keys = {f"s{number}": name for number, name in enumerate(settings)}
    load = Load(clients=clients, seconds=SECONDS, warmup_seconds=0.5)
    results: dict[str, list[LoadResult]] = {key: [] for key in keys}
    with trial_servers(folder, MODEL, {key: settings[name] for key, name in keys.items()}) as endpoints:
        bodies = request_bodies(next(iter(endpoints.values())), None)
        for number in range(rounds):
            for key in keys if number % 2 else reversed(keys):
                results[key].append(measure_load(endpoints[key], bodies, load))
    return {name: figures(results[key], slo_ms) for key, name in keys.items()}


def exhaustive(folder: Path, clients: int, slo_ms: float) -> Settings:
    started = time.monotonic()
    found: Settings = {}
    settings = grid()
    for begin in range(0, len(settings), SERVED_AT_ONCE):
        part = dict(itertools.islice(settings.items(), begin, begin + SERVED_AT_ONCE))
        found |= measured(folder, part, ROUNDS, clients, slo_ms)
        print(f"  grid: {len(found)} settings, {time.monotonic() - started:.0f} s", flush=True)
    return {"seconds": time.monotonic() - started, "settings": found}


def name_of(choice: BatchingParameters | None) -> str:
    if choice is None:
        return "no batching"
    return next(name for name, parameters in grid().items() if parameters == choice)


def compare(name: str) -> Settings:
    case = CASES[name]
    with tempfile.TemporaryDirectory(prefix="batching-") as folder:
        model = case.build()
        tfopt.export_serving(
            model, folder, name=MODEL, data=np.zeros((1, *model.input_shape[1:]), model.inputs[0].dtype)
        )
        report = tfopt.tune_batching(
            folder,
            clients=case.clients,
            slo_ms=case.slo_ms,
            max_batch_size=MAX_BATCH_SIZE,
            seconds=SECONDS,
            rounds=ROUNDS,
            write=False,
        )
        print(f"{name}:\n{report}", flush=True)
        chosen = name_of(report.choice)
        version = Path(folder, MODEL, "1")
        found = exhaustive(version, case.clients, case.slo_ms)
        order = sorted(found["settings"], key=lambda one: -found["settings"][one]["goodput_per_second"]["median"])
        again = {one: grid()[one] for one in dict.fromkeys([*order[:BEST], chosen, "no batching"])}
        final = measured(version, again, FINAL_ROUNDS, case.clients, case.slo_ms)
    speeds = {one: row["goodput_per_second"]["median"] for one, row in final.items()}
    share = speeds[chosen] / max(speeds[one] for one in order[:BEST])
    print(f"{name}: {chosen}, {share:.1%} of the grid's best, {report.seconds / found['seconds']:.1%} of its time")
    return {
        "clients": case.clients,
        "slo_ms": case.slo_ms,
        "chosen": chosen,
        "reason": report.reason,
        "search_seconds": report.seconds,
        "grid": found,
        "final": final,
        "best_of_grid": order[:BEST],
        "share_of_best": share,
        "share_of_time": report.seconds / found["seconds"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    results: Settings = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    for name in arguments.models:
        results.setdefault("models", {})[name] = compare(name)
        results["machine"] = this_machine().model_dump()
        with write_whole(arguments.results) as temporary:
            temporary.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
