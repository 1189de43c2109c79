"""`tfopt.optimize` under one budget, beside plain post-training int8 and tfmot's pruning with QAT.

    python benchmarks/optimize.py [--sets NAME ...] [--budget TEXT] [--data FOLDER] [--environments FOLDER]

The data sets are those of benchmarks/scoreboard.py; the networks of the images and sounds are wider than there, as
what takes some microseconds has nothing to save. Fashion-MNIST's training data are the 20,000 samples of the
scoreboard, and the float network has twice its epochs. A tenth of the training data is kept for validation; the test
data is held back. tfmot's training has as many epochs, batches and samples, and the same float network. All files of a
data set are scored on the whole test data, and timed in turns on one thread. The recipe that was found is then run
again, and the bytes of both files are compared. FOLDER holds fashion_mnist.npz, sign_digits_48.npz, fsdd_logmel.npz,
adult.*.gz and banking77_*.csv.gz.

Writes benchmarks/results/optimize.json; data sets that were not asked for stay as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from compression_worker import fit, predict
from peers import PEER, peer_python
from scoreboard_data import CALIBRATION_SAMPLES, read
from scoreboard_process import Worker
from scoreboard_sets import SETS, build
from scoreboard_tflite import write_tflite
from worker_files import write_weights

import tfopt
from tfopt.artifact import write_whole
from tfopt.benchmark.machine import this_machine
from tfopt.optimization.held_back import held_back_drop

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results" / "optimize.json"
VALIDATION = 0.1
MAX_DROP = 0.01
TIMEOUT_SECONDS = 3600
FLOAT_EPOCHS = {"fashion_mnist": 8}
"""Of the float network; elsewhere those of the scoreboard."""
EPOCHS = {"fashion_mnist": 12, "sign_digits": 50, "spoken_digits": 40, "adult": 8, "banking77": 15}
"""Of the training after channels or weights were removed; QAT has half as many."""
NETWORKS = {"fashion_mnist": "wide_cnn", "sign_digits": "wide_separable_cnn", "spoken_digits": "ds_cnn"}
SETTINGS = {name: {**settings, "network": NETWORKS.get(name, settings["network"])} for name, settings in SETS.items()}
BATCH_SIZES = {name: settings["fine_tune"]["batch_size"] for name, settings in SETS.items()}
Row = dict[str, Any]
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Case:
    """A data set with its trained float network.

    Args:
        name: of the data set.
        data: x_train, y_train, x_validation, y_validation, x_test, y_test.
        model: the trained network.
        folder: for files.
    """

    name: str
    data: Arrays
    model: keras.Model
    folder: Path

    @classmethod
    def trained(cls, name: str, folder: Path, data_folder: Path, seed: int) -> Case:
        """Reads the data and trains the float network."""
        found, generator = read(name, data_folder), np.random.default_rng(seed)
        rows = generator.permutation(len(found["x_train"]))[: SETS[name]["train_samples"] or None]
        count = round(VALIDATION * len(rows))
        data = {
            f"{axis}_{part}": found[f"{axis}_train"][chosen]
            for axis in "xy"
            for part, chosen in (("train", rows[count:]), ("validation", rows[:count]))
        }
        data |= {"x_test": found["x_test"], "y_test": found["y_test"]}
        data |= {key: data[key].astype(np.int64) for key in data if key.startswith("y_")}
        keras.utils.set_random_seed(seed)
        model = build(keras, SETTINGS[name], data)
        train = SETS[name]["train"]
        fit(keras, model, data, {**train, "epochs": FLOAT_EPOCHS.get(name, train["epochs"]), "seed": seed}, [])
        return cls(name, data, model, folder)

    def part(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        return self.data[f"x_{name}"], self.data[f"y_{name}"]


def of_tfopt(case: Case, budget: str, seed: int) -> tuple[dict[str, Path], Row]:
    """One call, and what it tells."""
    out, started = case.folder / "optimized", time.perf_counter()
    result = tfopt.optimize(
        case.model,
        case.part("train"),
        case.part("validation"),
        test=case.part("test"),
        budget=budget,
        max_drop=MAX_DROP,
        out=out,
        epochs=EPOCHS[case.name],
        batch_size=BATCH_SIZES[case.name],
        learning_rate=SETTINGS[case.name]["train"]["learning_rate"],
        seed=seed,
    )
    print(result, flush=True)
    seconds = time.perf_counter() - started
    again = tfopt.optimize(
        case.model,
        case.part("train"),
        case.part("validation"),
        test=case.part("test"),
        recipe=result.recipe,
        max_drop=MAX_DROP,
        out=case.folder / "again",
    )
    files = {"float32": out / "candidates" / "float32.tflite", "tfopt.optimize": out / "model.tflite"}
    return files, {
        "seconds": seconds,
        "recipe_gives_same_bytes": result.artifact.sha256 == again.artifact.sha256,
        "chosen": result.chosen,
        "is_reached": result.is_reached,
        "explanation": [line.replace(str(case.folder), "") for line in result.explanation()],
        "recipe": result.recipe.to_dict(),
    }


def of_peers(case: Case, environments: Path, seed: int) -> tuple[dict[str, Path], Row]:
    """Plain post-training int8, and tfmot's pruning to 80 % zeros followed by QAT that keeps them."""
    files, seconds = {"converter, int8": case.folder / "converter.tflite"}, {}
    calibration = case.data["x_train"][:CALIBRATION_SAMPLES]
    started = time.perf_counter()
    write_tflite(case.model, files["converter, int8"], int8=True, calibration=calibration)
    seconds["converter, int8"] = time.perf_counter() - started
    write_weights(case.model, case.folder / "float.npz")
    np.save(case.folder / "float.npy", predict(case.model, case.data))
    with (case.folder / "data.npz").open("wb") as file:
        np.savez(file, **case.data, calibration=calibration)
    settings = json.loads(json.dumps(SETTINGS[case.name]))
    settings["prune"]["epochs"], settings["fine_tune"]["epochs"] = EPOCHS[case.name], max(EPOCHS[case.name] // 2, 1)
    task = {"data": str(case.folder / "data.npz"), "folder": str(case.folder), "seed": seed, "settings": settings}
    python, log = str(peer_python(environments, "tfmot", PEER)), case.folder / "tfmot.log"
    with Worker("tfmot", python, log, own_environment=True, timeout_seconds=TIMEOUT_SECONDS) as worker:
        started = time.perf_counter()
        for method in ("pruned", "pruned_qat"):
            answer = worker.ask({**task, "method": method})
            if "failed" in answer:
                return files, {"seconds": seconds, "failed": {"tfmot, pruned and QAT": answer["failed"]}}
        files["tfmot, pruned and QAT"] = case.folder / answer["file"]
        seconds["tfmot, pruned and QAT"] = time.perf_counter() - started
    return files, {"seconds": seconds}


def measured(case: Case, files: dict[str, Path]) -> dict[str, Row]:
    """Score, size and latency of every file, beside the float one's."""
    report = tfopt.benchmark(files, case.part("test"), threads=(1,), repeats=300, seconds=2.0, progress=False)
    first, rows = report.baseline, dict[str, Row]()
    right = {name: _is_right(path, case) for name, path in files.items()}
    for entry in report.entries:
        latency, whole = entry.latency_at(1), first.latency_at(1)
        assert latency
        assert whole
        row: Row = {
            "accuracy": entry.score,
            "size_share": entry.size_bytes / first.size_bytes,
            "gzip_share": entry.gzip_bytes / first.gzip_bytes,
            "p50_ms": latency.p50_ms,
            "latency_share": latency.p50_ms / whole.p50_ms,
            "size_bytes": entry.size_bytes,
        }
        if entry is not first:
            comparison = report.comparisons[entry.name]
            row["verdict"] = comparison.verdict
            pair = {"baseline": right[first.name], "candidate": right[entry.name]}
            drop = held_back_drop(lambda name, chosen, pair=pair: pair[name][chosen].mean(), len(right[first.name]))
            row |= {"drop": drop.drop, "drop_interval": [drop.low, drop.high]}
        rows[entry.name] = row
    return rows


def _is_right(path: Path, case: Case) -> np.ndarray:
    """Which test samples a file classifies rightly."""
    from tfopt.export.tflite_runtime import run_tflite

    (name,) = [tensor.name for tensor in case.model.inputs]
    x, y = case.part("test")
    (output,) = run_tflite(path, {name: x}).values()
    return np.asarray(output.argmax(-1) == y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("TFOPT_DATA") or ROOT.parents[1] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--budget", default="latency: 40%, size: 25%")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--environments", type=Path, default=ROOT / ".venvs", help="folder of the peers' environments")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    results: Row = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"sets": {}}
    for name in arguments.sets:
        with tempfile.TemporaryDirectory(prefix="optimize-") as folder:
            case = Case.trained(name, Path(folder), arguments.data, arguments.seed)
            files, told = of_tfopt(case, arguments.budget, arguments.seed)
            others, of_others = of_peers(case, arguments.environments, arguments.seed)
            rows = measured(case, {**files, **others})
        results["sets"][name] = {
            "title": SETS[name]["title"],
            "network": SETTINGS[name]["network"],
            "budget": arguments.budget,
            "max_drop": MAX_DROP,
            "epochs": EPOCHS[name],
            "tfopt": told,
            "peers": of_others,
            "rows": rows,
        }
        results["machine"] = this_machine().model_dump()
        with write_whole(arguments.out) as temporary:
            temporary.write_text(json.dumps(results, indent=1) + "\n")
        print(f"{name}: {json.dumps(rows, indent=1)}", flush=True)


if __name__ == "__main__":
    main()
