"""tfopt's part of benchmarks/scoreboard.py, as its documentation recommends each step."""

from __future__ import annotations

from typing import Any

import keras
from scoreboard_task import Method, Row, Task, exported, float_model, ramp_end, train, zeros
from worker_files import read_weights, write_weights

import tfopt
from tfopt.callbacks import MagnitudePruning, PreserveCompression

__all__ = ["METHODS"]


def export(model: keras.Model, task: Task) -> Row:
    """int8 by whichever engine comes nearer to Keras; for a quantize-aware model there is one only."""
    path = task.path(".tflite")
    return exported(
        path, lambda: tfopt.export_tflite(model, path, "int8", calibration=task.data["calibration"], engine="best")
    )


def post_training(task: Task) -> Row:
    return export(float_model(keras, task), task)


def distilled(student: keras.Model, teacher: keras.Model, task: Task, stage: str, callbacks: list[Any]) -> Row:
    """Trains on labels and on what the float network answers."""
    return train(keras, tfopt.Distiller(student, teacher), task, stage, callbacks, trained=student)


def quantization_aware(task: Task) -> Row:
    aware = tfopt.quantize_aware(float_model(keras, task), calibration=task.data["calibration"])
    return train(keras, aware, task, "fine_tune") | export(aware, task)


def is_embedding(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.Embedding)


def pruned(task: Task) -> Row:
    teacher, settings = float_model(keras, task), task.settings["prune"]
    model = keras.models.clone_model(teacher)
    model.set_weights(teacher.get_weights())
    ramp: dict[str, Any] = {"end_step": ramp_end(task), "frequency": settings["frequency"]}
    prune = [MagnitudePruning(settings["sparsity"], allocation="erk", **ramp)]
    if any(map(is_embedding, model.layers)):  # which tfmot prunes unasked
        prune.append(MagnitudePruning(settings["sparsity"], layers=is_embedding, **ramp))
    found = distilled(model, teacher, task, "prune", prune)
    write_weights(model, task.path(".npz"))
    return found | {"zeros": zeros(model)} | export(model, task)


def pruned_quantization_aware(task: Task) -> Row:
    teacher = float_model(keras, task)
    model = keras.models.clone_model(teacher)
    read_weights(model, task.folder / f"{task.tool}_pruned.npz")
    aware = tfopt.quantize_aware(model, calibration=task.data["calibration"])
    return distilled(aware, teacher, task, "fine_tune", [PreserveCompression()]) | export(aware, task)


METHODS: dict[str, Method] = {
    "ptq": post_training,
    "qat": quantization_aware,
    "pruned": pruned,
    "pruned_qat": pruned_quantization_aware,
}
