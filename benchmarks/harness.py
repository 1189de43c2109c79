"""Whether `tfopt.benchmark` can be trusted: against a bare loop, against itself, and on files that are the same.

    python benchmarks/harness.py [--models digits mobilenet] [--pairs 10] [--runs 11] [--identical 20]

For each model, as float32 .tflite:

- bare loop: the p50 of the harness beside that of a loop over the interpreter's `invoke`, in pairs, either first in
  turn. The median of the ratios is to be within 3 % of 1.
- repeated runs: float32 beside int8, again and again; each run beside the one before it. They agree where their
  intervals overlap, and are to in 9 of 10; of the p50 of float32, and of how much faster int8 is.
- identical files: two copies of one file. A verdict of "faster" or "slower" is a false alarm; one in 20 runs at most.

Run it on a machine that does nothing else. Writes benchmarks/results/harness.json; the models that were not asked for
stay as they are.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter

import tfopt
from tfopt.artifact import write_whole
from tfopt.benchmark.machine import this_machine
from tfopt.demo import load_data, small_cnn

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results" / "harness.json"
WITHIN = 0.03
AGREEING = 0.9
FALSE_ALARMS = 0.05
Row = dict[str, Any]


def digits() -> tuple[keras.Model, np.ndarray]:
    """The demo's network, some microseconds an inference."""
    data = load_data("digits")
    model = small_cnn(data.x_train.shape[1:], 10)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(data.x_train, data.y_train, epochs=2, verbose=0)
    return model, data.x_train[:200]


def mobilenet() -> tuple[keras.Model, np.ndarray]:
    """A network of phones, around a millisecond an inference; what its weights are changes no time."""
    model = keras.applications.MobileNetV2((96, 96, 3), alpha=0.5, weights=None, classes=10)
    return model, np.random.default_rng(0).uniform(-1, 1, (64, 96, 96, 3)).astype(np.float32)


MODELS = {"digits": digits, "mobilenet": mobilenet}


def bare_loop_ms(path: Path, sample: np.ndarray, seconds: float) -> float:
    """The median of `invoke`, as anybody would time it."""
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], sample)
    for _ in range(50):
        interpreter.invoke()
    durations, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter_ns()
        interpreter.invoke()
        durations.append(time.perf_counter_ns() - begin)
    return statistics.median(durations) / 1e6


def against_bare_loop(path: Path, sample: np.ndarray, pairs: int, seconds: float) -> Row:
    rows = []
    for number in range(pairs):
        if number % 2:
            bare = bare_loop_ms(path, sample, seconds)
        report = tfopt.benchmark(path, (sample, None), threads=(1,), seconds=seconds, progress=False)
        if not number % 2:
            bare = bare_loop_ms(path, sample, seconds)
        rows.append({"harness_ms": report.entries[0].latencies[0].p50_ms, "bare_ms": bare})
    ratios = [row["harness_ms"] / row["bare_ms"] for row in rows]
    ratio = statistics.median(ratios)
    return {"pairs": rows, "ratios": ratios, "median_ratio": ratio, "passed": abs(ratio - 1) <= WITHIN}


def overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def repeated_runs(float32: Path, int8: Path, runs: int, seconds: float) -> Row:
    rows = []
    for _ in range(runs):
        report = tfopt.benchmark([float32, int8], threads=(1,), seconds=seconds, progress=False)
        latency, speedup = report.entries[0].latencies[0], report.comparisons["int8"].first
        assert speedup is not None
        rows.append(
            {
                "p50_ms": latency.p50_ms,
                "p50_interval_ms": (latency.p50_low_ms, latency.p50_high_ms),
                "speedup": speedup.value,
                "speedup_interval": (speedup.low, speedup.high),
                "verdict": speedup.verdict,
                "load_average": report.machine.load_average,
            }
        )
    agree = {
        figure: statistics.mean(overlap(before[figure], after[figure]) for before, after in pairwise(rows))
        for figure in ("p50_interval_ms", "speedup_interval")
    }
    return {"runs": rows, "agree": agree, "passed": min(agree.values()) >= AGREEING}


def identical_files(path: Path, runs: int, seconds: float, threads: tuple[int, ...]) -> Row:
    copy = path.with_name("copy.tflite")
    shutil.copyfile(path, copy)
    rows = []
    for _ in range(runs):
        report = tfopt.benchmark([path, copy], threads=threads, seconds=seconds, progress=False)
        rows.append(
            [
                {
                    "threads": one.threads,
                    "ratio": one.value,
                    "interval": (one.low, one.high),
                    "verdict": one.verdict,
                }
                for one in report.comparisons["copy"].speedups
            ]
        )
    alarms = sum(any(one["verdict"] in ("faster", "slower") for one in row) for row in rows)
    noisy = sum(any(one["verdict"] == "too noisy to tell" for one in row) for row in rows)
    return {"runs": rows, "false_alarms": alarms, "too_noisy": noisy, "passed": alarms <= FALSE_ALARMS * runs}


def check(name: str, arguments: argparse.Namespace) -> Row:
    model, samples = MODELS[name]()
    with tempfile.TemporaryDirectory() as folder:
        float32, int8 = Path(folder, "float32.tflite"), Path(folder, "int8.tflite")
        tfopt.export_tflite(model, float32, "none", calibration=samples)
        tfopt.export_tflite(model, int8, "int8", calibration=samples)
        return {
            "bare_loop": against_bare_loop(float32, samples[:1], arguments.pairs, arguments.seconds),
            "repeated_runs": repeated_runs(float32, int8, arguments.runs, arguments.seconds),
            "identical_files": identical_files(
                float32, arguments.identical, arguments.seconds, tuple(arguments.threads)
            ),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--runs", type=int, default=11, help="each is held against the one before it")
    parser.add_argument("--identical", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each file and thread count in a run")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of the identical files")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"models": {}}
    for name in arguments.models:
        found = check(name, arguments)
        results["models"][name] = found
        results["machine"] = this_machine().model_dump()
        results["settings"] = {"seconds": arguments.seconds, "threads": arguments.threads}
        with write_whole(arguments.out) as temporary:
            temporary.write_text(json.dumps(results, indent=1) + "\n")
        agree, identical = found["repeated_runs"]["agree"], found["identical_files"]
        print(
            f"{name}: harness / bare loop {found['bare_loop']['median_ratio']:.3f}; repeated runs agree in "
            f"{agree['p50_interval_ms']:.0%} (p50) and {agree['speedup_interval']:.0%} (ratio); identical files: "
            f"{identical['false_alarms']} false alarms, {identical['too_noisy']} too noisy, of "
            f"{len(identical['runs'])} runs. Passed: {all(part['passed'] for part in found.values())}.",
            flush=True,
        )
    print(f"Wrote {arguments.out}.")


if __name__ == "__main__":
    main()
