"""Whole networks of keras.applications: quantize-aware, one train step, int8 export, agreement with Keras.

    python benchmarks/networks.py [NAME ...] [--side 96] [--data DIRECTORY --train-minutes 3]

Without data the weights are random and the images noise, so this shows what converts; in an untrained network a value
that rounds to the other side at an early layer moves more and more values from layer to layer. With data (the
directory that holds sign_digits_48.npz) each network is trained first, and compared on the test images.
Each network runs in a process of its own; one that fails is a row that says so. Writes
benchmarks/results/networks.json, or networks_trained.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
NETWORKS = {
    "MobileNet": 1,
    "MobileNetV2": 1,
    "MobileNetV3Small": 255,
    "MobileNetV3Large": 255,
    "EfficientNetB0": 255,
    "EfficientNetV2B0": 255,
    "ResNet50": 1,
    "ResNet50V2": 1,
    "DenseNet121": 1,
    "NASNetMobile": 1,
    "InceptionV3": 1,
    "Xception": 1,
    "VGG16": 1,
    "ConvNeXtTiny": 255,
}
"""The networks, with the largest value of the pixels they take."""


def measure(name: str, side: int, data: Path | None, train_minutes: float) -> dict[str, Any]:
    """Quantizes, trains one step, exports and compares one network."""
    import keras
    import numpy as np

    import tfopt
    from tfopt.export.tflite_runtime import run_tflite

    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(input_shape=(side, side, 3), weights=None, classes=10)
    result: dict[str, Any] = {}
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    if data is None:
        x = test = np.random.default_rng(0).random((64, side, side, 3), np.float32) * NETWORKS[name]
        y = y_test = np.arange(64) % 10
        for layer in norms:  # those that never saw data would scale the signal away before it reaches the end
            layer.momentum = 0.0
        model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
        model.train_on_batch(x[:32], y[:32])
    else:
        digits = np.load(data / "sign_digits_48.npz")
        x, test = (
            np.asarray(keras.ops.image.resize(digits[f"x_{part}"] / np.float32(255 / NETWORKS[name]), (side, side)))
            for part in ("train", "test")
        )
        y, y_test = digits["y_train"], digits["y_test"]
        for layer in norms:  # a few hundred steps are to be enough for the statistics
            layer.momentum = 0.9
        model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
        started, epochs = time.perf_counter(), 0
        while time.perf_counter() - started < 60 * train_minutes:
            model.fit(x, y, batch_size=32, verbose=0)
            epochs += 1
        result = {"epochs": epochs, "accuracy": round(model.evaluate(test, y_test, verbose=0)[1], 4)}

    found = tfopt.quantization.coverage(model)
    result |= {
        "parameters": model.count_params(),
        "layers": len(found.rows),
        "in_float": sorted({f"{row.kind}: {row.remark}" for row in found.in_float}),
    }
    started = time.perf_counter()
    aware = tfopt.quantize_aware(model, calibration=x)
    result["quantize_seconds"] = round(time.perf_counter() - started, 1)
    if found.in_float:
        return {**result, "status": "layers without an int8 rule"}
    aware.compile(keras.optimizers.SGD(1e-3), "sparse_categorical_crossentropy")
    aware.train_on_batch(x[:32], y[:32])
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        artifact = tfopt.export_tflite(aware, Path(folder, "int8.tflite"), calibration=x)
        result["export_seconds"] = round(time.perf_counter() - started, 1)
        (name_in,), (output,) = [spec.name for spec in artifact.inputs], artifact.outputs
        received = run_tflite(artifact.path, {name_in: test})[output.name]
    expected = aware.predict(test, verbose=0)
    steps = np.abs(np.round((received - expected) / output.scale)).astype(int)
    return {
        **result,
        "status": "int8",
        "size_bytes": artifact.size_bytes,
        "int8_accuracy": round(float(np.mean(received.argmax(-1) == y_test)), 4) if data else None,
        "full_integer": artifact.verification["full_integer"],
        "top1_agreement": float(np.mean(received.argmax(-1) == expected.argmax(-1))),
        "sqnr_db": artifact.verification["sqnr_db"],
        "lsb_distribution": {str(step): round(float(np.mean(steps == step)), 4) for step in np.unique(steps)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", default=[])
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--data", type=Path, metavar="DIRECTORY")
    parser.add_argument("--train-minutes", type=float, default=3.0)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.side, arguments.data, arguments.train_minutes)))
        return
    path = ROOT / "results" / ("networks_trained.json" if arguments.data else "networks.json")
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in arguments.names or NETWORKS:
        command = [sys.executable, __file__, "--one", name]
        command += ["--side", str(arguments.side), "--train-minutes", str(arguments.train_minutes)]
        command += ["--data", str(arguments.data)] if arguments.data else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        last = done.stderr.strip().splitlines()[-1:] or [""]
        results[name] = json.loads(lines[-1]) if lines else {"status": "failed", "error": last[0][:400]}
        print(name, results[name], flush=True)
        path.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")


if __name__ == "__main__":
    main()
