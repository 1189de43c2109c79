"""What early exits save on Fashion-MNIST: mean FLOPs, and the time that files really take.

    python benchmarks/early_exit.py [--data FOLDER] [--seeds 1] [--epochs 4]

For each seed the same residual network is trained twice with the same schedule and samples: alone, and with two exits.
Thresholds are chosen on a tenth of the training data that neither saw; all figures are of the test set. The accuracy
given up is judged against the better of the network alone and the last exit of the network with exits.

Latency: test samples are run one at a time through the staged .tflite and through that of the network alone, in
turns of 50 samples and in several passes; the mean over the samples is reported, of each sample's median. So for the
SavedModel, at batch sizes 1 and 64. FOLDER holds fashion_mnist.npz.

Writes benchmarks/results/early_exit.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import tfopt
from tfopt.benchmark.machine import this_machine
from tfopt.data import load_npz
from tfopt.early_exit import (
    EarlyExitRunner,
    ExitPolicy,
    choose_thresholds,
    exit_report,
    export_early_exit_saved_model,
    export_early_exit_tflite,
)
from tfopt.export.saved_model import write_saved_model
from tfopt.export.tflite_runtime import run_tflite
from tfopt.quantization.spec import ActivationGrid

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results" / "early_exit.json"
layers = keras.layers

EXITS = ["block_1", "block_2"]
SETTINGS: dict[str, Any] = {
    "stem": 16,
    "blocks": [[16, 1], [32, 2], [32, 1], [64, 2], [64, 1]],
    "exits": EXITS,
    "loss_weights": [0.5, 0.5, 1.0],
    "batch_size": 128,
    "peak_learning_rate": 2e-3,
    "max_drop": 0.002,  # on the validation data: less than the half point allowed, since a choice fits its samples
}
TURN = 50


def residual_network() -> keras.Model:
    def convolution(x: Any, filters: int, size: int, strides: int = 1) -> Any:
        x = layers.Conv2D(filters, size, strides=strides, padding="same", use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.9)(x)

    inputs = keras.Input((28, 28, 1), name="image")
    x = layers.ReLU()(convolution(inputs, SETTINGS["stem"], 3, 2))
    for number, (filters, strides) in enumerate(SETTINGS["blocks"], start=1):
        shortcut = x if strides == 1 else convolution(x, filters, 1, strides)
        y = layers.ReLU()(convolution(x, filters, 3, strides))
        x = layers.Add()([convolution(y, filters, 3), shortcut])
        x = layers.ReLU(name=f"block_{number}")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax", name="classes")(x))


def pooled_head(features: Any, name: str) -> Any:
    """Keeps where things are, as early features need: they are too simple for a mean over the image to tell classes."""
    x = layers.AveragePooling2D(max(features.shape[1] // 4, 1))(features)
    x = layers.Dense(64, activation="relu")(layers.Flatten()(x))
    return layers.Dense(10, activation="softmax", name=name)(x)


def train(model: keras.Model, x: np.ndarray, y: np.ndarray, epochs: int, **compiled: Any) -> float:
    """Returns the seconds it took."""
    steps = epochs * -(-len(x) // SETTINGS["batch_size"])
    rate = keras.optimizers.schedules.CosineDecay(SETTINGS["peak_learning_rate"], steps)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", **compiled)
    started = time.perf_counter()
    model.fit(x, y, batch_size=SETTINGS["batch_size"], epochs=epochs, verbose=0)
    return time.perf_counter() - started


Run = Callable[[np.ndarray], object]


def mean_latencies_ms(candidates: dict[str, Run], batches: list[np.ndarray], passes: int) -> dict[str, float]:
    """The mean over all batches of what a call takes, for each candidate: the median of the passes, in turns."""
    for run in candidates.values():
        for batch in batches[:20]:
            run(batch)
    spent = {name: np.zeros((passes, len(batches))) for name in candidates}
    for number in range(passes):
        for turn, start in enumerate(range(0, len(batches), TURN)):
            names = list(candidates) if (number + turn) % 2 else list(reversed(candidates))
            for name in names:
                run = candidates[name]
                run(batches[start])  # not counted: the caches hold the other file's weights
                for index in range(start, min(start + TURN, len(batches))):
                    begin = time.perf_counter()
                    run(batches[index])
                    spent[name][number, index] = time.perf_counter() - begin
    # The median of a batch's passes leaves out moments when the machine did something else.
    return {name: float(1000 * np.median(values, axis=0).mean()) for name, values in spent.items()}


def whole_file(path: Path) -> Run:
    """One call of a .tflite with one stage, in the same way as the staged runner's calls."""
    signature = Interpreter(str(path), num_threads=1).get_signature_runner()
    ((name, detail),) = signature.get_input_details().items()
    scale, zero_point = detail["quantization"]
    grid = ActivationGrid(scale, zero_point) if scale else None

    def run(sample: np.ndarray) -> object:
        return signature(**{name: sample if grid is None else grid.quantize(sample)})

    return run


def tflite_figures(
    kind: str, alone: keras.Model, network: keras.Model, policy: ExitPolicy, data: dict[str, np.ndarray], passes: int
) -> dict[str, Any]:
    x, y, calibration = data["x_test"], data["y_test"], data["calibration"]
    with tempfile.TemporaryDirectory() as folder:
        whole = tfopt.export_tflite(alone, f"{folder}/whole.tflite", kind, calibration=calibration)
        staged = export_early_exit_tflite(network, f"{folder}/staged.tflite", policy, kind, calibration=calibration)
        runner = EarlyExitRunner(staged.path)
        answers, exits = runner.predict(x)
        (whole_answers,) = run_tflite(whole.path, {whole.inputs[0].name: x}).values()
        timed = [x[row : row + 1] for row in range(1000)]
        latencies = mean_latencies_ms({"whole": whole_file(whole.path), "staged": runner.run}, timed, passes)
        return {
            "whole_accuracy": float(np.mean(whole_answers.argmax(-1) == y)),
            "staged_accuracy": float(np.mean(answers.argmax(-1) == y)),
            "exit_shares": [float(np.mean(exits == number)) for number in range(len(policy.exits))],
            "whole_bytes": whole.size_bytes,
            "staged_bytes": staged.size_bytes,
            "mean_latency_ms": latencies,
            "latency_fraction": latencies["staged"] / latencies["whole"],
            "stage_latency_ms": runner.stage_latency_ms(x),
        }


def saved_model_figures(
    alone: keras.Model, network: keras.Model, policy: ExitPolicy, data: dict[str, np.ndarray], passes: int
) -> dict[str, Any]:
    x = data["x_test"]
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        write_saved_model(alone, f"{folder}/whole", data=x[:8])
        export_early_exit_saved_model(network, f"{folder}/staged", policy, data=x[:64])
        loaded = {name: tf.saved_model.load(f"{folder}/{name}") for name in ("whole", "staged")}
        signatures = {name: one.signatures["serving_default"] for name, one in loaded.items()}
        runs: dict[str, Run] = {
            name: lambda batch, run=run: run(image=tf.constant(batch)) for name, run in signatures.items()
        }
        for size, samples in ((1, 500), (64, 3200)):
            batches = [x[start : start + size] for start in range(0, samples, size)]
            latencies = mean_latencies_ms(runs, batches, passes)
            figures[f"batch_{size}"] = {
                "mean_latency_ms": latencies,
                "latency_fraction": latencies["staged"] / latencies["whole"],
            }
    return figures


def one_seed(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    loaded = load_npz(arguments.data / "fashion_mnist.npz")
    x_train, x_test = (x.reshape(-1, 28, 28, 1) for x in (loaded.x_train, loaded.x_test))
    order = np.random.default_rng(seed).permutation(len(x_train))
    held_out, kept = np.split(order, [len(order) // 10])
    kept = kept[: arguments.samples or None]
    keras.utils.set_random_seed(seed)
    alone = residual_network()
    network = tfopt.early_exit(alone, EXITS, head=pooled_head)
    seconds_alone = train(alone, x_train[kept], loaded.y_train[kept], arguments.epochs)
    keras.utils.set_random_seed(seed)
    weights = SETTINGS["loss_weights"]
    seconds_joint = train(network, x_train[kept], loaded.y_train[kept], arguments.epochs, loss_weights=weights)
    policy = choose_thresholds(network, x_train[held_out], loaded.y_train[held_out], max_drop=SETTINGS["max_drop"])
    report = exit_report(network, x_test, loaded.y_test, policy)
    alone_accuracy = float(np.mean(alone.predict(x_test, verbose=0).argmax(-1) == loaded.y_test))
    print(f"seed {seed}: {alone_accuracy:.2%} alone ({seconds_alone:.0f} s), with exits ({seconds_joint:.0f} s):")
    print(report, flush=True)
    data = {"x_test": x_test, "y_test": loaded.y_test, "calibration": x_train[kept[:256]]}
    best = max(alone_accuracy, report.full_accuracy)
    return {
        "seed": seed,
        "alone_accuracy": alone_accuracy,
        "last_exit_accuracy": report.full_accuracy,
        "accuracy": report.accuracy,
        "drop_against_better": best - report.accuracy,
        "flops_fraction": report.flops_fraction,
        "exits": [asdict(row) for row in report.rows],
        "mean_flops": report.mean_flops,
        "full_flops": report.full_flops,
        "training_seconds": {"alone": seconds_alone, "with_exits": seconds_joint},
        "tflite": {
            kind: tflite_figures(kind, alone, network, policy, data, arguments.passes) for kind in ("none", "int8")
        },
        "saved_model": saved_model_figures(alone, network, policy, data, arguments.passes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("TFOPT_DATA") or ROOT.parents[1] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0 on")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--passes", type=int, default=7, help="over the samples that are timed")
    parser.add_argument("--samples", type=int, default=0, help="of the training data, for a trial; 0: all")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    runs = []
    for seed in range(arguments.seeds):
        runs.append(run := one_seed(arguments, seed))
        print(
            f"seed {seed}: {1 - run['flops_fraction']:.1%} fewer FLOPs, {100 * run['drop_against_better']:+.2f} points "
            "given up; latency × "
            + ", ".join(f"{figures['latency_fraction']:.2f} ({kind})" for kind, figures in run["tflite"].items())
            + "; SavedModel × "
            + ", ".join(f"{figures['latency_fraction']:.2f} ({key})" for key, figures in run["saved_model"].items()),
            flush=True,
        )
        results = {
            "settings": {**SETTINGS, "epochs": arguments.epochs},
            "machine": this_machine().model_dump(),
            "means": {
                "flops_saved": statistics.mean(1 - run["flops_fraction"] for run in runs),
                "drop_against_better": statistics.mean(run["drop_against_better"] for run in runs),
                "tflite_latency_fraction": statistics.mean(run["tflite"]["none"]["latency_fraction"] for run in runs),
                "int8_latency_fraction": statistics.mean(run["tflite"]["int8"]["latency_fraction"] for run in runs),
            },
            "runs": runs,
        }
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"Wrote {arguments.out}.")


if __name__ == "__main__":
    main()
