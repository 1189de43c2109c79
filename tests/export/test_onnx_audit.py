"""The audit of .onnx files: what is invalid, foreign or of other weights than asked for is refused by name."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tfopt.errors import ExportError
from tfopt.export.onnx_audit import audit_onnx
from tfopt.export.onnx_file import read_onnx


def write(folder: Path, *nodes: onnx.NodeProto, kernel: np.ndarray | None = None) -> Path:
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", 2)) for name in ("x", "y")]
    constants = [numpy_helper.from_array(np.float32(0.5), "scale")]
    if kernel is not None:
        constants.append(numpy_helper.from_array(kernel, "kernel"))
    graph = helper.make_graph(nodes, "graph", tensors[:1], tensors[1:], constants)
    imports = [helper.make_opsetid("", 15), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), folder / "model.onnx")
    return folder / "model.onnx"


def audit(path: Path, quantization: str) -> None:
    audit_onnx(path, read_onnx(path), quantization)


PRODUCT = helper.make_node("MatMul", ["x", "kernel"], ["y"], name="layer/MatMul")
QUANTIZED = (
    helper.make_node("DequantizeLinear", ["kernel", "scale"], ["w"]),
    helper.make_node("MatMul", ["x", "w"], ["y"], name="layer/MatMul"),
)


def test_a_sound_file_passes(tmp_path: Path) -> None:
    audit(write(tmp_path, PRODUCT, kernel=np.eye(2, dtype=np.float32)), "none")
    audit(write(tmp_path, *QUANTIZED, kernel=np.eye(2, dtype=np.int8)), "int8")


def test_an_operator_of_a_runtimes_own_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, helper.make_node("Gelu", ["x"], ["y"], name="layer/Gelu", domain="com.microsoft"))
    with pytest.raises(ExportError, match=r"refused \(none\): com\.microsoft\.Gelu \(layer/Gelu\) is no operator"):
        audit(path, "none")


def test_what_onnx_does_not_know_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, helper.make_node("Erfc", ["x"], ["y"], name="layer/Erfc"))
    with pytest.raises(ExportError, match="ONNX's checker says: No Op registered for Erfc"):
        audit(path, "none")


@pytest.mark.parametrize("quantization", ["int8", "float16"])
def test_float32_weights_are_refused(tmp_path: Path, quantization: str) -> None:
    path = write(tmp_path, PRODUCT, kernel=np.eye(2, dtype=np.float32))
    with pytest.raises(ExportError, match=rf"MatMul \(layer/MatMul\) has float32 weights, not {quantization}"):
        audit(path, quantization)


def test_a_file_in_which_nothing_is_int8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="nothing in it is int8"):
        audit(write(tmp_path, helper.make_node("Erf", ["x"], ["y"])), "int8")
