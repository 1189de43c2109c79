"""Each operator of a .tflite file as a file of its own."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfopt.errors import DataError
from tfopt.export.tflite_writer import pack_tflite, unpack_tflite

__all__ = ["OperatorFile", "floor_file", "operator_files"]

_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}


@dataclass(frozen=True, eq=False)
class OperatorFile:
    """One operator as a file.

    Args:
        name: of the tensor that it writes.
        kind: "CONV_2D", …
        content: the file.
        inputs: what it is to be given in turn: tensors, by their index in the whole file.
    """

    name: str
    kind: str
    content: bytes
    inputs: tuple[int, ...]


def operator_files(content: bytes, shapes: dict[int, tuple[int, ...]]) -> Iterator[OperatorFile]:
    """Cuts a file into its operators, in their order.

    Constants come along. An operator that reads constants only, such as the DEQUANTIZE of float16 weights, is computed
    once when a file is loaded: it has no file of its own and is put into those of the operators that read it.

    Args:
        content: the bytes of the whole file.
        shapes: of its tensors as they are when it runs, by index.

    Raises:
        DataError: if the file has control flow or several signatures.
    """
    model = unpack_tflite(content)
    if len(model.subgraphs) != 1:
        raise DataError(
            "operator times are of files with one graph, without loops, branches and further signatures. "
            f"Received: {len(model.subgraphs)} graphs."
        )
    graph = model.subgraphs[0]
    fixed = {index for index, tensor in enumerate(graph.tensors) if _is_constant(model, tensor) or tensor.isVariable}
    makers: dict[int, list[schema.OperatorT]] = {}
    for operator in graph.operators:
        read = [int(index) for index in operator.inputs if index >= 0]
        before = [maker for index in read for maker in makers.get(index, ())]
        if read and all(index in fixed and not graph.tensors[index].isVariable for index in read):
            for index in map(int, operator.outputs):
                makers[index] = [*before, operator]
                fixed.add(index)
            continue
        given = tuple(index for index in dict.fromkeys(read) if index not in fixed)
        written = tuple(map(int, operator.outputs))
        name = (graph.tensors[written[0]].name or b"").decode() if written else ""
        code = model.operatorCodes[operator.opcodeIndex]
        kind = _NAMES.get(max(code.builtinCode, code.deprecatedBuiltinCode), "unknown")
        yield OperatorFile(
            name.partition(";")[0], kind, _packed(model, [*before, operator], given, written, shapes), given
        )


def floor_file() -> bytes:
    """A file of one operator on one number: what it takes is the way to an operator and back."""
    number = schema.TensorT()
    number.shape, number.type, number.name = [1], schema.TensorType.FLOAT32, b"number"
    result = copy.copy(number)
    result.name = b"result"
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RELU
    code.version = 1
    operator = schema.OperatorT()
    operator.inputs, operator.outputs = [0], [1]
    return _file([number, result], [operator], [0], [1], [code], [schema.BufferT()])


def _is_constant(model: schema.ModelT, tensor: schema.TensorT) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _packed(
    model: schema.ModelT,
    operators: list[schema.OperatorT],
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    shapes: dict[int, tuple[int, ...]],
) -> bytes:
    graph = model.subgraphs[0]
    used = list(
        dict.fromkeys(
            int(index)
            for operator in operators
            for index in (*operator.inputs, *operator.outputs, *_of(operator.intermediates))
            if index >= 0
        )
    )
    place = {-1: -1} | {index: number for number, index in enumerate(used)}
    tensors, buffers = [], [schema.BufferT()]
    for index in used:
        tensor = copy.copy(graph.tensors[index])
        if _is_constant(model, tensor):
            buffers.append(model.buffers[tensor.buffer])
            tensor.buffer = len(buffers) - 1
        else:
            tensor.buffer = 0
            tensor.shape, tensor.shapeSignature = list(shapes.get(index, _of(tensor.shape))), None
        tensors.append(tensor)
    moved = []
    for operator in map(copy.copy, operators):
        operator.inputs = [place[int(index)] for index in operator.inputs]
        operator.outputs = [place[int(index)] for index in operator.outputs]
        operator.intermediates = [place[int(index)] for index in _of(operator.intermediates)]
        moved.append(operator)
    return _file(
        tensors,
        moved,
        [place[index] for index in inputs],
        [place[index] for index in outputs],
        model.operatorCodes,
        buffers,
    )


def _of(vector: np.ndarray | list[int] | None) -> list[int]:
    return [] if vector is None else [int(value) for value in vector]


def _file(
    tensors: list[schema.TensorT],
    operators: list[schema.OperatorT],
    inputs: list[int],
    outputs: list[int],
    codes: list[schema.OperatorCodeT],
    buffers: list[schema.BufferT],
) -> bytes:
    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = tensors, operators, inputs, outputs
    model = schema.ModelT()
    model.version, model.operatorCodes, model.buffers, model.subgraphs = 3, codes, buffers, [graph]
    return pack_tflite(model)
