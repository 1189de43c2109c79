"""The tools of benchmarks/scoreboard.py that have environments of their own, each as its documentation shows it.

tfmot on tf_keras, Sony's Model Compression Toolkit (MCT) on TensorFlow 2.15, and Intel's Neural Compressor.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
from scoreboard_task import Method, Row, Task, exported, float_model, ramp_end, train, zeros
from scoreboard_tflite import write_tflite
from worker_files import read_weights, write_weights

__all__ = ["MCT", "NEURAL_COMPRESSOR", "TFMOT"]

BATCH_SIZE = 32


def tf_keras() -> Any:
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tf_keras

    return tf_keras


def tfmot_export(model: Any, task: Task, calibration: np.ndarray | None = None) -> Row:
    path = task.path(".tflite")
    return exported(path, lambda: write_tflite(model, path, int8=True, calibration=calibration))


def tfmot_quantization_aware(task: Task) -> Row:
    keras = tf_keras()
    import tensorflow_model_optimization as tfmot

    aware = tfmot.quantization.keras.quantize_model(float_model(keras, task))
    return train(keras, aware, task, "fine_tune") | tfmot_export(aware, task)


def tfmot_pruned(task: Task) -> Row:
    keras = tf_keras()
    from tensorflow_model_optimization.sparsity import keras as sparsity

    settings = task.settings["prune"]
    ramp = sparsity.PolynomialDecay(0.0, settings["sparsity"], 0, ramp_end(task), frequency=settings["frequency"])
    model = sparsity.prune_low_magnitude(float_model(keras, task), pruning_schedule=ramp)
    found = train(keras, model, task, "prune", [sparsity.UpdatePruningStep()])
    model = sparsity.strip_pruning(model)
    write_weights(model, task.path(".npz"))
    return found | {"zeros": zeros(model)} | tfmot_export(model, task, task.data["calibration"])


def tfmot_pruned_quantization_aware(task: Task) -> Row:
    keras = tf_keras()
    import tensorflow_model_optimization as tfmot

    model = float_model(keras, task)
    read_weights(model, task.folder / f"{task.tool}_pruned.npz")
    scheme = tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme()
    aware = tfmot.quantization.keras.quantize_apply(tfmot.quantization.keras.quantize_annotate_model(model), scheme)
    return train(keras, aware, task, "fine_tune") | tfmot_export(aware, task)


def calibration_batches(task: Task) -> Iterator[np.ndarray]:
    x = task.data["calibration"]
    for start in range(0, len(x), BATCH_SIZE):
        yield x[start : start + BATCH_SIZE]


def mct_arguments(task: Task) -> dict[str, Any]:
    import model_compression_toolkit as mct

    return {
        "representative_data_gen": lambda: ([batch] for batch in calibration_batches(task)),
        "target_platform_capabilities": mct.get_target_platform_capabilities("tensorflow", "tflite"),
    }


def mct_export(model: Any, task: Task) -> Row:
    from model_compression_toolkit import exporter

    path = task.path(".tflite")
    return exported(
        path,
        lambda: exporter.keras_export_model(
            model,
            str(path),
            serialization_format=exporter.KerasExportSerializationFormat.TFLITE,
            quantization_format=exporter.QuantizationFormat.INT8,
        ),
    )


def mct_post_training(task: Task) -> Row:
    import model_compression_toolkit as mct
    from tensorflow import keras

    model = float_model(keras, task)
    quantized: list[Any] = []
    quantization = exported(
        task.path(".tflite"),
        lambda: quantized.append(mct.ptq.keras_post_training_quantization(model, **mct_arguments(task))[0]),
    )
    found = mct_export(quantized[0], task)
    return found | {"export_seconds": found["export_seconds"] + quantization["export_seconds"]}


class NothingTrainableError(RuntimeError):
    """What is to be trained cannot be."""


def mct_quantization_aware(task: Task) -> Row:
    import model_compression_toolkit as mct
    from tensorflow import keras

    aware, *_ = mct.qat.keras_quantization_aware_training_init_experimental(
        float_model(keras, task), **mct_arguments(task)
    )
    if not aware.trainable_weights:
        raise NothingTrainableError("its quantization-aware network has no trainable weights")
    found = train(keras, aware, task, "fine_tune")
    return found | mct_export(mct.qat.keras_quantization_aware_training_finalize_experimental(aware), task)


class Batches:
    """Calibration samples as Neural Compressor takes them, with labels that it does not look at."""

    batch_size = BATCH_SIZE

    def __init__(self, task: Task) -> None:
        self.task = task

    def __len__(self) -> int:
        return -(-len(self.task.data["calibration"]) // BATCH_SIZE)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return ((batch, np.zeros(len(batch))) for batch in calibration_batches(self.task))


def neural_compressor_post_training(task: Task) -> Row:
    """It does not take a model of Keras 3, but its SavedModel."""
    import keras
    from neural_compressor.tensorflow import StaticQuantConfig, quantize_model

    path, float_path, batches = task.path(""), task.path("_float"), Batches(task)
    model = float_model(keras, task)
    shutil.rmtree(path, ignore_errors=True)

    def write() -> None:
        model.export(str(float_path), verbose=False)
        quantized = quantize_model(str(float_path), StaticQuantConfig(), batches, calib_iteration=len(batches))
        quantized.save(str(path))

    return exported(path, write)


TFMOT: dict[str, Method] = {
    "qat": tfmot_quantization_aware,
    "pruned": tfmot_pruned,
    "pruned_qat": tfmot_pruned_quantization_aware,
}
MCT: dict[str, Method] = {"ptq": mct_post_training, "qat": mct_quantization_aware}
NEURAL_COMPRESSOR: dict[str, Method] = {"ptq": neural_compressor_post_training}
