"""One framework's part of benchmarks/quantization.py: the same steps in the environment of tfopt and in tfmot's.

    python benchmarks/quantization_worker.py tfopt|tfmot TASK

TASK is JSON: {"do": "train" | "fine_tune" | "time" | "memory", ...}. The answer is the last line of the output.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from quantization_rescalings import RESCALINGS
from small_networks import NETWORKS
from worker_files import check_equal, load_data, read_weights, write_weights

STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Framework:
    """A Keras, and quantization-aware training on it; both as their documentations show them."""

    keras: Any
    quantize_aware: Callable[[Any, np.ndarray], Any]
    export_int8: Callable[[Any, str], object]


def tfopt_framework() -> Framework:
    import keras

    import tfopt

    return Framework(
        keras,
        lambda model, x: tfopt.quantize_aware(model, calibration=x),
        lambda model, path: tfopt.export_tflite(model, path, verify=False),
    )


def tfmot_framework() -> Framework:
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras

    def export_int8(model: Any, path: str) -> None:
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        Path(path).write_bytes(converter.convert())

    return Framework(tf_keras, lambda model, _: tfmot.quantization.keras.quantize_model(model), export_int8)


FRAMEWORKS = {"tfopt": tfopt_framework, "tfmot": tfmot_framework}


def build(framework: Framework, network: str, data: dict[str, np.ndarray]) -> Any:
    return NETWORKS[network](framework.keras, data["x_train"].shape[1:], int(data["y_train"].max()) + 1)


def fit(framework: Framework, model: Any, data: dict[str, np.ndarray], task: dict[str, Any]) -> float:
    """Trains with Adam and a cosine to 0; the order of the samples depends on the seed only. Returns seconds."""
    keras, samples, batch_size = framework.keras, task["samples"] or len(data["x_train"]), task["batch_size"]
    steps = task["epochs"] * -(-samples // batch_size)
    rate = keras.optimizers.schedules.CosineDecay(task["learning_rate"], steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss)
    generator = np.random.default_rng(task["seed"])
    started = time.perf_counter()
    for _ in range(task["epochs"]):
        order = generator.permutation(len(data["x_train"]))[:samples]
        model.fit(data["x_train"][order], data["y_train"][order], batch_size=batch_size, shuffle=False, verbose=0)
    return time.perf_counter() - started


def rescale(model: Any, *, what: str, width: float, seed: int) -> None:
    """Applies one of RESCALINGS with factors drawn log-uniformly from [1/width, width]."""
    generator, end = np.random.default_rng(seed), np.log(width)
    RESCALINGS[what](model, lambda count: np.exp(generator.uniform(-end, end, count)).astype(np.float32))


def train(framework: Framework, task: dict[str, Any]) -> dict[str, Any]:
    """Trains the float model, or takes what was trained before; writes weights, outputs, float and int8 files."""
    import tfopt

    data = load_data(task["data"])
    framework.keras.utils.set_random_seed(task["seed"])
    model = build(framework, task["network"], data)
    trained = Path(task["trained"])
    if trained.exists():
        read_weights(model, trained)
    else:
        fit(framework, model, data, task)
        write_weights(model, trained)
    outputs = model.predict(data["x_test"], batch_size=256, verbose=0)
    if task["rescale"]:
        rescale(model, **task["rescale"], seed=task["seed"])
        rescaled = model.predict(data["x_test"], batch_size=256, verbose=0)
        check_equal(rescaled, outputs, f"the network after {task['rescale']}")
        outputs = rescaled
    out = Path(task["out"])
    write_weights(model, out / "float.npz")
    np.save(out / "float.npy", outputs)
    tfopt.export_tflite(model, out / "float.tflite", "none", verify=False)
    tfopt.export_tflite(model, out / "post_training.tflite", calibration=data["x_train"], verify=False)
    return {}


def fine_tune(framework: Framework, task: dict[str, Any]) -> dict[str, Any]:
    """Quantization-aware training from the float model's weights; writes the int8 file and Keras's outputs."""
    data, out = load_data(task["data"]), Path(task["out"])
    framework.keras.utils.set_random_seed(task["seed"])
    model = build(framework, task["network"], data)
    read_weights(model, out / "float.npz")
    outputs = model.predict(data["x_test"], batch_size=256, verbose=0)
    check_equal(outputs, np.load(out / "float.npy"), f"the float model of {task['framework']}")
    aware = framework.quantize_aware(model, data["x_train"])
    seconds = fit(framework, aware, data, task)
    np.save(out / f"{task['framework']}.npy", aware.predict(data["x_test"], batch_size=256, verbose=0))
    framework.export_int8(aware, str(out / f"{task['framework']}.tflite"))
    return {"train_seconds": seconds}


def compiled(framework: Framework, task: dict[str, Any], *, aware: bool) -> tuple[Any, np.ndarray, np.ndarray]:
    """MobileNetV2, ready to be trained on one batch of noise."""
    keras = framework.keras
    keras.utils.set_random_seed(0)
    side, batch_size = task["side"], task["batch_size"]
    x = np.random.default_rng(0).random((batch_size, side, side, 3), np.float32)
    model = NETWORKS["mobilenet_v2"](keras, (side, side, 3), 10)
    if aware:
        model = framework.quantize_aware(model, x)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-4), loss=loss)
    return model, x, np.arange(batch_size) % 10


def time_steps(framework: Framework, task: dict[str, Any]) -> dict[str, Any]:
    """Runs a block of train steps for each line of the input, "float" or "aware", and answers with seconds a step."""
    models = {name: compiled(framework, task, aware=name == "aware") for name in ("float", "aware")}
    for model, x, y in models.values():
        for _ in range(3):
            model.train_on_batch(x, y)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        model, x, y = models[line.strip()]
        started, cpu_started = time.perf_counter(), time.process_time()
        for _ in range(task["steps"]):
            model.train_on_batch(x, y)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
        print(json.dumps({"wall": seconds / task["steps"], "cpu": cpu_seconds / task["steps"]}), flush=True)
    return {}


def memory(framework: Framework, task: dict[str, Any]) -> dict[str, Any]:
    """The peak of this process, which builds one model and trains it for some steps."""
    imported = _status_bytes("VmRSS:")
    model, x, y = compiled(framework, task, aware=task["model"] == "aware")
    for _ in range(task["steps"]):
        model.train_on_batch(x, y)
    # Not ru_maxrss, which a process inherits from the one that started it.
    return {"imported_bytes": imported, "peak_bytes": _status_bytes("VmHWM:")}


def _status_bytes(field: str) -> int:
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith(field))


TASKS = {"train": train, "fine_tune": fine_tune, "time": time_steps, "memory": memory}


def main() -> None:
    name, task = sys.argv[1], json.loads(sys.argv[2])
    result = TASKS[task["do"]](FRAMEWORKS[name](), {**task, "framework": name})
    print(json.dumps(result))


if __name__ == "__main__":
    main()
