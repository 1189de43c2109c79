"""Operators of a .tflite or .onnx file and variables of a SavedModel, measured."""

from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from tfopt.export.onnx_file import OnnxFile, OnnxOperator, OnnxTensor
from tfopt.export.tflite import export_tflite
from tfopt.export.tflite_file import Operator, Tensor, TfliteFile, read_tflite
from tfopt.inspection_file import onnx_parts, saved_model_parts, tflite_parts


def tensor(values: np.ndarray | None, *, shape: tuple[int, ...] = (1, 4), dtype: str = "FLOAT32") -> Tensor:
    constant = None if values is None else values.tobytes()
    return Tensor("tensor", shape if values is None else values.shape, dtype, (), (), 0, constant)


def fully_connected(kernel: Tensor, bias: Tensor) -> Operator:
    return Operator("FULLY_CONNECTED", 1, (tensor(None), kernel, bias), (tensor(None, shape=(1, len(kernel.shape))),))


KERNEL = np.float32([[0, 0, 0, 0], [1, 2, 3, 4]])
BIAS = np.float32([0, 1])


def test_a_constant_that_two_operators_read_is_stored_once() -> None:
    kernel, bias = tensor(KERNEL), tensor(BIAS)
    first, second = tflite_parts(
        TfliteFile({}, {}, (fully_connected(kernel, bias), fully_connected(kernel, tensor(BIAS)))), None
    )
    assert (first.weights, first.nonzeros, first.size_bytes) == (10, 5, 40)
    assert (second.weights, second.size_bytes) == (2, 8)
    assert first.flops == second.flops == 2 * 2 * 4


def test_zeros_are_judged_by_the_kernel_and_not_by_the_bias() -> None:
    (constant,) = tflite_parts(TfliteFile({}, {}, (fully_connected(tensor(KERNEL), tensor(BIAS)),)), "tflite")
    assert constant.zeros_use == "no: 50% of the blocks of 1×4 along the input are zero, 67% are needed"
    computed = fully_connected(tensor(None, shape=(2, 4)), tensor(np.zeros(2, np.float32)))
    (part,) = tflite_parts(TfliteFile({}, {}, (computed,)), "tflite")
    assert (part.weights, part.zeros_use) == (2, "")


@pytest.mark.parametrize("dtype", ["INT4", "STRING", "RESOURCE", "TYPE 99"])
def test_what_numpy_cannot_hold_is_counted_in_bytes(dtype: str) -> None:
    operator = Operator("CUSTOM Odd", 1, (tensor(np.uint8([0, 1, 2]), dtype=dtype),), ())
    (part,) = tflite_parts(TfliteFile({}, {}, (operator,)), None)
    assert (part.name, part.shape, part.weights, part.size_bytes) == ("", (), 3, 3)


@pytest.mark.usefixtures("conversion_in_this_process")
def test_a_layer_used_twice_computes_twice_and_is_stored_once(tmp_path: Path) -> None:
    x = keras.Input((4,))
    shared = keras.layers.Dense(4, use_bias=False)
    shared_twice = keras.Model(x, shared(keras.layers.ReLU()(shared(x))))
    export_tflite(shared_twice, tmp_path / "twice.tflite", "none")
    parts = tflite_parts(read_tflite(tmp_path / "twice.tflite"), None)
    assert sum(part.weights for part in parts) == 16
    assert sum(part.flops or 0 for part in parts) == 64


@pytest.mark.parametrize(("target", "use"), [("onnx", "no: ONNX Runtime multiplies zeros too"), ("tflite", "")])
def test_onnx_operators_are_counted_with_the_integers_they_are_stored_as(target: str, use: str) -> None:
    x = OnnxTensor("x", (1, 2), "float32", stored=OnnxTensor("q", (1, 2), "uint8"))
    stored = OnnxTensor("kernel", (2, 4), "int8", KERNEL.astype(np.int8))
    kernel = OnnxTensor("w", (2, 4), "float32", stored=stored)
    y = OnnxTensor("y", (1, 4), "float32")
    dequantize = OnnxOperator("DequantizeLinear", "", "rounding", (stored,), (kernel,))
    product = OnnxOperator("MatMul", "", "hidden/MatMul", (x, kernel), (y,))
    file = OnnxFile(15, {"x": x}, {"y": y}, (dequantize, product, product))
    first, second = onnx_parts(file, target)
    assert (first.name, first.kind, first.dtypes, first.shape) == ("hidden/MatMul", "MatMul", "uint8 → float32", (1, 4))
    assert (first.weights, first.nonzeros, first.size_bytes, first.flops) == (8, 4, 8, 16)
    assert (second.weights, second.flops) == (0, 16)
    assert (first.zeros_use, second.zeros_use) == (use, "")


class Variable(SimpleNamespace):
    """Of a loaded SavedModel, as far as it is read."""

    def numpy(self) -> np.ndarray:
        return self.values


def saved_model(*arrays: np.ndarray) -> SimpleNamespace:
    variables = [Variable(path=str(i), dtype=a.dtype, shape=a.shape, values=a) for i, a in enumerate(arrays)]
    # Two signatures read the same variables.
    signature = SimpleNamespace(variables=variables)
    return SimpleNamespace(signatures={"serving_default": signature, "other": signature})


@pytest.mark.parametrize(
    ("target", "use"), [("serving", "no: TensorFlow multiplies zeros too"), ("tflite", ""), (None, "")]
)
def test_variables_of_a_saved_model(target: str | None, use: str) -> None:
    kernel, bias = saved_model_parts(saved_model(KERNEL, BIAS), target)
    assert (kernel.name, kernel.kind, kernel.dtypes, kernel.shape) == ("0", "variable", "float32", (2, 4))
    assert (kernel.weights, kernel.nonzeros, kernel.distinct_values, kernel.flops) == (8, 4, 5, None)
    assert (kernel.zeros_use, bias.zeros_use) == (use, "")
