"""Bayesian against random search for a compression, `tfopt.tuning.compress`, each with the same time.

    taskset -c 0 python benchmarks/compression_search.py [--sets NAME ...] [--seeds 1] [--trials 20] [--data FOLDER]

The data sets and float networks are those of benchmarks/scoreboard.py, trained on all training data but what validates;
the trials have a part of it, so that each takes seconds. Both searches have the same space (channels, zeros and bits of
three groups of layers, temperature, learning rate), budget, seed and number of trials. "random" is keras-tuner's
RandomSearch with the same trials. The best of each within the budget is that of the trials that had ended when the
shorter of both was done, by CPU time, which other programs do not change; on one core, as above, that is about the time
that passes. It is chosen on validation data, and its score on the test data stands beside.

Writes benchmarks/results/compression_search.json; data sets that were not asked for stay as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from compression_worker import accuracy, fit
from scoreboard_data import read
from scoreboard_sets import SETS, build

import tfopt
from tfopt.artifact import write_whole
from tfopt.benchmark.machine import this_machine
from tfopt.tuning.tuning import Search

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results" / "compression_search.json"
BUDGET = "download: 10%"
SEARCHES: tuple[Search, ...] = ("random", "bayesian")
TRIAL_SAMPLES, VALIDATION_SAMPLES = 4000, 1000
EPOCHS = {"fashion_mnist": 6, "sign_digits": 6, "spoken_digits": 4, "adult": 8, "banking77": 5}
GROUPS = 3
Row = dict[str, Any]
Arrays = dict[str, np.ndarray]


class TrialClock(keras.callbacks.Callback):
    """Notes when each training ended, in CPU seconds; in a file, since keras-tuner copies callbacks."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def on_train_end(self, logs: Any = None) -> None:
        """As Keras calls it."""
        with self.path.open("a") as file:
            file.write(f"{time.process_time()}\n")


def split(name: str, folder: Path, seed: int) -> Arrays:
    """The training data to train with, a part of it to choose with, and all test data."""
    found = read(name, folder)
    rows = np.random.default_rng(seed).permutation(len(found["x_train"]))
    validation = min(VALIDATION_SAMPLES, len(rows) // 5)
    parts = {"validation": rows[:validation], "train": rows[validation:]}
    data = {f"{axis}_{part}": found[f"{axis}_train"][chosen] for part, chosen in parts.items() for axis in "xy"}
    data |= {f"{axis}_test": found[f"{axis}_test"] for axis in "xy"}
    return data | {key: data[key].astype(np.int64) for key in data if key.startswith("y_")}


def groups_of(model: keras.Model) -> dict[str, str]:
    """The layers with kernels, and embeddings, in the order of the network, in parts of about as many."""
    names = [
        layer.name for layer in model.layers if hasattr(layer, "kernel") or isinstance(layer, keras.layers.Embedding)
    ]
    parts = [part for part in np.array_split(names, GROUPS) if len(part)]
    return {f"part{number}": "|".join(map(re.escape, part)) for number, part in enumerate(parts, start=1)}


def searched(search: Search, model: keras.Model, data: Arrays, name: str, trials: int, seed: int) -> Row:
    """One search: what each trial came to, and when it ended."""
    with tempfile.TemporaryDirectory(prefix="compression-search-") as folder:
        clock, started = Path(folder, "ends.txt"), time.process_time()
        result = tfopt.tuning.compress(
            model,
            (data["x_train"][:TRIAL_SAMPLES], data["y_train"][:TRIAL_SAMPLES]),
            (data["x_validation"], data["y_validation"]),
            budget=BUDGET,
            groups=groups_of(model),
            search=search,
            trials=trials,
            epochs=EPOCHS[name],
            batch_size=SETS[name]["fine_tune"]["batch_size"],
            folder=Path(folder, "trials"),
            callbacks=[TrialClock(clock)],
            seed=seed,
        )
        print(result, flush=True)
        ends = [float(line) - started for line in clock.read_text().split()]
        assert len(ends) == len(result.rows), (len(ends), len(result.rows))
        rows = [
            {
                "number": row.number,
                "cpu_seconds": ends[row.number - 1],
                "score": row.score,
                "budget_used": row.budget_used,
                "test_accuracy": accuracy(result.model_of(row), data) if row.is_within_budget else None,
            }
            for row in sorted(result.rows, key=lambda row: row.number)
        ]
    return {"rows": rows, "original_score": result.original_score}


def best_within(rows: list[Row], seconds: float) -> Row | None:
    """The best trial within the budget of those that had ended by then."""
    done = [row for row in rows if row["cpu_seconds"] <= seconds and row["test_accuracy"] is not None]
    return max(done, key=lambda row: row["score"], default=None)


def one_run(name: str, data_folder: Path, trials: int, seed: int) -> Row:
    """Both searches on a float network of its own."""
    data = split(name, data_folder, seed)
    keras.utils.set_random_seed(seed)
    model = build(keras, SETS[name], data)
    fit(keras, model, data, {**SETS[name]["train"], "seed": seed}, [])
    found = {search: searched(search, model, data, name, trials, seed) for search in SEARCHES}
    seconds = min(found[search]["rows"][-1]["cpu_seconds"] for search in SEARCHES)
    return {
        "seed": seed,
        "test_accuracy": accuracy(model, data),
        "cpu_seconds": seconds,
        "best": {search: best_within(found[search]["rows"], seconds) for search in SEARCHES},
        "searches": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("TFOPT_DATA") or ROOT.parents[1] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0 on")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    settings = {
        "budget": BUDGET,
        "epochs": EPOCHS,
        "trials": arguments.trials,
        "trial_samples": TRIAL_SAMPLES,
        "validation_samples": VALIDATION_SAMPLES,
    }
    for name in arguments.sets:
        runs = [one_run(name, arguments.data, arguments.trials, seed) for seed in range(arguments.seeds)]
        # Read now, since other processes may have other data sets.
        results: Row = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"sets": {}}
        results["sets"][name] = {"title": SETS[name]["title"], "runs": runs}
        results |= {"settings": settings, "machine": this_machine().model_dump()}
        with write_whole(arguments.out) as temporary:
            temporary.write_text(json.dumps(results, indent=1) + "\n")
        print(name, [run["best"] for run in runs], flush=True)
    print(f"Wrote {arguments.out}; python benchmarks/render.py puts it into the documentation.")


if __name__ == "__main__":
    main()
