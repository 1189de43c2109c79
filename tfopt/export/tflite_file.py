"""Reading a .tflite file back: its operators, tensors and constants, by the public flatbuffer schema."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfopt.errors import DataError
from tfopt.export.sparse_tensor import Dimension, SparseLayout
from tfopt.export.tflite_structure import check_structure

__all__ = ["Operator", "Tensor", "TfliteFile", "read_tflite"]


def _names(enumeration: type) -> dict[int, str]:
    return {code: name for name, code in vars(enumeration).items() if isinstance(code, int)}


_DTYPES = _names(schema.TensorType)
_OPERATORS = _names(schema.BuiltinOperator)


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file.

    Args:
        name: as the converter called it.
        shape: its sizes; -1 where a size is only known when it runs.
        dtype: "INT8", "FLOAT32", …
        scales: the steps of its int8 grid, one or one per channel; empty for a tensor without a grid.
        zero_points: likewise.
        channel_axis: the axis that has a scale per channel, where there are several.
        constant: the bytes, for a constant.
        sparse_layout: where the numbers of a constant belong that is stored without its zeros.
        static_shape: the sizes with which the file was converted, where `shape` has -1; the same elsewhere.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    channel_axis: int
    constant: bytes | None
    sparse_layout: SparseLayout | None = None
    static_shape: tuple[int, ...] = ()

    @property
    def is_float(self) -> bool:
        """Whether it holds floating-point numbers."""
        return "FLOAT" in self.dtype

    def values(self) -> np.ndarray:
        """The numbers of a constant, unscaled.

        Raises:
            DataError: if the tensor is not a constant of whole bytes, or a sparse one is damaged.
        """
        if self.constant is None or self.dtype in {"INT4", "INT2", "STRING", "BFLOAT16"}:
            raise DataError(f"The tensor '{self.name}' ({self.dtype}) is not a constant that NumPy can hold.")
        values = np.frombuffer(self.constant, np.dtype(self.dtype.lower()))
        if self.sparse_layout is None:
            return values.reshape(self.shape)
        try:
            return self.sparse_layout.to_dense(values, self.shape)
        except (IndexError, KeyError, ValueError) as error:
            raise DataError(f"The sparse tensor '{self.name}' is damaged: its layout does not fit ({error}).") from None


@dataclass(frozen=True)
class Operator:
    """One operator of a file.

    Args:
        name: "CONV_2D", …, or "CUSTOM Name".
        version: of the operator.
        inputs: its input tensors, constants included; an absent optional one is left out.
        outputs: its output tensors.
        options: its settings, by the schema's names ("fusedActivationFunction", "axis", …); empty if it has none.
        subgraph: 0 for the main graph; others are the bodies of control flow, or belong to further signatures.
    """

    name: str
    version: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    options: dict[str, Any] = field(default_factory=dict)
    subgraph: int = 0

    @property
    def is_float(self) -> bool:
        """Whether it reads or writes floating-point numbers."""
        return any(tensor.is_float for tensor in (*self.inputs, *self.outputs))


@dataclass(frozen=True)
class TfliteFile:
    """What is in a .tflite file.

    Args:
        inputs: the input tensors by their name in the signature (their own name where the file has none).
        outputs: the output tensors, likewise.
        operators: the operators of all subgraphs, in order.
    """

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    operators: tuple[Operator, ...]

    @property
    def is_full_integer(self) -> bool:
        """Whether no operator, input or output is floating-point."""
        tensors = (*self.inputs.values(), *self.outputs.values())
        return not (any(operator.is_float for operator in self.operators) or any(tensor.is_float for tensor in tensors))

    @property
    def operator_counts(self) -> dict[str, int]:
        """How often each operator occurs, the most frequent first."""
        return dict(Counter(operator.name for operator in self.operators).most_common())


def read_tflite(path: str | Path) -> TfliteFile:
    """Reads a .tflite file.

    Raises:
        DataError: if the file is missing, damaged, or not a TFLite flatbuffer.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"Cannot read {path}. Received: {error}.") from None
    if content[4:8] != b"TFL3":
        raise DataError(f"{path} is not a TFLite file: it lacks the mark 'TFL3'. Received {len(content)} bytes.")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        check_structure(model, len(content))
        return _file(model, content)
    except Exception as error:  # the flatbuffer reader raises whatever the damaged offset leads to
        raise DataError(
            f"{path} is damaged: its flatbuffer cannot be read ({type(error).__name__}: {error})."
        ) from None


def _file(model: schema.ModelT, content: bytes) -> TfliteFile:
    operators: list[Operator] = []
    tables = [[_tensor(tensor, model, content) for tensor in subgraph.tensors] for subgraph in model.subgraphs]
    for index, (subgraph, tensors) in enumerate(zip(model.subgraphs, tables, strict=True)):
        for operator in subgraph.operators if subgraph.operators is not None else ():
            code = model.operatorCodes[operator.opcodeIndex]
            # Codes above 127 do not fit the older, one-byte field.
            builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
            name = _OPERATORS.get(builtin, f"BUILTIN {builtin}")
            if code.customCode is not None:
                name = f"CUSTOM {code.customCode.decode()}"
            operators.append(
                Operator(
                    name,
                    code.version,
                    tuple(tensors[number] for number in operator.inputs if number >= 0),
                    tuple(tensors[number] for number in operator.outputs if number >= 0),
                    {} if operator.builtinOptions is None else dict(vars(operator.builtinOptions)),
                    index,
                )
            )
    main, tensors = model.subgraphs[0], tables[0]
    if model.signatureDefs:
        signature = model.signatureDefs[0]
        inputs, outputs = (
            {entry.name.decode(): tensors[entry.tensorIndex] for entry in entries}
            for entries in (signature.inputs, signature.outputs)
        )
    else:
        inputs, outputs = (
            {tensors[index].name: tensors[index] for index in indices} for indices in (main.inputs, main.outputs)
        )
    return TfliteFile(inputs, outputs, tuple(operators))


def _tensor(tensor: schema.TensorT, model: schema.ModelT, content: bytes) -> Tensor:
    buffer = model.buffers[tensor.buffer]
    constant = None
    if buffer.data is not None and len(buffer.data):
        constant = bytes(bytearray(buffer.data))
    elif buffer.offset > 1:  # stored behind the flatbuffer, as large files and ai-edge-quantizer do
        constant = content[buffer.offset : buffer.offset + buffer.size]
    grid = tensor.quantization
    scales = () if grid is None or grid.scale is None else tuple(float(scale) for scale in grid.scale)
    zero_points = () if grid is None else _integers(grid.zeroPoint)
    static_shape = _integers(tensor.shape)
    return Tensor(
        name="" if tensor.name is None else tensor.name.decode(),
        shape=static_shape if constant else _integers(tensor.shapeSignature) or static_shape,
        dtype=_DTYPES.get(tensor.type, f"TYPE {tensor.type}"),
        scales=scales,
        zero_points=zero_points,
        channel_axis=0 if grid is None else int(grid.quantizedDimension),
        constant=constant,
        sparse_layout=_sparse_layout(tensor.sparsity),
        static_shape=static_shape,
    )


def _sparse_layout(sparsity: schema.SparsityParametersT | None) -> SparseLayout | None:
    if sparsity is None:
        return None
    return SparseLayout(
        _integers(sparsity.traversalOrder),
        _integers(sparsity.blockMap),
        tuple(
            Dimension(level.denseSize)
            if level.format == schema.DimensionType.DENSE
            else Dimension(0, _integers(level.arraySegments.values), _integers(level.arrayIndices.values))
            for level in sparsity.dimMetadata
        ),
    )


def _integers(vector: Any) -> tuple[int, ...]:
    return () if vector is None else tuple(int(value) for value in vector)
