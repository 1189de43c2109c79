"""The operations of ONNX operators, against counts by hand."""

import pytest

from tfopt.export.onnx_file import OnnxOperator, OnnxTensor
from tfopt.export.onnx_flops import operator_flops

Shape = tuple[int | None, ...] | None


def operator(name: str, inputs: list[Shape], output: Shape, *, is_nested: bool = False) -> OnnxOperator:
    tensors = tuple(OnnxTensor(str(index), shape, "float32") for index, shape in enumerate(inputs))
    return OnnxOperator(name, "", name, tensors, (OnnxTensor("y", output, "float32"),), is_nested)


@pytest.mark.parametrize(
    ("name", "inputs", "output", "flops"),
    [
        ("Conv", [(1, 3, 8, 8), (16, 3, 3, 3)], (1, 16, 6, 6), 2 * 16 * 36 * 27),
        ("Conv", [(1, 8, 8, 8), (8, 1, 3, 3)], (1, 8, 6, 6), 2 * 8 * 36 * 9),  # depthwise
        ("Conv", [(1, 4, 10), (8, 4, 5)], (1, 8, 6), 2 * 8 * 6 * 20),
        ("ConvTranspose", [(1, 3, 4, 4), (3, 5, 2, 2)], (1, 5, 8, 8), 2 * 48 * 20),
        ("MatMul", [(1, 4), (4, 3)], (1, 3), 2 * 4 * 3),
        ("MatMul", [(1, 2, 6, 4), (1, 2, 4, 6)], (1, 2, 6, 6), 2 * 2 * 36 * 4),
        ("Gemm", [(1, 4), (4, 3), (3,)], (1, 3), 2 * 4 * 3),
        ("Gemm", [(1, 4), (3, 4), (3,)], (1, 3), 2 * 4 * 3),  # a transposed kernel
        ("LSTM", [(10, 1, 4), (1, 32, 4), (1, 32, 8)], (10, 1, 1, 8), 2 * 10 * 32 * 12),
        ("Relu", [(1, 4)], (1, 4), 0),
        ("MatMul", [(None, 4), (4, 3)], (None, 3), None),
        ("MatMul", [None, (4, 3)], None, None),
    ],
)
def test_operations_are_counted(name: str, inputs: list[Shape], output: Shape, flops: int | None) -> None:
    assert operator_flops(operator(name, inputs, output)) == flops


def test_what_a_loop_repeats_is_not_counted() -> None:
    assert operator_flops(operator("MatMul", [(1, 4), (4, 3)], (1, 3), is_nested=True)) is None
    assert operator_flops(operator("Relu", [(1, 4)], (1, 4), is_nested=True)) == 0
