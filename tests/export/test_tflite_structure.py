"""Files whose parts do not fit each other are refused before anything is computed from them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tfopt.errors import DataError
from tfopt.export.sparse_tensor import Dimension, SparseLayout
from tfopt.export.tflite_file import read_tflite
from tfopt.export.tflite_structure import check_structure
from tfopt.export.tflite_writer import pack_tflite, unpack_tflite

CONTENT = (Path(__file__).parents[1] / "golden" / "networks.tflite").read_bytes()
Change = Callable[[schema.ModelT], None]


def kernel(model: schema.ModelT) -> schema.TensorT:
    """The first tensor that is a constant of several axes."""
    return next(
        tensor
        for tensor in model.subgraphs[0].tensors
        if model.buffers[tensor.buffer].data is not None and len(tensor.shape) == 4
    )


def convolution(model: schema.ModelT) -> schema.OperatorT:
    codes = [code.builtinCode for code in model.operatorCodes]
    graph = model.subgraphs[0]
    return next(one for one in graph.operators if codes[one.opcodeIndex] == schema.BuiltinOperator.CONV_2D)


def set_shape(model: schema.ModelT) -> None:
    kernel(model).shape = np.int32([2**30, 2**30, 2**30, 2])


def set_negative_shape(model: schema.ModelT) -> None:
    kernel(model).shape = np.int32([-1, *kernel(model).shape[1:]])


def set_signature(model: schema.ModelT) -> None:
    kernel(model).shapeSignature = np.int32([-1])


def cut_constant(model: schema.ModelT) -> None:
    model.buffers[kernel(model).buffer].data = np.zeros(1, np.uint8)


def set_type(model: schema.ModelT) -> None:
    kernel(model).type = schema.TensorType.FLOAT64


def drop_zero_points(model: schema.ModelT) -> None:
    kernel(model).quantization.zeroPoint = None


def name_an_absent_input(model: schema.ModelT) -> None:
    convolution(model).inputs = np.int32([0, 9999, 2])


def drop_the_kernel(model: schema.ModelT) -> None:
    convolution(model).inputs = convolution(model).inputs[:1]


def flatten_the_kernel(model: schema.ModelT) -> None:
    tensor = model.subgraphs[0].tensors[convolution(model).inputs[1]]
    tensor.shape = np.int32([np.prod(tensor.shape)])


def name_an_absent_output(model: schema.ModelT) -> None:
    model.subgraphs[0].outputs = np.int32([-2])


def name_an_absent_entry(model: schema.ModelT) -> None:
    model.signatureDefs[0].inputs[0].tensorIndex = 9999


def name_an_absent_subgraph(model: schema.ModelT) -> None:
    model.signatureDefs[0].subgraphIndex = 7


def name_an_absent_buffer(model: schema.ModelT) -> None:
    kernel(model).buffer = 9999


def make_nearly_all_sparse(model: schema.ModelT) -> None:
    tensor = kernel(model)
    tensor.shape, tensor.sparsity = np.int32([2**20, 2**20, 1, 1]), schema.SparsityParametersT()
    tensor.sparsity.dimMetadata = []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (set_shape, r"the int8 constant '.*' of shape \[1073741824, .* has \d+ bytes"),
        (set_negative_shape, r"the tensor '.*' has the shape \[-1, "),
        (set_signature, r"of shape \[.*\] has a signature of 1 sizes"),
        (cut_constant, "has 1 bytes"),
        (set_type, "the float64 constant"),
        (drop_zero_points, r"has \d+ scales and 0 zero points"),
        (name_an_absent_input, r"an operator names the tensor 9999 of \d+"),
        (drop_the_kernel, "an operator CONV_2D lacks inputs, or a kernel of 4 axes"),
        (flatten_the_kernel, "or a kernel of 4 axes"),
        (name_an_absent_output, r"the graph names the tensor -2 of \d+"),
        (name_an_absent_entry, "a signature names the tensor 9999"),
        (name_an_absent_subgraph, "a signature is of subgraph 7"),
        (name_an_absent_buffer, "IndexError"),
        (make_nearly_all_sparse, r"the sparse tensor '.*' .* stores only"),
    ],
)
def test_parts_that_do_not_fit(tmp_path: Path, change: Change, told: str) -> None:
    model = unpack_tflite(CONTENT)
    check_structure(model, len(CONTENT))
    change(model)
    (tmp_path / "model.tflite").write_bytes(pack_tflite(model))
    with pytest.raises(DataError, match=f"model.tflite is damaged: .*{told}"):
        read_tflite(tmp_path / "model.tflite")


def test_a_constant_behind_the_end_of_the_file() -> None:
    model = unpack_tflite(CONTENT)
    buffer = model.buffers[kernel(model).buffer]
    buffer.offset, buffer.size, buffer.data = len(CONTENT) - 10, 20, None
    with pytest.raises(ValueError, match=r"buffer \d+ ends 10 bytes behind the file"):
        check_structure(model, len(CONTENT))


@pytest.mark.parametrize(
    ("layout", "told"),
    [
        (SparseLayout((0, 1), (), (Dimension(2**30), Dimension(2**30))), "positions"),
        (SparseLayout((0, 1), (), (Dimension(2), Dimension(0, (0, 2**40, 2**41), (0, 1)))), "positions"),
        (SparseLayout((0, 1), (), (Dimension(2), Dimension(0, (3, 0, 1), (0, 1)))), "ends before it begins"),
        (SparseLayout((0, 1), (), (Dimension(2), Dimension(0, (0, 1), (0, 1)))), "out of bounds"),
        (SparseLayout((0, 1), (), (Dimension(2),)), "shorter"),
        (SparseLayout((0, 5), (), (Dimension(2), Dimension(3))), "1"),
    ],
)
def test_sparse_layouts_that_do_not_fit(layout: SparseLayout, told: str) -> None:
    with pytest.raises((ValueError, IndexError, KeyError), match=told):
        layout.to_dense(np.arange(6), (2, 3))
