"""What a user of Keras 3 has without tfopt, for benchmarks/scoreboard.py; and the float network that all start from.

TensorFlow's converter, ai-edge-quantizer on its float file, and ONNX Runtime on Keras's own ONNX export, each as its
documentation shows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from compression_worker import accuracy, fit, predict
from scoreboard_sets import build
from scoreboard_task import Method, Row, Task, exported, float_model
from scoreboard_tflite import write_tflite
from worker_files import write_weights

__all__ = ["AI_EDGE_QUANTIZER", "CONVERTER", "KERAS", "ONNX_RUNTIME"]


def train_float(task: Task) -> Row:
    """The network that all tools start from: its weights and outputs, for them to compare with."""
    keras.utils.set_random_seed(task.seed)
    model = build(keras, task.settings, task.data)
    seconds = fit(keras, model, task.data, {**task.settings["train"], "seed": task.seed}, [])
    write_weights(model, task.folder / "float.npz")
    np.save(task.folder / "float.npy", predict(model, task.data))
    return {
        "train_seconds": seconds,
        "framework_accuracy": accuracy(model, task.data),
        "parameters": model.count_params(),
    }


def convert_float(task: Task) -> Row:
    path = task.path(".tflite")
    model = float_model(keras, task)
    return exported(path, lambda: write_tflite(model, path))


def convert_int8(task: Task) -> Row:
    path = task.path(".tflite")
    model = float_model(keras, task)
    return exported(path, lambda: write_tflite(model, path, int8=True, calibration=task.data["calibration"]))


def ai_edge_int8(task: Task) -> Row:
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    path, float_path = task.path(".tflite"), task.path("_float.tflite")
    model = float_model(keras, task)

    def write() -> None:
        write_tflite(model, float_path)
        signature, described = next(iter(Interpreter(str(float_path)).get_signature_list().items()))
        (name,) = described["inputs"]
        samples = [{name: task.data["calibration"][row : row + 1]} for row in range(len(task.data["calibration"]))]
        one = quantizer.Quantizer(str(float_path), recipe.static_wi8_ai8())
        one.quantize(one.calibrate({signature: samples})).export_model(str(path), overwrite=True)

    return exported(path, write)


def onnx_int8(task: Task) -> Row:
    """Static quantization with the settings that its documentation has for x86: uint8 activations, QDQ, per channel."""
    from onnxruntime import quantization

    class Samples(quantization.CalibrationDataReader):
        def __init__(self, name: str) -> None:
            x = task.data["calibration"]
            self.rows: Iterator[dict[str, np.ndarray]] = ({name: x[row : row + 1]} for row in range(len(x)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rows, None)

    path, float_path, prepared = (task.path(ending) for ending in (".onnx", "_float.onnx", "_prepared.onnx"))
    model = float_model(keras, task)

    def write() -> None:
        model.export(str(float_path), format="onnx", verbose=False)
        # The symbolic shape inference is for transformers, and needs sympy.
        quantization.quant_pre_process(str(float_path), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(path),
            Samples(_input_name(prepared)),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )

    return exported(path, write)


def _input_name(path: Path) -> str:
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.get_inputs()[0].name


KERAS: dict[str, Method] = {"train": train_float}
CONVERTER: dict[str, Method] = {"float": convert_float, "ptq": convert_int8}
AI_EDGE_QUANTIZER: dict[str, Method] = {"ptq": ai_edge_int8}
ONNX_RUNTIME: dict[str, Method] = {"ptq": onnx_int8}
