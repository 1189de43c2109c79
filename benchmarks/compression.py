"""What compression costs and saves: pruning beside tfmot, channel removal, sparse files, Deep Compression.

    python benchmarks/compression.py [--data FOLDER] [--parts PART ...] [--seeds 3]

tfmot, on tf_keras, gets a virtual environment of its own, and the same initial weights, batches, schedule and
optimizer. FOLDER holds fashion_mnist.npz and sign_digits_48.npz; the parts are overhead, equality, accuracy,
allocations, channels, sparse and deep. Each writes benchmarks/results/compression_PART.json.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from compression_channels import measure_channel_pruning
from compression_coding import deep_compression
from compression_overhead import measure_overhead
from compression_sparse import measure_sparse_inference
from peers import PEER, Workers

from tfopt.benchmark.machine import this_machine
from tfopt.data import load_npz

ROOT = Path(__file__).resolve().parent

Settings = dict[str, Any]
TFMOT_WAYS = [{"sparsity": level, "allocation": "per_layer"} for level in (0.5, 0.8, 0.9)]
TFOPT_WAYS = [*TFMOT_WAYS, *({"sparsity": 0.9, "allocation": how} for how in ("global", "erk"))]
ALLOCATION_SEEDS = 5
ACCURACY: dict[str, Settings] = {
    "fashion_mnist": {
        "file": "fashion_mnist.npz",
        "network": "plain_cnn",
        "train": {"epochs": 3, "batch_size": 128, "learning_rate": 2e-3},
        "prune": {"epochs": 4, "batch_size": 128, "learning_rate": 2e-3, "ramp": 0.5, "frequency": 20},
    },
    "sign_digits": {
        "file": "sign_digits_48.npz",
        "network": "separable_cnn",
        "train": {"epochs": 30, "batch_size": 32, "learning_rate": 5e-3},
        "prune": {"epochs": 30, "batch_size": 32, "learning_rate": 2e-3, "ramp": 0.5, "frequency": 20},
    },
}
EQUALITY: dict[str, Settings] = {
    title: {
        "file": ACCURACY[title]["file"],
        "network": ACCURACY[title]["network"],
        "samples": 1600,
        "way": {"sparsity": level, "allocation": "per_layer"},
        "epochs": 4,
        "batch_size": 32,
        "learning_rate": 2e-3,
        "ramp": 0.5,
        "frequency": 10,
    }
    for title, level in (("fashion_mnist", 0.9), ("sign_digits", 0.8))
}
CHANNELS: dict[str, Settings] = {
    "ResNet-style": {
        "file": "sign_digits_48.npz",
        "network": "residual_cnn",
        "train": {"epochs": 15, "batch_size": 32, "learning_rate": 3e-3},
        "fine_tune": {"epochs": 10, "batch_size": 32, "learning_rate": 1e-3},
        "target": "flops: 50%",
        "importance": "l1",
        "multiple_of": 16,
    },
    "MobileNet-style": {
        "file": "sign_digits_48.npz",
        "network": "wide_separable_cnn",
        "train": {"epochs": 30, "batch_size": 32, "learning_rate": 5e-3},
        "fine_tune": {"epochs": 20, "batch_size": 32, "learning_rate": 2e-3},
        "target": "flops: 50%",
        "importance": "l1",
        "multiple_of": 16,
    },
}


def overhead(workers: Workers, arguments: argparse.Namespace) -> Settings:
    """Training steps beside bare ones."""
    return measure_overhead(workers.pythons["tfmot"], rounds=arguments.rounds)


def equality(workers: Workers, arguments: argparse.Namespace) -> Settings:
    """The weights that tfopt and tfmot end with, after the same training."""
    found: Settings = {}
    for title, settings in EQUALITY.items():
        with tempfile.TemporaryDirectory(prefix="tfopt-compression-") as out:
            task = {**settings, "data": str(arguments.data / settings["file"]), "out": out, "seed": 0, "do": "equal"}
            counts = workers.run("tfopt", task)
            workers.run("tfmot", task)
            with np.load(Path(out, "tfopt.npz")) as ours, np.load(Path(out, "tfmot.npz")) as theirs:
                differences = [float(np.abs(ours[name] - theirs[name]).max()) for name in theirs.files]
        found[title] = {"settings": settings, **counts, "largest_difference": max(differences)}
        print(f"equality, {title}: {counts}, the largest difference is {max(differences)}", flush=True)
    return found


def accuracies(workers: Workers, arguments: argparse.Namespace, title: str, ways: Settings, *, seeds: int) -> Settings:
    """What each framework ends with in each of its ways, always from the same trained network of a seed."""
    settings, runs = ACCURACY[title], []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory(prefix="tfopt-compression-") as out:
            data = str(arguments.data / settings["file"])
            common = {"network": settings["network"], "data": data, "seed": seed, "out": out}
            run = {"seed": seed, "dense": workers.run("tfopt", {"do": "train", **common, **settings["train"]})}
            for framework, its_ways in ways.items():
                task = {"do": "prune", "ways": its_ways, **common, **settings["prune"]}
                run[framework] = workers.run(framework, task)["rows"]
                shown = ", ".join(
                    f"{row['sparsity']:.0%} {row['allocation']} {row['accuracy']:.2%}" for row in run[framework]
                )
                print(f"{title}, seed {seed}, {framework}: {shown}", flush=True)
        runs.append(run)
    return {"settings": settings, "runs": runs}


def accuracy(workers: Workers, arguments: argparse.Namespace) -> Settings:
    """Three levels of sparsity beside tfmot; at the highest in each allocation."""
    ways = {"tfmot": TFMOT_WAYS, "tfopt": TFOPT_WAYS}
    return {title: accuracies(workers, arguments, title, ways, seeds=arguments.seeds) for title in ACCURACY}


def allocations(workers: Workers, arguments: argparse.Namespace) -> Settings:
    """The allocations where 90 % of zeros cost little, and at so many that they cost something."""
    ways = {
        "tfopt": [
            {"sparsity": level, "allocation": how} for level in (0.9, 0.97) for how in ("per_layer", "global", "erk")
        ]
    }
    return {"sign_digits": accuracies(workers, arguments, "sign_digits", ways, seeds=ALLOCATION_SEEDS)}


def channels(_: Workers, arguments: argparse.Namespace) -> Settings:
    """Half the FLOPs of two networks."""
    found: Settings = {}
    for title, settings in CHANNELS.items():
        runs = []
        for seed in range(arguments.seeds):
            runs.append(measure_channel_pruning(arguments.data / settings["file"], settings, seed=seed))
            latency, change = runs[-1]["latency_ratio"], runs[-1]["accuracy_change"]
            print(f"{title}, seed {seed}: latency {latency}, accuracy {change}", flush=True)
        found[title] = {"settings": settings, "runs": runs}
    return found


def sparse(_: Workers, arguments: argparse.Namespace) -> Settings:
    """Files that leave out the zeros."""
    return measure_sparse_inference(arguments.data / "fashion_mnist.npz")


def deep(_: Workers, arguments: argparse.Namespace) -> Settings:
    """Pruned, clustered and coded."""
    data = load_npz(arguments.data / "fashion_mnist.npz")
    runs = []
    for seed in range(arguments.seeds):
        runs.append(deep_compression(data, seed=seed))
        print(f"deep compression, seed {seed}: {runs[-1]['times_smaller']:.1f}× smaller", flush=True)
    return {"runs": runs}


PARTS = {
    "overhead": overhead,
    "equality": equality,
    "accuracy": accuracy,
    "allocations": allocations,
    "channels": channels,
    "sparse": sparse,
    "deep": deep,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("TFOPT_DATA") or ROOT.parents[1] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--rounds", type=int, default=5, help="of the overhead: blocks of 100 steps")
    parser.add_argument("--environments", type=Path, default=ROOT / ".venvs", help="folder of tfmot's environment")
    arguments = parser.parse_args()
    workers = Workers("compression_worker.py", arguments.environments)
    for name in arguments.parts:
        results = {"machine": this_machine().model_dump(), "peer": PEER, "found": PARTS[name](workers, arguments)}
        path = ROOT / "results" / f"compression_{name}.json"
        path.write_text(json.dumps(results, indent=1) + "\n")
        print(f"Wrote {path}; python benchmarks/render.py puts it into the documentation.", flush=True)


if __name__ == "__main__":
    main()
