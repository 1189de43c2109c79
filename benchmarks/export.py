"""Every export of nine models: a verified file or a clear refusal, beside the plain converter and `model.export`.

    python benchmarks/export.py [--models CNN LSTM ...] [--data FOLDER] [--train-minutes 1]

Each model is trained briefly in a process of its own and exported with every preset of `tfopt.export_tflite` (int8 by
the better engine), for the Edge TPU, for an Ethos-U and to ONNX; then every file is read back and audited once more.
Figures are of test data, on one thread; the .tflite files of a model are timed in turns, and so are its .onnx files.
FOLDER holds fashion_mnist.npz, sign_digits_48.npz, fsdd_logmel.npz, banking77_*.csv.gz and adult.*.gz.

Writes benchmarks/results/export.json; the models that were not asked for stay as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from export_files import PLAIN, Samples, plain_row, scores, timed_call

from tfopt.artifact import Artifact, write_whole
from tfopt.benchmark.machine import this_machine
from tfopt.benchmark.protocol import measure
from tfopt.errors import TfoptError
from tfopt.export.audit import audit
from tfopt.export.onnx_audit import audit_onnx
from tfopt.export.onnx_file import read_onnx
from tfopt.export.presets import PRESETS
from tfopt.export.tflite_file import read_tflite

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results" / "export.json"
NAMES = (
    "CNN",
    "MobileNetV2",
    "MobileNetV3Small",
    "EfficientNetB0",
    "Transformer",
    "LSTM",
    "GRU",
    "Conv1D",
    "Multi-I/O",
)
ONNX = ("none", "float16", "int8")
EDGE_TPU = "edge_tpu"
ETHOS_U = "ethos_u"
CALIBRATION_SAMPLES = 256
Row = dict[str, Any]


def exports(model: Any, folder: Path, calibration: Any) -> dict[str, Callable[[], Artifact]]:
    """What is tried, by the name of its row."""
    import tfopt

    def tflite(preset: str) -> Artifact:
        engine = "best" if preset == "int8" else "converter"
        return tfopt.export_tflite(model, folder / f"{preset}.tflite", preset, calibration=calibration, engine=engine)

    def onnx(quantization: str) -> Artifact:
        path = folder / f"onnx_{quantization}.onnx"
        return tfopt.export_onnx(model, path, quantization, calibration=calibration)

    edge_tpu = folder / f"{EDGE_TPU}.tflite"
    return {
        **{preset: partial(tflite, preset) for preset in PRESETS},
        EDGE_TPU: partial(tfopt.export_edge_tpu, model, edge_tpu, calibration=calibration),
        **{f"onnx_{quantization}": partial(onnx, quantization) for quantization in ONNX},
    }


def export_row(export: Callable[[], Artifact], samples: Samples) -> tuple[Row, Path | None]:
    """A file with its figures, or the reason why there is none; anything but an error of tfopt's is a failure of it."""
    started = time.perf_counter()
    try:
        artifact = export()
    except TfoptError as error:
        return {"refused": str(error), "error": type(error).__name__}, None
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}, None
    row: Row = {"export_seconds": round(time.perf_counter() - started, 1), **scores(artifact.path, samples)}
    kept = ("full_integer", "engine", "engines_sqnr_db", "float_operators", "edge_tpu", "opset")
    return row | {name: artifact.verification[name] for name in kept if name in artifact.verification}, artifact.path


def check_again(name: str, path: Path) -> None:
    """Reads a file as a stranger would: it is what its record says, passes the audit, and is integer if it should be.

    Raises:
        TfoptError: if it is not.
    """
    artifact = Artifact.load(path)
    if artifact.kind == "onnx":
        audit_onnx(path, read_onnx(path), name.removeprefix("onnx_"))
        return
    quantization, file = "int8" if name == EDGE_TPU else name, read_tflite(path)
    floats = audit(file, artifact.layers, quantization, allow_float=False)
    assert not (PRESETS[quantization].is_integer and floats), f"{path} computes in float: {floats}"
    assert file.is_full_integer or not PRESETS[quantization].integer_tensors, f"{path} is not full-integer"


def time_rows(rows: dict[str, Row], paths: dict[str, Path], samples: Samples, repeats: int) -> None:
    """The files of one format in turns; that for the Edge TPU is not meant for a CPU."""
    for suffix in (".tflite", ".onnx"):
        chosen = {name: path for name, path in paths.items() if path.suffix == suffix and name != EDGE_TPU}
        calls = {name: timed_call(path, samples) for name, path in chosen.items()}
        for name, timing in measure(calls, repeats=repeats).items():
            rows[name] |= {"latency_ms": timing.p50_ms, "latency_settled": timing.settled}


def measure_model(name: str, arguments: argparse.Namespace) -> Row:
    """Trains, exports, compares and times one model."""
    import keras
    from export_ethos_u import ethos_u_row
    from export_models import MODELS, train

    from tfopt.data import check_samples

    keras.utils.set_random_seed(0)
    case = MODELS[name](arguments.data, arguments.side)
    model, started = case.model, time.perf_counter()
    epochs = train(case, arguments.train_minutes)
    found: Row = {"data": case.data, "parameters": model.count_params(), "epochs": epochs}
    found["train_seconds"] = round(time.perf_counter() - started)
    x, y = case.first_test_samples(arguments.test_samples)
    several = len(x) > 1
    answers = model.predict(x if several else x[0], verbose=0)
    calibration = check_samples(case.x_train if several else case.x_train[0], model.inputs, limit=CALIBRATION_SAMPLES)
    samples = Samples(x, y, answers if several else [answers], calibration)
    correct = [float((answer.argmax(-1) == wanted).mean()) for answer, wanted in zip(samples.answers, y, strict=True)]
    found |= {"test_samples": len(y[0]), "accuracy": correct}
    tell(f"{name}: {found}")
    rows: dict[str, Row] = {}
    paths: dict[str, Path] = {}
    with tempfile.TemporaryDirectory(prefix="tfopt-export-benchmark-") as temporary:
        folder = Path(temporary)
        for key, export in exports(model, folder, calibration if several else calibration[0]).items():
            rows[key], path = export_row(export, samples)
            paths |= {key: path} if path else {}
            tell(f"{name}, {key}: {rows[key]}")
        for key, path in paths.items():
            check_again(key, path)
        rows[ETHOS_U] = {"refused": "there is no int8 file", "error": "ExportError"}
        if "int8" in paths:
            rows[ETHOS_U] = ethos_u_row(model, paths["int8"], calibration if several else calibration[0])
        tell(f"{name}, {ETHOS_U}: {rows[ETHOS_U]}")
        found["audited_files"] = len(paths)
        model.save(folder / "model.keras")
        samples.save(folder / "samples.npz")
        for way in PLAIN:
            path = folder / f"plain_{way}.tflite"
            rows[way] = plain_row(way, folder / "model.keras", folder / "samples.npz", path, arguments.timeout)
            paths |= {way: path} if rows[way].get("runs") else {}
            tell(f"{name}, {way}: {rows[way]}")
        time_rows(rows, paths, samples, arguments.repeats)
    return {**found, "seconds": round(time.perf_counter() - started), "rows": rows}


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("TFOPT_DATA") or ROOT.parents[1] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--models", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--train-minutes", type=float, default=1.0, help="for each model; whole epochs, at least one")
    parser.add_argument("--side", type=int, default=96, help="of the images of the three large networks")
    parser.add_argument("--test-samples", type=int, default=1000, help="at most, for accuracy and agreement")
    parser.add_argument("--repeats", type=int, default=100, help="timed calls of each file")
    parser.add_argument("--timeout", type=float, default=900, help="seconds of a plain conversion")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one", choices=NAMES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure_model(arguments.one, arguments)))
        return
    results: Row = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"models": {}}
    failures = []
    for name in arguments.models:
        command = [sys.executable, __file__, *sys.argv[1:], "--one", name]  # the last --one counts
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            failures.append(f"{name} (code {done.returncode})")
            continue
        results["models"][name] = json.loads(done.stdout.splitlines()[-1])
        failures += [f"{name}, {key}" for key, row in results["models"][name]["rows"].items() if "failed" in row]
        results["models"] = {name: results["models"][name] for name in NAMES if name in results["models"]}
        results["machine"] = this_machine().model_dump()
        with write_whole(arguments.out) as temporary:
            temporary.write_text(json.dumps(results, indent=1) + "\n")
    print(f"Wrote {arguments.out}; python benchmarks/render.py puts it into the documentation.")
    if failures:
        raise SystemExit(f"Failed without a clear refusal: {'; '.join(failures)}.")


if __name__ == "__main__":
    main()
