"""ONNX Runtime's side: batches of any size, what it computes in float, and what it cannot run."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tfopt.errors import ExportError, MissingExtraError
from tfopt.export.onnx_runtime import float_operators, require_onnxruntime, run_onnx

X = np.arange(10, dtype=np.float32).reshape(5, 2)


def write(folder: Path, *nodes: onnx.NodeProto, batch: int | str = "batch", **constants: np.ndarray) -> Path:
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (batch, 2)) for name in ("x", "y")]
    initializers = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "graph", tensors[:1], tensors[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize("batch_size", [1, 2, 5, 9])
def test_samples_are_run_in_batches(tmp_path: Path, batch_size: int) -> None:
    path = write(tmp_path, helper.make_node("Neg", ["x"], ["y"]))
    np.testing.assert_array_equal(run_onnx(path, {"x": X}, batch_size=batch_size)["y"], -X)


def test_what_cannot_be_run_is_told(tmp_path: Path) -> None:
    unknown = write(tmp_path, helper.make_node("Erfc", ["x"], ["y"]))
    with pytest.raises(ExportError, match=r"ONNX Runtime cannot run the converted file at batch size 1: .*Erfc"):
        run_onnx(unknown, {"x": X}, batch_size=1)
    fixed = write(tmp_path, helper.make_node("Neg", ["x"], ["y"]), batch=1)
    with pytest.raises(ExportError, match=r"at batch size 3: .*Got invalid dimensions for input: x"):
        run_onnx(fixed, {"x": X}, batch_size=3)


def test_operators_that_stay_float_are_those_without_integer_kernels(tmp_path: Path) -> None:
    def rounded(name: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}_q"]),
            helper.make_node("DequantizeLinear", [f"{name}_q", "scale", "zero"], [f"{name}_d"]),
        ]

    nodes = [
        *rounded("x"),
        helper.make_node("DequantizeLinear", ["kernel", "scale", "none"], ["w"]),
        helper.make_node("MatMul", ["x_d", "w"], ["product"]),
        *rounded("product"),
        helper.make_node("Erf", ["product_d"], ["erf"]),
        *rounded("erf"),
        helper.make_node("Identity", ["erf_d"], ["y"]),
    ]
    constants = {
        "scale": np.float32(0.1),
        "zero": np.uint8(128),
        "none": np.int8(0),
        "kernel": np.eye(2, dtype=np.int8),
    }
    assert float_operators(write(tmp_path, *nodes, **constants)) == {"Erf": 1}
    assert float_operators(write(tmp_path, helper.make_node("Erf", ["x"], ["y"]))) == {"Erf": 1}


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    require_onnxruntime("The test")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"The test needs the extra 'onnx'.*tfopt\[onnx\]"):
        require_onnxruntime("The test")
