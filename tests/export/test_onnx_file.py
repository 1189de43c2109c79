"""Reading .onnx files: operators with their tensors, in the graph and in the bodies of loops and branches."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tfopt.errors import DataError
from tfopt.export.onnx_file import OnnxFile, read_onnx

KERNEL = np.arange(6, dtype=np.float32).reshape(2, 3)


def floats(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def read(
    folder: Path, nodes: list[onnx.NodeProto], outputs: list[onnx.ValueInfoProto], **constants: np.ndarray
) -> OnnxFile:
    initializers = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "graph", [floats("x", "batch", 2)], outputs, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)]), folder / "model.onnx")
    return read_onnx(folder / "model.onnx")


def test_tensors_operators_and_constants(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "kernel"], ["product"], name="layer/MatMul"),
        helper.make_node("Clip", ["product", "", "most"], ["y"], name="layer/Clip"),
    ]
    file = read(tmp_path, nodes, [floats("y", "batch", 3)], kernel=KERNEL, most=np.float32(6))
    assert file.opset == 15
    assert (file.inputs["x"].shape, file.outputs["y"].shape) == ((None, 2), (None, 3))
    assert file.operator_counts == {"MatMul": 1, "Clip": 1}
    product, clip = file.operators
    assert (product.name, product.domain, product.node) == ("MatMul", "", "layer/MatMul")
    assert product.outputs[0].shape == (1, 3)
    assert product.inputs[0].constant is None
    np.testing.assert_array_equal(product.inputs[1].constant, KERNEL)
    assert [tensor.name for tensor in clip.inputs] == ["product", "most"]


def test_a_dequantized_tensor_knows_the_integers_it_is_made_of(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["kernel", "scale"], ["w"]),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
    ]
    integers = KERNEL.astype(np.int8)
    scale, zero = np.float32(0.5), np.uint8(3)
    file = read(tmp_path, nodes, [floats("y", "batch", 3)], kernel=integers, scale=scale, zero=zero)
    activation, kernel = file.operators[-1].inputs
    assert [operator.is_rounding for operator in file.operators] == [True, True, True, False]
    assert activation.stored is not None
    assert (activation.stored.dtype, activation.stored.constant) == ("uint8", None)
    assert kernel.stored is not None
    assert kernel.stored.dtype == "int8"
    np.testing.assert_array_equal(kernel.stored.constant, integers)


def test_operators_in_branches_read_what_is_outside(tmp_path: Path) -> None:
    branches = {
        name: helper.make_graph([helper.make_node("MatMul", ["x", "kernel"], [name])], name, [], [floats(name, "n", 3)])
        for name in ("then_branch", "else_branch")
    }
    nodes = [
        helper.make_node("Constant", [], ["condition"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["condition"], ["y"], **branches),
    ]
    file = read(tmp_path, nodes, [floats("y", "batch", 3)], kernel=KERNEL)
    assert [(operator.name, operator.is_nested) for operator in file.operators] == [
        ("If", False),
        ("MatMul", True),
        ("MatMul", True),
    ]
    assert file.operators[0].inputs[0].constant == np.array(True)
    assert all(np.array_equal(operator.inputs[1].constant, KERNEL) for operator in file.operators[1:])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an ONNX file: it has no operators of ONNX"),
        (b"PK\x03\x04 no protobuf", "is not an ONNX file, or is damaged"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_onnx(tmp_path / "model.onnx")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Cannot read .*absent\.onnx.*No such file"):
        read_onnx(tmp_path / "absent.onnx")


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "kernel"], ["y"], name="namename")]
    read(tmp_path, nodes, [floats("y", "batch", 3)], kernel=KERNEL)
    content = (tmp_path / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(content.replace(b"namename", b"name\xff\xfe\xfd\xfc"))
    with pytest.raises(DataError, match="damaged: an operator has a name that is no text"):
        read_onnx(tmp_path / "model.onnx")


def test_an_operator_without_outputs(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("MatMul", ["x"], [], domain="other")]
    with pytest.raises(DataError, match="damaged: "):
        read(tmp_path, nodes, [floats("y", "batch", 2)])
