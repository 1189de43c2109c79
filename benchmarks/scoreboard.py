"""tfopt beside what a user would take instead, on the same networks, data and epochs, in one run.

    python benchmarks/scoreboard.py [--sets NAME ...] [--tools NAME ...] [--seeds 3] [--data FOLDER]

For each data set and seed one float network is trained in Keras 3; every tool gets its weights, checked by its outputs,
and the same 256 calibration samples, training samples and epochs. One runner scores all files on the whole test set.
Everything computes on one thread, so that as many data sets as there are cores are measured beside each other. In the
end the files of each data set's first seed are timed in turns in one process, beside nothing else. tfmot, Sony's Model
Compression Toolkit (MCT, which needs Python 3.11 or older) and Neural Compressor get virtual environments of their own.
FOLDER holds fashion_mnist.npz, sign_digits_48.npz, fsdd_logmel.npz, adult.*.gz and banking77_*.csv.gz.

Each (data set, seed, tool, method) is written to benchmarks/results/scoreboard.json at once, so that an interrupted run
goes on where it was; --again measures what was asked for again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peers import PEER, peer_python
from scoreboard_process import Worker
from scoreboard_sets import SETS

from tfopt.artifact import write_whole
from tfopt.benchmark.machine import this_machine

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results" / "scoreboard.json"
Row = dict[str, Any]


@dataclass(frozen=True)
class Tool:
    """What is compared.

    Args:
        methods: in this order, as a later one may go on from an earlier one's weights.
        libraries: of tfopt's environment, whose versions count.
        packages: with versions, of an environment of its own, if it has one.
    """

    methods: tuple[str, ...]
    libraries: tuple[str, ...] = ()
    packages: dict[str, str] = field(default_factory=dict)

    @property
    def versions(self) -> dict[str, str]:
        return self.packages or {name: version(name) for name in self.libraries}


FLOAT = Tool(("train",), ("keras", "tensorflow"))
TOOLS = {
    "tfopt": Tool(("ptq", "qat", "pruned", "pruned_qat"), ("tfopt", "keras", "tensorflow", "ai-edge-quantizer")),
    "tfmot": Tool(("qat", "pruned", "pruned_qat"), packages=PEER),
    "converter": Tool(("float", "ptq"), ("keras", "tensorflow")),
    "ai_edge_quantizer": Tool(("ptq",), ("ai-edge-quantizer", "keras", "tensorflow")),
    # The newest whose TFLite target takes a network with Flatten: 2.4 to 2.6 raise "An OpQuantizationConfig can't
    # have both enable_activation_quantization and quantization_preserving enabled."
    "mct": Tool(("ptq", "qat"), packages={"tensorflow": "2.15.1", "model-compression-toolkit": "2.2.2"}),
    "neural_compressor": Tool(("ptq",), packages={"tensorflow": "2.19.1", "neural-compressor-tf": "3.10"}),
    "onnx_runtime": Tool(("ptq",), ("onnxruntime", "tf2onnx", "keras", "tensorflow")),
}


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


class Scoreboard:
    """The results file, and how what is missing in it is measured."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        path = arguments.out
        self.results: Row = json.loads(path.read_text()) if path.exists() else {"rows": {}, "latency": {}}
        self.began, self.seconds_before = time.perf_counter(), self.results.get("seconds", 0.0)
        self.workers: list[Worker] = []
        self.lock, self.stopped = threading.RLock(), False

    def measure(self) -> None:
        """All that was asked for."""
        names = self.arguments.sets
        with ThreadPoolExecutor(os.cpu_count()) as lanes:
            try:
                for lane in as_completed([lanes.submit(self.measure_set, name) for name in names]):
                    lane.result()
            except BaseException:
                self.stopped = True
                lanes.shutdown(wait=False, cancel_futures=True)
                for worker in self.workers:
                    worker.kill()
                raise
        for name in names:
            self.time_files(name)

    def write(self) -> None:
        """Everything that is known so far, in the order of the tables."""
        order, rows = list(SETS), self.results["rows"]

        def place(title: str) -> tuple[int, int]:
            name, seed, *_ = title.split("/")
            return order.index(name), int(seed)

        self.results["rows"] = {title: rows[title] for title in sorted(rows, key=place)}
        self.results |= {
            "seconds": self.seconds_before + time.perf_counter() - self.began,
            "sets": {name: self.settings(name) for name in SETS},
            "tools": {name: tool.versions for name, tool in TOOLS.items()},
            "machine": this_machine().model_dump(),
        }
        with write_whole(self.arguments.out) as temporary:
            temporary.write_text(json.dumps(self.results, indent=1) + "\n")

    def settings(self, name: str) -> Row:
        """A data set's, with fewer epochs and samples for a trial."""
        settings, samples = json.loads(json.dumps(SETS[name])), self.arguments.samples
        settings |= {"test_samples": samples, "train_samples": samples or settings["train_samples"]}
        for stage in ("train", "fine_tune", "prune"):
            settings[stage]["epochs"] = min(settings[stage]["epochs"], self.arguments.epochs or 1000)
        return settings

    def folder(self, name: str) -> Path:
        """Where the files of a data set are kept, for a run that goes on; those of a trial lie elsewhere."""
        settings = json.dumps(self.settings(name), sort_keys=True)
        return self.arguments.environments / "scoreboard" / f"{name}_{digest(settings.encode())}"

    def task(self, name: str, seed: int, method: str, **more: Any) -> Row:
        folder = self.folder(name) / str(seed)
        folder.mkdir(parents=True, exist_ok=True)
        return {
            "data": str(self.folder(name) / "data.npz"),
            "folder": str(folder),
            "seed": seed,
            "method": method,
            "settings": self.settings(name),
            **more,
        }

    def worker(self, name: str, tool: str) -> Worker:
        """A process for the tool, in its environment, which is made where there is none."""
        packages = TOOLS[tool].packages if tool in TOOLS else {}
        with self.lock:
            python = str(peer_python(self.arguments.environments, tool, packages)) if packages else sys.executable
        log = self.folder(name) / f"{tool}.log"
        worker = Worker(
            tool, python, log, own_environment=bool(packages), timeout_seconds=self.arguments.timeout, threads=1
        )
        self.workers.append(worker)
        return worker

    def key(self, name: str, seed: int, method: str, tool: Tool, float_key: str = "") -> str:
        what = [self.settings(name), seed, method, tool.versions, float_key]
        return digest(json.dumps(what, sort_keys=True).encode())

    def measure_set(self, name: str) -> None:
        """All that was asked for of one data set."""
        self.folder(name).mkdir(parents=True, exist_ok=True)
        with self.worker(name, "keras") as keras:
            float_keys = self.train_floats(name, keras)
        with self.worker(name, "files") as judge:
            for tool in self.arguments.tools:
                self.measure_tool(name, tool, float_keys, judge)

    def train_floats(self, name: str, keras: Worker) -> list[str]:
        """The networks that all tools start from, one a seed; returns what tells one from another."""
        found = []
        for seed in range(self.arguments.seeds):
            task, key, title = (
                self.task(name, seed, "train"),
                self.key(name, seed, "train", FLOAT),
                f"{name}/{seed}/keras",
            )
            weights = Path(task["folder"], "float.npz")
            row = self.results["rows"].get(f"{title}/train", {})
            if not (row.get("key") == key and weights.exists() and row["weights"] == digest(weights.read_bytes())):
                if not Path(task["data"]).exists():
                    from scoreboard_data import prepare

                    samples = {part: task["settings"][part] for part in ("train_samples", "test_samples")}
                    prepare(name, self.arguments.data, Path(task["data"]), **samples)
                started = time.perf_counter()
                row = keras.ask(task)
                if "failed" in row:
                    raise SystemExit(f"{title}: the float network {row['failed']}; see {keras.log}.")
                row |= {"key": key, "weights": digest(weights.read_bytes())}
                self.note(f"{title}/train", row, started)
            found.append(row["weights"])
        return found

    def measure_tool(self, name: str, tool: str, float_keys: list[str], judge: Worker) -> None:
        """The methods of one tool, each with all seeds."""
        missing = {}
        for seed, method in self.cases(TOOLS[tool]):
            task, title = self.task(name, seed, method), f"{name}/{seed}/{tool}/{method}"
            key = self.key(name, seed, method, TOOLS[tool], float_keys[seed])
            row = self.results["rows"].get(title, {})
            known = row.get("key") == key and ("failed" in row or Path(task["folder"], row["file"]).exists())
            if self.arguments.again or not known:
                missing[title] = task, key
        if not missing:
            return
        started = time.perf_counter()
        try:
            worker = self.worker(name, tool)
        except (subprocess.CalledProcessError, OSError) as error:
            packages = " ".join(f"{package}=={pin}" for package, pin in TOOLS[tool].packages.items())
            python = ".".join(map(str, sys.version_info[:2]))
            for title in missing:
                why = f"{packages} on Python {python}: {type(error).__name__}"
                self.note(title, {"not_installed": why}, started)
            return
        with worker:
            for title, (task, key) in missing.items():
                started = time.perf_counter()
                row = worker.ask(task)
                if "failed" not in row:
                    row |= judge.ask({**task, "method": "score", "files": [row["file"]]})
                self.note(title, {**row, "key": key}, started)

    def cases(self, tool: Tool) -> Iterator[tuple[int, str]]:
        return ((seed, method) for seed in range(self.arguments.seeds) for method in tool.methods)

    def time_files(self, name: str) -> None:
        """The files of the first seed, of every tool that has one."""
        task = self.task(name, 0, "time")
        files = {}
        for title, row in self.results["rows"].items():
            path = Path(task["folder"], row.get("file", "none"))
            if title.startswith(f"{name}/0/") and "accuracy" in row and path.exists():
                files[row["file"]] = [row["key"], round(row["export_seconds"], 3)]
        key = digest(json.dumps(files, sort_keys=True).encode())
        if files and self.results["latency"].get(name, {}).get("key") != key:
            started = time.perf_counter()
            with self.worker(name, "files") as judge:
                rows = judge.ask({**task, "files": list(files)})
            self.results["latency"][name] = {"key": key, "rows": rows, "seconds": time.perf_counter() - started}
            self.write()
            print(f"{name}: {rows}", flush=True)

    def note(self, title: str, row: Row, started: float) -> None:
        with self.lock:
            if self.stopped:  # and so the task was
                raise SystemExit("stopped")
            self.results["rows"][title] = {**row, "seconds": time.perf_counter() - started}
            self.write()
        shown = {name: value for name, value in row.items() if name not in ("key", "weights")}
        print(f"{title}: {shown}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("TFOPT_DATA") or ROOT.parents[1] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--samples", type=int, default=0, help="of training and test data, for a trial: 2000 or so")
    parser.add_argument("--epochs", type=int, default=0, help="at most, for a trial; 0: as many as planned")
    parser.add_argument("--again", action="store_true", help="measure again what the tools gave before")
    parser.add_argument("--timeout", type=float, default=600, help="seconds of a task")
    parser.add_argument("--environments", type=Path, default=ROOT / ".venvs", help="folder of the peers' environments")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    Scoreboard(arguments).measure()
    print(f"Wrote {arguments.out}; python benchmarks/render.py puts it into the documentation.")


if __name__ == "__main__":
    main()
