"""What pruning costs a training step: tfopt on Keras 3 and tfmot on tf_keras, each beside its bare `fit`.

`measure_overhead` is for benchmarks/compression.py. Every variant trains MobileNetV2 on noise in one `fit` of its own
process and stops after each block of steps until it is told to go on; so only one runs at a time, in turns, and what
else goes on in the machine meets all of them. A block is as long as the largest frequency: each has one mask update.

The processes import this module with the Python of their framework, so nothing of tfopt is imported at the top.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["measure_overhead"]

FOLDER = Path(__file__).resolve().parent
VARIANTS: dict[str, int | None] = {"bare": None, "frequency_100": 100, "frequency_1": 1}
FINAL_SPARSITY = 0.8
SETTINGS = {"side": 96, "batch_size": 32}
MARK = "seconds "


def measure_overhead(
    tfmot_python: str | Path | None, *, rounds: int = 5, block_steps: int = 100, warm_up_steps: int = 5
) -> dict[str, Any]:
    """Seconds of a training step, and how many bare steps it is worth, for each framework and frequency.

    Args:
        tfmot_python: the Python of tfmot's virtual environment; None measures tfopt alone.
        rounds: how many blocks of each variant.
        block_steps: training steps in a block.
        warm_up_steps: steps before the first block.
    """
    pythons = {"tfopt": sys.executable}
    if tfmot_python is not None:
        pythons["tfmot"] = str(tfmot_python)
    task = {**SETTINGS, "rounds": rounds, "block_steps": block_steps, "warm_up_steps": warm_up_steps}
    running = {
        (framework, variant): _start(python, framework, {**task, "frequency": frequency})
        for framework, python in pythons.items()
        for variant, frequency in VARIANTS.items()
    }
    try:
        for process in running.values():
            _seconds(process)
        blocks: dict[tuple[str, str], list[dict[str, float]]] = {key: [] for key in running}
        for number in range(rounds):
            for key in list(running) if number % 2 == 0 else reversed(running):
                process = running[key]
                assert process.stdin
                process.stdin.write("\n")
                process.stdin.flush()
                blocks[key].append({clock: seconds / block_steps for clock, seconds in _seconds(process).items()})
            print(f"pruning overhead, round {number + 1} of {rounds}", flush=True)
    finally:
        for process in running.values():
            process.kill()
    return {"settings": {**task, "final_sparsity": FINAL_SPARSITY}} | {
        framework: {variant: _row(blocks[framework, variant], blocks[framework, "bare"]) for variant in VARIANTS}
        for framework in pythons
    }


def train(framework: str, task: dict[str, Any]) -> None:
    """One variant, in a process of its own."""
    keras, callbacks, prunable = _tfopt(task) if framework == "tfopt" else _tfmot(task)
    keras.utils.set_random_seed(0)
    side, batch_size = task["side"], task["batch_size"]
    model = prunable(
        keras.applications.MobileNetV2(
            input_shape=(side, side, 3), weights=None, classes=10, classifier_activation=None
        )
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-4), loss=loss)
    import tensorflow as tf

    x = np.random.default_rng(0).random((batch_size, side, side, 3), np.float32)
    data = tf.data.Dataset.from_tensors((x, np.arange(batch_size) % 10)).cache().repeat()

    class InBlocks(keras.callbacks.Callback):
        """Tells the seconds of a block, and waits for a line of input before the next."""

        started = (0.0, 0.0)

        def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
            done = batch - task["warm_up_steps"]
            if done >= 0 and done % task["block_steps"] == 0:
                wall, cpu = (now - then for now, then in zip(_clocks(), self.started, strict=True))
                print(MARK + json.dumps({"wall": wall, "cpu": cpu}), flush=True)
                sys.stdin.readline()
                self.started = _clocks()

    model.fit(data, steps_per_epoch=_steps(task), epochs=1, verbose=0, callbacks=[InBlocks(), *callbacks])


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _steps(task: dict[str, Any]) -> int:
    return task["warm_up_steps"] + task["rounds"] * task["block_steps"] + 1


def _tfopt(task: dict[str, Any]) -> tuple[Any, list[Any], Any]:
    import keras

    from tfopt.callbacks import MagnitudePruning

    frequency = task["frequency"]
    prune = [] if frequency is None else [MagnitudePruning(FINAL_SPARSITY, end_step=_steps(task), frequency=frequency)]
    return keras, prune, lambda model: model


def _tfmot(task: dict[str, Any]) -> tuple[Any, list[Any], Any]:
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow_model_optimization as tfmot
    import tf_keras

    if task["frequency"] is None:
        return tf_keras, [], lambda model: model
    sparsity = tfmot.sparsity.keras
    schedule = sparsity.PolynomialDecay(0.0, FINAL_SPARSITY, 0, _steps(task), frequency=task["frequency"])
    return (
        tf_keras,
        [sparsity.UpdatePruningStep()],
        lambda model: sparsity.prune_low_magnitude(model, pruning_schedule=schedule),
    )


def _start(python: str, framework: str, task: dict[str, Any]) -> subprocess.Popen[str]:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if framework != "tfopt":
        environment.pop("PYTHONPATH", None)
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); import compression_overhead; "
        "compression_overhead.train(sys.argv[2], json.loads(sys.argv[3]))"
    )
    return subprocess.Popen(
        [python, "-c", code, str(FOLDER), framework, json.dumps(task)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _seconds(process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdout
    for line in process.stdout:
        if line.startswith(MARK):
            return json.loads(line.removeprefix(MARK))
    raise SystemExit(f"a worker ended with {process.wait()} in the midst of the timing")


def _row(blocks: list[dict[str, float]], bare: list[dict[str, float]]) -> dict[str, Any]:
    """Wall time, and CPU time, which tells more where the machine has other work."""
    found: dict[str, Any] = {"blocks": blocks}
    for clock in ("wall", "cpu"):
        ratios = [block[clock] / other[clock] for block, other in zip(blocks, bare, strict=True)]
        found[clock] = {
            "step_seconds": statistics.median(block[clock] for block in blocks),
            "bare_steps": {"median": statistics.median(ratios), "smallest": min(ratios), "largest": max(ratios)},
        }
    return found
