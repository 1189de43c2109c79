"""Whether the parts of a .tflite file fit each other: what a reader, and the runtime, take for granted."""

from __future__ import annotations

from math import prod
from typing import Any

from ai_edge_litert import schema_py_generated as schema

__all__ = ["check_structure"]

_TYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
_OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_BITS = {
    2: ("int2",),
    4: ("int4", "uint4"),
    8: ("int8", "uint8", "bool", "float8_e4m3fn", "float8_e5m2"),
    16: ("int16", "uint16", "float16", "bfloat16"),
    32: ("int32", "uint32", "float32"),
    64: ("int64", "uint64", "float64", "complex64"),
    128: ("complex128",),
}
"""The types whose elements have so many; several of less than a byte share one."""
_BITS_OF = {kind: bits for bits, kinds in _BITS.items() for kind in kinds}
_KERNELS = {
    schema.BuiltinOperator.CONV_2D: (2, 4),
    schema.BuiltinOperator.DEPTHWISE_CONV_2D: (2, 4),
    schema.BuiltinOperator.TRANSPOSE_CONV: (3, 4),
    schema.BuiltinOperator.FULLY_CONNECTED: (2, 2),
    schema.BuiltinOperator.BATCH_MATMUL: (2, 0),
}
"""Inputs that an operator has at least, and the axes of its second one; 0 for any number."""
_MOST_ZEROS, _ALWAYS_ALLOWED = 1000, 1 << 24
"""Of a sparse tensor: zeros for each number that is stored, and the size up to which it may be as empty as it likes."""


def check_structure(model: schema.ModelT, size_bytes: int) -> None:
    """Holds the parts of a file against each other.

    Args:
        model: as the schema's reader unpacks it.
        size_bytes: of the file.

    Raises:
        ValueError: if a tensor's constant has other bytes than its shape and type take or lies beyond the end of the
            file, a size is negative, scales and zero points differ in number, an operator or a signature names a
            tensor that is not there, or a kernel is missing.
    """
    for index, buffer in enumerate(model.buffers):
        if buffer.offset > 1 and buffer.offset + buffer.size > size_bytes:
            raise ValueError(f"buffer {index} ends {buffer.offset + buffer.size - size_bytes} bytes behind the file")
    for subgraph in model.subgraphs:
        for tensor in subgraph.tensors:
            _check_tensor(tensor, model)
        count = len(subgraph.tensors)
        for operator in _each(subgraph.operators):
            _check_operator(operator, subgraph, model)
        _check_numbers("the graph", [*_each(subgraph.inputs), *_each(subgraph.outputs)], count)
    for signature in _each(model.signatureDefs):
        if signature.subgraphIndex >= len(model.subgraphs):
            raise ValueError(f"a signature is of subgraph {signature.subgraphIndex}, which is not there")
        numbers = [entry.tensorIndex for entry in (*_each(signature.inputs), *_each(signature.outputs))]
        _check_numbers("a signature", numbers, len(model.subgraphs[signature.subgraphIndex].tensors))


def _check_tensor(tensor: schema.TensorT, model: schema.ModelT) -> None:
    name = "" if tensor.name is None else tensor.name.decode(errors="replace")
    shape = [int(size) for size in _each(tensor.shape)]
    if min(shape, default=0) < 0:
        raise ValueError(f"the tensor '{name}' has the shape {shape}")
    if len(_each(tensor.shapeSignature)) not in (0, len(shape)):
        raise ValueError(f"the tensor '{name}' of shape {shape} has a signature of {len(tensor.shapeSignature)} sizes")
    grid = tensor.quantization
    if grid is not None and len(_each(grid.scale)) not in (0, len(_each(grid.zeroPoint))):
        raise ValueError(
            f"the tensor '{name}' has {len(_each(grid.scale))} scales and {len(_each(grid.zeroPoint))} zero points"
        )
    buffer = model.buffers[tensor.buffer]
    stored_bytes = buffer.size if buffer.offset > 1 else len(_each(buffer.data))
    kind = _TYPES.get(tensor.type, "")
    if not stored_bytes or kind not in _BITS_OF:
        return
    bits = _BITS_OF[kind]
    if tensor.sparsity is not None:
        if prod(shape) > max(_ALWAYS_ALLOWED, _MOST_ZEROS * stored_bytes * 8 // bits):
            raise ValueError(f"the sparse tensor '{name}' of shape {shape} stores only {stored_bytes:,} bytes")
    elif -(-prod(shape) * bits // 8) != stored_bytes:
        raise ValueError(f"the {kind} constant '{name}' of shape {shape} has {stored_bytes:,} bytes")


def _check_operator(operator: schema.OperatorT, subgraph: schema.SubGraphT, model: schema.ModelT) -> None:
    code = model.operatorCodes[operator.opcodeIndex]
    inputs = [number for number in _each(operator.inputs) if number != -1]
    numbers = [*inputs, *(number for number in _each(operator.outputs) if number != -1)]
    _check_numbers("an operator", numbers, len(subgraph.tensors))
    builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
    least, axes = _KERNELS.get(builtin, (0, 0))
    if len(inputs) < least or (axes and len(_each(subgraph.tensors[inputs[1]].shape)) != axes):
        raise ValueError(f"an operator {_OPERATORS[builtin]} lacks inputs, or a kernel of {axes} axes")


def _check_numbers(what: str, numbers: list[int], count: int) -> None:
    if wrong := [int(number) for number in numbers if not 0 <= number < count]:
        raise ValueError(f"{what} names the tensor {wrong[0]} of {count}")


def _each(vector: Any) -> Any:
    return () if vector is None else vector
