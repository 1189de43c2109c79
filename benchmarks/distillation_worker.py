"""One training of benchmarks/distillation.py, in a process of its own.

    python benchmarks/distillation_worker.py TASK

TASK is JSON: {"do": "teacher" | "student" | "time", ...}. The answer is the last line of the output.
"""

from __future__ import annotations

import csv
import gzip
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfopt
from tfopt.distillation import DecoupledLoss, FeatureLoss, LogitsLoss
from tfopt.training_batches import epoch_batches

L = keras.layers
WORDS, LENGTH = 2500, 32
TEACHER_BATCH = 1024


def fashion_mnist(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "fashion_mnist.npz") as file:
        data = dict(file)
    for name in ("x_train", "x_test"):
        data[name] = data[name].reshape(-1, 28, 28, 1).astype(np.float32) / 255
    return data


def banking77(folder: Path) -> dict[str, np.ndarray]:
    texts, labels = {}, {}
    for split in ("train", "test"):
        with gzip.open(folder / f"banking77_{split}.csv.gz", "rt") as file:
            rows = list(csv.DictReader(file))
        texts[split], labels[split] = [row["text"] for row in rows], [row["category"] for row in rows]
    vectorize = L.TextVectorization(max_tokens=WORDS, output_sequence_length=LENGTH)
    vectorize.adapt(texts["train"])
    classes = {label: number for number, label in enumerate(sorted(set(labels["train"])))}
    data = {}
    for split in texts:
        data[f"x_{split}"] = np.asarray(vectorize(np.array(texts[split]))).astype(np.int32)
        data[f"y_{split}"] = np.array([classes[label] for label in labels[split]])
    return data


def image_teacher() -> keras.Model:
    x = keras.Input((28, 28, 1))
    y = x
    for channels in (16, 32, 64):
        for _ in range(2):
            y = L.Conv2D(channels, 3, padding="same", use_bias=False)(y)
            y = L.ReLU()(L.BatchNormalization()(y))
        y = L.Dropout(0.2)(L.MaxPooling2D()(y))
    y = L.Dense(64, "relu", name="features")(L.GlobalAveragePooling2D()(y))
    return keras.Model(x, L.Dense(10)(L.Dropout(0.3)(y)))


def image_student() -> keras.Model:
    x = keras.Input((28, 28, 1))
    y = x
    for channels in (8, 16):
        y = L.ReLU()(L.BatchNormalization()(L.Conv2D(channels, 3, strides=2, padding="same", use_bias=False)(y)))
    y = L.Dense(64, "relu", name="features")(L.Flatten()(y))
    return keras.Model(x, L.Dense(10)(y))


def text_teacher() -> keras.Model:
    x = keras.Input((LENGTH,), dtype="int32")
    words = L.SpatialDropout1D(0.3)(L.Embedding(WORDS, 128)(x))
    y = [
        L.GlobalMaxPooling1D()(L.Conv1D(192, width, padding="same", activation="relu")(words)) for width in (1, 2, 3, 4)
    ]
    y = L.Dense(64, "relu", name="features")(L.Dropout(0.5)(L.Concatenate()(y)))
    return keras.Model(x, L.Dense(77)(L.Dropout(0.3)(y)))


def text_student() -> keras.Model:
    x = keras.Input((LENGTH,), dtype="int32")
    y = L.Conv1D(32, 2, padding="same", activation="relu")(L.Embedding(WORDS, 16)(x))
    y = L.Dense(64, "relu", name="features")(L.GlobalMaxPooling1D()(y))
    return keras.Model(x, L.Dense(77)(y))


DATA: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {"fashion_mnist": fashion_mnist, "banking77": banking77}
NETWORKS = {"fashion_mnist": (image_teacher, image_student), "banking77": (text_teacher, text_student)}


def keras_distiller(student: keras.Model, teacher: keras.Model, losses: Any) -> keras.Model:
    return keras.distillation.Distiller(teacher=teacher, student=student, distillation_losses=losses)


def feature_losses() -> list[Any]:
    return [LogitsLoss(), FeatureLoss("features", "features")]


def keras_feature_losses() -> list[Any]:
    feature = keras.distillation.FeatureDistillation(
        "mse", teacher_layer_name="features", student_layer_name="features"
    )
    return [keras.distillation.LogitsDistillation(loss=keras.losses.KLDivergence()), feature]


METHODS: dict[str, Callable[[keras.Model, keras.Model, str | None], keras.Model]] = {
    "alone": lambda student, teacher, cache: student,
    # As its documentation shows it, and with the divergence of probabilities, which that name does not give.
    "keras": lambda student, teacher, cache: keras_distiller(
        student, teacher, keras.distillation.LogitsDistillation(temperature=3.0)
    ),
    "keras_divergence": lambda student, teacher, cache: keras_distiller(
        student, teacher, keras.distillation.LogitsDistillation(3.0, keras.losses.KLDivergence())
    ),
    "keras_feature": lambda student, teacher, cache: keras_distiller(student, teacher, keras_feature_losses()),
    "tfopt_logits": lambda student, teacher, cache: tfopt.Distiller(student, teacher, cache=cache),
    "tfopt_decoupled": lambda student, teacher, cache: tfopt.Distiller(
        student, teacher, DecoupledLoss(other_weight=2.0), cache=cache
    ),
    "tfopt_feature": lambda student, teacher, cache: tfopt.Distiller(student, teacher, feature_losses(), cache=cache),
}


def compiled(model: keras.Model, task: dict[str, Any], samples: int) -> keras.Model:
    steps = task["epochs"] * -(-samples // task["batch_size"])
    rate = keras.optimizers.schedules.CosineDecay(task["learning_rate"], steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss)
    return model


def fit(model: keras.Model, data: dict[str, np.ndarray], task: dict[str, Any]) -> None:
    model.fit(data["x_train"], data["y_train"], batch_size=task["batch_size"], epochs=task["epochs"], verbose=0)


def accuracy(model: keras.Model, data: dict[str, np.ndarray]) -> float:
    outputs = model.predict(data["x_test"], batch_size=TEACHER_BATCH, verbose=0)
    return float(np.mean(outputs.argmax(-1) == data["y_test"]))


def teacher(task: dict[str, Any], data: dict[str, np.ndarray]) -> dict[str, Any]:
    keras.utils.set_random_seed(0)
    model = compiled(NETWORKS[task["data"]][0](), task, len(data["x_train"]))
    fit(model, data, task)
    model.save(task["teacher"])
    return {"accuracy": accuracy(model, data), "parameters": model.count_params()}


def student(task: dict[str, Any], data: dict[str, np.ndarray]) -> dict[str, Any]:
    keras.utils.set_random_seed(task["seed"])
    model = NETWORKS[task["data"]][1]()
    trained = METHODS[task["method"]](model, keras.saving.load_model(task["teacher"]), task["cache"])
    compiled(trained, task, len(data["x_train"]))
    keras.utils.set_random_seed(task["seed"])  # the order of the samples
    fit(trained, data, task)
    return {"accuracy": accuracy(model, data), "parameters": model.count_params()}


def timing(task: dict[str, Any], data: dict[str, np.ndarray]) -> dict[str, Any]:
    """Seconds of an epoch of each method: all in one process, an epoch of each in turns, the first one not counted.

    `self_` are methods whose student has the teacher's architecture; `_cached` train on stored answers.
    """
    make_teacher, make_student = NETWORKS[task["data"]]
    runs: dict[str, tuple[keras.Model, Any]] = {}
    batches = epoch_batches((data["x_train"], data["y_train"]), task["batch_size"])
    for name, make in METHODS.items():
        model = make(make_student(), keras.saving.load_model(task["teacher"]), None)
        runs[name] = compiled(model, task, len(data["x_train"])), batches
    for name in ("keras_feature", "tfopt_feature"):
        model = METHODS[name](make_teacher(), keras.saving.load_model(task["teacher"]), None)
        runs[f"self_{name}"] = compiled(model, task, len(data["x_train"])), batches
    for name in ("tfopt_logits", "tfopt_feature"):
        model = METHODS[name](make_student(), keras.saving.load_model(task["teacher"]), f"{task['cache']}.{name}")
        # What a fit does once, before its epochs.
        attached = epoch_batches((model.attach_answers(data["x_train"]), data["y_train"]), task["batch_size"])
        runs[f"{name}_cached"] = compiled(model, task, len(data["x_train"])), attached
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(task["rounds"] + 1):
        for name in list(runs) if number % 2 else reversed(runs):
            model, its_batches = runs[name]
            started = time.perf_counter()
            model.fit(its_batches, shuffle=False, verbose=0)
            if number:
                seconds[name].append(time.perf_counter() - started)
    return {
        name: {"median": statistics.median(values), "smallest": min(values), "largest": max(values)}
        for name, values in seconds.items()
    }


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    dataset = DATA[given["data"]](Path(given["folder"]))
    dataset |= {name: dataset[name][: given["samples"]] for name in ("x_train", "y_train")}
    print(json.dumps({"teacher": teacher, "student": student, "time": timing}[given["do"]](given, dataset)))
