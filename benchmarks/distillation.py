"""Distillation: the student alone, Keras's Distiller and tfopt's, on images and on text.

    python benchmarks/distillation.py [--data FOLDER] [--parts accuracy timing] [--seeds 3]

Same student, initial weights, order of the samples, epochs, batch size, optimizer and teacher. Accuracies are those of
the student on the whole test set; nothing was chosen on it but the settings below, which all methods share. Of
Fashion-MNIST the first 10,000 training images are taken, so that all seeds and methods are done in an hour. FOLDER
holds fashion_mnist.npz and banking77_train.csv.gz, banking77_test.csv.gz.

Writes benchmarks/results/distillation.json; the parts that were not asked for stay as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tfopt.artifact import write_whole
from tfopt.benchmark.machine import this_machine

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results" / "distillation.json"
WORKER = ROOT / "distillation_worker.py"
METHODS = ("alone", "keras", "keras_divergence", "keras_feature", "tfopt_logits", "tfopt_decoupled", "tfopt_feature")

Settings = dict[str, Any]
SETTINGS: dict[str, dict[str, Settings]] = {
    "fashion_mnist": {
        "data": {"samples": 10_000},
        "teacher": {"epochs": 15, "batch_size": 64, "learning_rate": 2e-3},
        "student": {"epochs": 20, "batch_size": 64, "learning_rate": 4e-3},
    },
    "banking77": {
        "data": {"samples": None},
        "teacher": {"epochs": 30, "batch_size": 64, "learning_rate": 2e-3},
        "student": {"epochs": 30, "batch_size": 64, "learning_rate": 4e-3},
    },
}


def run(task: Settings) -> Settings:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(WORKER), json.dumps(task)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the worker failed at {task}:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def accuracy(name: str, common: Settings, arguments: argparse.Namespace) -> Settings:
    rows: Settings = {}
    for method in METHODS:
        found = []
        for seed in range(arguments.seeds):
            # One cache for each method: the seeds share its answers.
            cache = str(Path(common["teacher"]).with_suffix(f".{method}")) if method.startswith("tfopt") else None
            task = {"do": "student", "method": method, "seed": seed, "cache": cache}
            found.append(run({**common, **task, **SETTINGS[name]["student"]}))
            print(f"accuracy, {name}, {method}, seed {seed}: {found[-1]['accuracy']:.4f}", flush=True)
        values = [item["accuracy"] for item in found]
        rows[method] = {"parameters": found[0]["parameters"], "accuracies": values, "mean": statistics.mean(values)}
    return rows


def timing(name: str, common: Settings, arguments: argparse.Namespace) -> Settings:
    cache = str(Path(common["teacher"]).with_suffix(".timing"))
    task = {"do": "time", "cache": cache, "rounds": arguments.rounds}
    seconds = run({**common, **task, **SETTINGS[name]["student"]})
    for method, values in seconds.items():
        print(f"timing, {name}, {method}: {values['median']:.2f} s an epoch", flush=True)
    return seconds


PARTS = {"accuracy": accuracy, "timing": timing}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parents[1] / "shared" / "data")
    parser.add_argument("--datasets", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    results: Settings = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    for name in arguments.datasets:
        with tempfile.TemporaryDirectory() as folder:
            common = {"data": name, "folder": str(arguments.data), "teacher": str(Path(folder, "teacher.keras"))}
            common |= SETTINGS[name]["data"]
            found = results.setdefault(name, {})
            found["settings"] = SETTINGS[name]
            found["teacher"] = run({**common, "do": "teacher", **SETTINGS[name]["teacher"]})
            print(f"{name}, teacher: {found['teacher']}", flush=True)
            for part in arguments.parts:
                found[part] = PARTS[part](name, common, arguments)
                results["machine"] = this_machine().model_dump()
                with write_whole(arguments.results) as temporary:
                    temporary.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
