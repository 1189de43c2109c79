"""Quantization-aware training: tfopt on Keras 3 beside tfmot on tf_keras, in one run, and post-training int8.

    python benchmarks/quantization.py [--data FOLDER] [--parts PART ...] [--seeds 3]

Same architectures, initial weights, data in the same order, epochs, batch size and optimizer; tfmot as its
documentation shows it. Every accuracy is that of the .tflite on the whole test set, by one runner. tfmot gets a virtual
environment of its own. FOLDER holds fashion_mnist.npz and sign_digits_48.npz; the
parts are timing, memory, accuracy, depthwise and hard_case.

Writes benchmarks/results/quantization.json; the parts that were not asked for stay as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from peers import PEER, Workers

from tfopt.benchmark.machine import this_machine
from tfopt.export.tflite_file import read_tflite
from tfopt.export.tflite_runtime import run_tflite
from tfopt.export.verify import compare

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results" / "quantization.json"
MOBILENET = {"side": 96, "batch_size": 32}
FILES = ("float", "post_training", "tfmot", "tfopt")

Settings = dict[str, Any]
ACCURACY: dict[str, Settings] = {
    "fashion_mnist": {
        "file": "fashion_mnist.npz",
        "network": "plain_cnn",
        "train": {"epochs": 3, "samples": 0, "batch_size": 128, "learning_rate": 2e-3},
        "fine_tune": {"epochs": 1, "samples": 20_000, "batch_size": 64, "learning_rate": 2e-4},
        "rescale": None,
    },
    "sign_digits": {
        "file": "sign_digits_48.npz",
        "network": "separable_cnn",
        "train": {"epochs": 30, "samples": 0, "batch_size": 32, "learning_rate": 5e-3},
        "fine_tune": {"epochs": 4, "samples": 0, "batch_size": 32, "learning_rate": 1e-4},
        "rescale": None,
    },
}
HARD_CASE: Settings = {
    "file": "fashion_mnist.npz",
    "network": "separable_cnn",
    "train": {"epochs": 3, "samples": 0, "batch_size": 128, "learning_rate": 2e-3},
    "fine_tune": {"epochs": 2, "samples": 0, "batch_size": 64, "learning_rate": 1e-3},
    "rescale": {"what": "channels", "width": 12},
}
DEPTHWISE: Settings = {**ACCURACY["sign_digits"], "rescale": {"what": "depthwise_kernels", "width": 32}}


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "smallest": min(values), "largest": max(values)}


def timing(workers: Workers, arguments: argparse.Namespace) -> Settings:
    """Blocks of steps: float, quantize-aware, float again; one framework after the other, in turns."""
    task = {"do": "time", "steps": arguments.steps, **MOBILENET}
    running = {name: workers.start(name, task) for name in workers.pythons}

    def answer(process: subprocess.Popen[str]) -> Settings:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"a worker ended with {process.wait()} in the midst of the timing")

    def block(framework: str, model: str) -> dict[str, float]:
        process = running[framework]
        assert process.stdin
        process.stdin.write(f"{model}\n")
        process.stdin.flush()
        return answer(process)

    for process in running.values():
        answer(process)
    blocks: dict[str, list[tuple[dict[str, float], ...]]] = {name: [] for name in running}
    for number in range(arguments.rounds):
        for name in list(running) if number % 2 == 0 else reversed(running):
            blocks[name].append(tuple(block(name, model) for model in ("float", "aware", "float")))
            first, aware, second = (seconds["wall"] for seconds in blocks[name][-1])
            print(f"timing, round {number + 1}, {name}: {2 * aware / (first + second):.2f} float steps", flush=True)
    for process in running.values():
        process.communicate(timeout=60)
    frameworks: Settings = {}
    for name, rounds in blocks.items():
        frameworks[name] = {}
        for clock in ("wall", "cpu"):  # other programs disturb the wall clock; the CPU's counts this one's threads only
            seconds = [[block[clock] for block in blocks] for blocks in rounds]
            frameworks[name][clock] = {
                "float_seconds": spread([time for first, _, second in seconds for time in (first, second)]),
                "aware_seconds": spread([aware for _, aware, _ in seconds]),
                "aware_over_float": spread([2 * aware / (first + second) for first, aware, second in seconds]),
                "float_over_float": spread([second / first for first, _, second in seconds]),
            }
    return {**MOBILENET, "rounds": arguments.rounds, "steps": arguments.steps, "frameworks": frameworks}


def memory(workers: Workers, arguments: argparse.Namespace) -> Settings:
    """Peaks of fresh processes, each of which trains one model."""
    found: Settings = {**MOBILENET, "steps": arguments.steps, "repeats": arguments.repeats, "frameworks": {}}
    for framework in workers.pythons:
        rows = found["frameworks"][framework] = {}
        for model in ("float", "aware"):
            task = {"do": "memory", "model": model, "steps": arguments.steps, **MOBILENET}
            runs = [workers.run(framework, task) for _ in range(arguments.repeats)]
            rows[model] = {name: spread([run[name] for run in runs]) for name in ("peak_bytes", "imported_bytes")}
            print(f"memory, {framework}, {model}: {rows[model]['peak_bytes']['median'] / 2**20:.0f} MiB", flush=True)
    return found


def depthwise_levels(path: Path) -> Settings | None:
    """How many of the int8 values the weights of each depthwise channel use; a 3×3 channel has nine weights."""
    kernels = [op.inputs[1].values() for op in read_tflite(path).operators if op.name == "DEPTHWISE_CONV_2D"]
    counts = [len(np.unique(kernel[..., channel])) for kernel in kernels for channel in range(kernel.shape[-1])]
    if not counts:
        return None
    return {
        "channels": len(counts),
        "smallest": min(counts),
        "median": statistics.median(counts),
        "with_one_level": sum(count == 1 for count in counts),
    }


def evaluate(folder: Path, name: str, x: np.ndarray, y: np.ndarray) -> Settings:
    """Accuracy of a file on the test set, and how far it is from what its framework computed there."""
    path = folder / f"{name}.tflite"
    file = read_tflite(path)
    (input_name, _), (output_name, output) = *file.inputs.items(), *file.outputs.items()
    received = run_tflite(path, {input_name: x})[output_name]
    # The float model is what post-training int8 is to compute.
    expected = np.load(folder / f"{'float' if name == 'post_training' else name}.npy")
    scale = output.scales[0] if output.scales else None
    agreement = compare([expected], [received], scales=[scale])
    found: Settings = {
        "accuracy": float(np.mean(received.argmax(-1) == y)),
        "framework_accuracy": float(np.mean(expected.argmax(-1) == y)),
        "size_bytes": path.stat().st_size,
        "top1_agreement": agreement.top1_agreement,
        "max_lsb": agreement.max_lsb,
    }
    if scale:
        steps = np.abs(received - expected) / scale
        found |= {"mean_lsb": float(steps.mean()), "within_one_lsb": float(np.mean(steps <= 1.001))}
        found["depthwise_levels"] = depthwise_levels(path)
    return found


def accuracy_run(
    workers: Workers, arguments: argparse.Namespace, settings: Settings, seed: int, title: str
) -> Settings:
    """Trains one float network, quantizes it in three ways, and evaluates the four files."""
    path = arguments.data / settings["file"]
    with np.load(path) as file:
        x, y = file["x_test"].astype(np.float32) / 255, file["y_test"]
    x = x if x.ndim == 4 else x[..., np.newaxis]
    with tempfile.TemporaryDirectory(prefix="tfopt-quantization-") as name:
        folder = Path(name)
        common = {"network": settings["network"], "data": str(path), "seed": seed, "out": name}
        trained = arguments.trained / f"{settings['file']}_{settings['network']}_{seed}.npz"
        task = {"do": "train", "trained": str(trained), "rescale": settings["rescale"], **common}
        workers.run("tfopt", {**task, **settings["train"]})
        found: Settings = {"seed": seed}
        for framework in ("tfmot", "tfopt"):
            task = {"do": "fine_tune", **common, **settings["fine_tune"]}
            found[f"{framework}_train_seconds"] = workers.run(framework, task)["train_seconds"]
        found |= {file: evaluate(folder, file, x, y) for file in FILES}
    accuracies = ", ".join(f"{name} {found[name]['accuracy']:.2%}" for name in FILES)
    print(f"{title}, seed {seed}: {accuracies}", flush=True)
    return found


def accuracy_runs(workers: Workers, arguments: argparse.Namespace, settings: Settings, title: str) -> Settings:
    seeds = range(arguments.seeds)
    return {"settings": settings, "runs": [accuracy_run(workers, arguments, settings, seed, title) for seed in seeds]}


def accuracy(workers: Workers, arguments: argparse.Namespace) -> Settings:
    """Two ordinary networks."""
    return {title: accuracy_runs(workers, arguments, settings, title) for title, settings in ACCURACY.items()}


def depthwise(workers: Workers, arguments: argparse.Namespace) -> Settings:
    """A network whose depthwise kernels have channels of widely different size."""
    return accuracy_runs(workers, arguments, DEPTHWISE, "depthwise")


def hard_case(workers: Workers, arguments: argparse.Namespace) -> Settings:
    """A network whose activations have channels of widely different size, so that post-training int8 loses."""
    return accuracy_runs(workers, arguments, HARD_CASE, "hard case")


PARTS = {"timing": timing, "memory": memory, "accuracy": accuracy, "depthwise": depthwise, "hard_case": hard_case}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("TFOPT_DATA") or ROOT.parents[1] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--rounds", type=int, default=8, help="of the timing")
    parser.add_argument("--steps", type=int, default=10, help="of a block of the timing, and of the memory's training")
    parser.add_argument("--repeats", type=int, default=2, help="processes per figure of the memory")
    parser.add_argument("--environments", type=Path, default=ROOT / ".venvs", help="folder of tfmot's environment")
    arguments = parser.parse_args()
    workers = Workers("quantization_worker.py", arguments.environments)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory(prefix="tfopt-quantization-") as folder:
        arguments.trained = Path(folder)  # a float model serves every part that starts from it
        for name in arguments.parts:
            results[name] = PARTS[name](workers, arguments)
            results |= {"machine": this_machine().model_dump(), "peer": PEER}
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(f"Wrote {RESULTS}; python benchmarks/render.py puts it into the documentation.")


if __name__ == "__main__":
    main()
