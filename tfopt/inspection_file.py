"""What is in a .tflite or .onnx file and in a SavedModel: their operators or variables, measured."""

from __future__ import annotations

import gzip
from typing import Any

import numpy as np

from tfopt.compression.coding import coded_size_bytes
from tfopt.export import onnx_flops, tflite_flops
from tfopt.export.onnx_file import OnnxFile
from tfopt.export.tflite_file import Operator, Tensor, TfliteFile
from tfopt.inspection_table import Part
from tfopt.pruning.sparse_targets import Target, zeros_use

__all__ = ["measured_part", "onnx_parts", "saved_model_parts", "tflite_parts"]

_KERNEL_OPERATORS = {"FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"}
"""Those whose second input is a kernel."""
_PACKED = {"INT4", "INT2", "STRING", "BFLOAT16"}


def tflite_parts(file: TfliteFile, target: Target | None) -> tuple[Part, ...]:
    """The operators of a .tflite file, in order; a constant that several of them read is counted at the first.

    Args:
        file: as `tfopt.export.tflite_file.read_tflite` reads it.
        target: where zeros are to save time; None leaves `Part.zeros_use` empty.
    """
    parts = []
    counted: set[int] = set()
    for operator in file.operators:
        constants = [tensor for tensor in operator.inputs if tensor.constant is not None and id(tensor) not in counted]
        counted.update(map(id, constants))
        dtypes = " → ".join(
            ", ".join(dict.fromkeys(tensor.dtype.lower() for tensor in tensors if tensor.constant is None))
            for tensors in (operator.inputs, operator.outputs)
        )
        name, shape = (operator.outputs[0].name, operator.outputs[0].shape) if operator.outputs else ("", ())
        arrays = [_constant(tensor) for tensor in constants]
        use = _use_in_tflite(operator, target) if target else ""
        flops = tflite_flops.operator_flops(operator)
        parts.append(measured_part(name.partition(";")[0], operator.name, dtypes, shape, arrays, flops, use))
    return tuple(parts)


def onnx_parts(file: OnnxFile, target: Target | None) -> tuple[Part, ...]:
    """The operators of an .onnx file, in order, without those that only quantize and dequantize.

    An operator that reads dequantized weights is counted with the integers they are stored as. A constant that several
    operators read is counted at the first.

    Args:
        file: as `tfopt.export.onnx_file.read_onnx` reads it.
        target: only "onnx" tells something of the zeros: other targets do not run the file.
    """
    parts = []
    counted: set[int] = set()
    for operator in file.operators:
        if operator.is_rounding:
            continue
        stored = [tensor.stored or tensor for tensor in operator.inputs]
        constants = [tensor for tensor in stored if tensor.constant is not None and id(tensor) not in counted]
        counted.update(map(id, constants))
        dtypes = " → ".join(
            ", ".join(dict.fromkeys(tensor.dtype for tensor in tensors if tensor.constant is None and tensor.dtype))
            for tensors in (stored, operator.outputs)
        )
        arrays = [tensor.constant for tensor in constants if tensor.constant is not None]
        use = zeros_use(target, arrays[0], "other") if target == "onnx" and any(a.ndim > 1 for a in arrays) else ""
        flops = onnx_flops.operator_flops(operator)
        shape = operator.outputs[0].shape or ()
        parts.append(measured_part(operator.node or operator.name, operator.name, dtypes, shape, arrays, flops, use))
    return tuple(parts)


def saved_model_parts(loaded: Any, target: Target | None) -> tuple[Part, ...]:
    """The variables that the signatures of a SavedModel read.

    Args:
        loaded: as `tf.saved_model.load` returns it.
        target: only "serving" tells something of the zeros: other targets do not run a SavedModel.
    """
    variables = {id(variable): variable for one in loaded.signatures.values() for variable in one.variables}
    parts = []
    for variable in variables.values():
        array = variable.numpy()
        name = variable.path if hasattr(variable, "path") else variable.name
        use = zeros_use(target, array, "other") if target == "serving" and array.ndim > 1 else ""
        parts.append(measured_part(name, "variable", variable.dtype.name, tuple(variable.shape), [array], None, use))
    return tuple(parts)


def measured_part(
    name: str,
    kind: str,
    dtypes: str,
    shape: tuple[int | None, ...],
    arrays: list[np.ndarray],
    flops: int | None,
    zeros_use: str,
) -> Part:
    """A part with the figures of its arrays.

    Args:
        name: of the part; likewise `kind`, `dtypes`, `shape` and `flops`.
        kind: see `Part`.
        dtypes: see `Part`.
        shape: see `Part`.
        arrays: its weights.
        flops: see `Part`.
        zeros_use: what a target does with zeros; left out where there are none.

    Example:
        >>> part = measured_part("hidden", "Dense", "float32", (None, 2), [np.float32([[0, 3], [0, 3]])], 8, "no: …")
        >>> part.weights, part.nonzeros, part.distinct_values, part.size_bytes
        (4, 2, 2, 16)
    """
    weights = sum(array.size for array in arrays)
    nonzeros = sum(int(np.count_nonzero(array)) for array in arrays)
    largest = max(arrays, key=lambda array: array.size, default=np.zeros(0))
    return Part(
        name=name,
        kind=kind,
        dtypes=dtypes,
        shape=shape,
        weights=weights,
        nonzeros=nonzeros,
        distinct_values=np.unique(largest).size,
        flops=flops,
        size_bytes=sum(array.nbytes for array in arrays),
        gzip_bytes=len(gzip.compress(b"".join(array.tobytes() for array in arrays))) if arrays else 0,
        coded_bytes=sum(coded_size_bytes(array) for array in arrays),
        zeros_use=zeros_use if nonzeros < weights else "",
    )


def _use_in_tflite(operator: Operator, target: Target) -> str:
    kernel = operator.inputs[1] if operator.name in _KERNEL_OPERATORS else None
    if kernel is None or kernel.constant is None:
        return ""
    weights = _constant(kernel)
    if operator.name == "FULLY_CONNECTED":
        return zeros_use(target, weights, "dense", integer=not kernel.is_float)
    if operator.name == "CONV_2D" and kernel.shape[1:3] == (1, 1):
        return zeros_use(target, weights.reshape(len(weights), -1), "pointwise", integer=not kernel.is_float)
    return zeros_use(target, weights, "other")


def _constant(tensor: Tensor) -> np.ndarray:
    if tensor.dtype in _PACKED or tensor.dtype.lower() not in np.sctypeDict:
        return np.frombuffer(tensor.constant or b"", np.uint8)  # not of whole bytes, or unknown: counted in bytes
    return tensor.values()
