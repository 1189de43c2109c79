"""What a search for a batch size takes and finds, beside an exhaustive sweep of the same sizes.

    python benchmarks/batch_size.py [--data FOLDER] [--rounds 5] [--samples 10000]

The network is the small CNN of `tfopt demo` on Fashion-MNIST (FOLDER holds fashion_mnist.npz). The sweep is `fit`
on the samples, one epoch for each size from 8 to 512; the throughput of a size is that of its epoch without the first
steps, which trace the graph. Search and sweep take turns, since a machine is not equally fast all the time; the
throughput of a size is the median of its epochs in all rounds, the sizes of each in another order. `same_protocol`
times every size once, as the search does in each of its turns.

Writes benchmarks/results/batch_size.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfopt
from tfopt.benchmark.machine import this_machine
from tfopt.data import load_npz
from tfopt.demo import small_cnn
from tfopt.profiling.training_trial import left_as_it_was, time_steps, training_arrays
from tfopt.training_batches import endless_batches, epoch_batches

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results" / "batch_size.json"
SIZES = (8, 16, 32, 64, 128, 256, 512)
UNCOUNTED_STEPS = 3
SEARCH_SECONDS = 0.5
Values = dict[str, Any]


class EpochClock(keras.callbacks.Callback):
    """When the steps that do not count had ended, and when the last had."""

    def on_train_batch_end(self, batch: int, logs: Values | None = None) -> None:
        if batch + 1 == UNCOUNTED_STEPS:
            self.began = time.perf_counter()
        self.ended, self.steps = time.perf_counter(), batch + 1


def build() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = small_cnn((28, 28, 1), classes=10)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def sweep(x: np.ndarray, y: np.ndarray, sizes: Sequence[int]) -> Values:
    """One epoch at each size, in this order."""
    model, throughputs, started = build(), {}, time.perf_counter()
    for size in sizes:
        clock = EpochClock()
        model.fit(epoch_batches((x, y), size), shuffle=False, verbose=0, callbacks=[clock])
        throughputs[size] = (clock.steps - UNCOUNTED_STEPS) * size / (clock.ended - clock.began)
        print(f"sweep, {size}: {throughputs[size]:,.0f} samples/s", flush=True)
    return {"seconds": time.perf_counter() - started, "samples_per_second": dict(sorted(throughputs.items()))}


def same_protocol(x: np.ndarray, y: np.ndarray) -> Values:
    """Every size timed once, as the search does it in a turn."""
    model, throughputs, started = build(), {}, time.perf_counter()
    arrays = training_arrays((x, y), model, limit=8 * max(SIZES))
    with left_as_it_was(model):
        for size in SIZES:
            durations = time_steps(model, endless_batches(arrays, size), seconds=SEARCH_SECONDS)
            throughputs[size] = size / float(np.median(durations))
    return {"seconds": time.perf_counter() - started, "samples_per_second": throughputs}


def search(x: np.ndarray, y: np.ndarray) -> Values:
    model = build()
    started = time.perf_counter()
    report = tfopt.find_batch_size(model, (x, y), min_size=min(SIZES), max_size=max(SIZES), seconds=SEARCH_SECONDS)
    seconds = time.perf_counter() - started
    print(report, flush=True)
    return {
        "batch_size": report.batch_size,
        "seconds": seconds,
        "reason": report.reason,
        "tried": {trial.batch_size: trial.samples_per_second for trial in report.trials},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data_folder = os.environ.get("TFOPT_DATA") or ROOT.parents[1] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data_folder)
    parser.add_argument("--rounds", type=int, default=5, help="of a search and a sweep")
    parser.add_argument("--samples", type=int, default=10_000, help="of the training data, in a sweep's epoch")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    data = load_npz(arguments.data / "fashion_mnist.npz")
    x, y = data.x_train[: arguments.samples, ..., np.newaxis], data.y_train[: arguments.samples]
    generator = np.random.default_rng(0)
    searches, sweeps, short = [], [], []
    for _ in range(arguments.rounds):
        searches.append(search(x, y))
        sweeps.append(sweep(x, y, generator.permutation(SIZES).tolist()))
        short.append(same_protocol(x, y))
    throughputs = {size: statistics.median(one["samples_per_second"][size] for one in sweeps) for size in SIZES}
    sweep_seconds = statistics.median(one["seconds"] for one in sweeps)
    short_seconds = statistics.median(one["seconds"] for one in short)
    for found in searches:
        found["throughput_of_best"] = throughputs[found["batch_size"]] / max(throughputs.values())
        found["seconds_of_sweep"] = found["seconds"] / sweep_seconds
        found["seconds_of_same_protocol"] = found["seconds"] / short_seconds
    medians = {
        key: statistics.median(found[key] for found in searches)
        for key in ("throughput_of_best", "seconds_of_sweep", "seconds_of_same_protocol")
    }
    worst = min(found["throughput_of_best"] for found in searches)
    print(", ".join(f"{size}: {value:,.0f} samples/s" for size, value in throughputs.items()))
    print(", ".join(f"{key} {value:.1%}" for key, value in medians.items()) + f"; worst throughput {worst:.1%}")
    result = {
        "machine": this_machine().model_dump(),
        "samples": len(x),
        "samples_per_second": throughputs,
        "medians": medians,
        "worst_throughput_of_best": worst,
        "searches": searches,
        "sweeps": sweeps,
        "same_protocol": short,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"Wrote {arguments.out}.")


if __name__ == "__main__":
    main()
