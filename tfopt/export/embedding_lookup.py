"""Embeddings as the operator that ai-edge-quantizer can quantize.

TensorFlow's converter makes a GATHER of an embedding, whose int8 form has one scale for the whole table and which
ai-edge-quantizer leaves in float. EMBEDDING_LOOKUP has a scale for each row, and gives float.
"""

from __future__ import annotations

from math import prod

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfopt.export.tflite_writer import pack_tflite, unpack_tflite

__all__ = ["with_embedding_lookups"]


def with_embedding_lookups(content: bytes, *, bits: int) -> bytes:
    """Returns an equal file in which rows of constant float tables are looked up by EMBEDDING_LOOKUP.

    That operator takes a vector of indices, so that others are reshaped before it and what it gives behind it. A file
    without such a GATHER is returned as it is.

    Args:
        content: the bytes of a float .tflite file with static shapes.
        bits: those that the tables will have. Rows of 4 bits must fill whole bytes, since the operator reads others
            wrongly: tables of an odd width stay as they are.

    References: TensorFlow Lite's kernels/embedding_lookup.cc.
    """
    model = unpack_tflite(content)
    found = False
    for subgraph in model.subgraphs:
        operators: list[schema.OperatorT] = []
        for operator in subgraph.operators:
            lookup = _looks_up_rows(operator, subgraph, model, bits)
            operators += _as_lookup(operator, subgraph, model) if lookup else [operator]
            found = found or lookup
        subgraph.operators = operators
    return pack_tflite(model) if found else content


def _looks_up_rows(operator: schema.OperatorT, subgraph: schema.SubGraphT, model: schema.ModelT, bits: int) -> bool:
    if model.operatorCodes[operator.opcodeIndex].builtinCode != schema.BuiltinOperator.GATHER:
        return False
    table, indices = (subgraph.tensors[index] for index in operator.inputs)
    options = operator.builtinOptions
    return (
        model.buffers[table.buffer].data is not None
        and table.type == schema.TensorType.FLOAT32
        and indices.type == schema.TensorType.INT32
        and len(table.shape) == 2
        and table.shape[1] * bits % 8 == 0
        and (options.axis, options.batchDims) == (0, 0)
    )


def _as_lookup(operator: schema.OperatorT, subgraph: schema.SubGraphT, model: schema.ModelT) -> list[schema.OperatorT]:
    table, indices = operator.inputs
    [output] = operator.outputs
    shape, width = subgraph.tensors[indices].shape, subgraph.tensors[table].shape[1]
    if len(shape) == 1:
        return [_operator(schema.BuiltinOperator.EMBEDDING_LOOKUP, [indices, table], output, model)]
    flat = _tensor([prod(shape)], schema.TensorType.INT32, output, subgraph)
    rows = _tensor([prod(shape), width], schema.TensorType.FLOAT32, output, subgraph)
    return [
        _reshape(indices, flat, subgraph, model),
        _operator(schema.BuiltinOperator.EMBEDDING_LOOKUP, [flat, table], rows, model),
        _reshape(rows, output, subgraph, model),
    ]


def _reshape(given: int, made: int, subgraph: schema.SubGraphT, model: schema.ModelT) -> schema.OperatorT:
    sizes = np.array(subgraph.tensors[made].shape, np.int32)
    constant = schema.BufferT()
    constant.data = sizes.view(np.uint8)
    model.buffers.append(constant)
    shape = _tensor([len(sizes)], schema.TensorType.INT32, made, subgraph, buffer=len(model.buffers) - 1)
    operator = _operator(schema.BuiltinOperator.RESHAPE, [given, shape], made, model)
    operator.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
    operator.builtinOptions = schema.ReshapeOptionsT()
    operator.builtinOptions.newShape = sizes
    return operator


def _operator(builtin: int, inputs: list[int], output: int, model: schema.ModelT) -> schema.OperatorT:
    codes = [code.builtinCode for code in model.operatorCodes]
    if builtin not in codes:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = builtin
        code.version = 1
        model.operatorCodes.append(code)
        codes.append(builtin)
    operator = schema.OperatorT()
    operator.opcodeIndex = codes.index(builtin)
    operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
    return operator


def _tensor(sizes: list[int], dtype: int, near: int, subgraph: schema.SubGraphT, *, buffer: int = 0) -> int:
    """Adds a tensor, named after another with a number behind it, as the converter numbers names."""
    taken = {tensor.name for tensor in subgraph.tensors}
    tensor = schema.TensorT()
    tensor.shape, tensor.type, tensor.buffer = np.array(sizes, np.int32), dtype, buffer
    candidates = (subgraph.tensors[near].name + str(number).encode() for number in range(len(taken) + 1))
    tensor.name = next(candidate for candidate in candidates if candidate not in taken)
    subgraph.tensors.append(tensor)
    return len(subgraph.tensors) - 1
