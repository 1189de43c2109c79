"""What an .onnx file must hold to be taken: valid operators of ONNX's own, and weights of the type asked for."""

from __future__ import annotations

from pathlib import Path

from tfopt.errors import first_line
from tfopt.export.onnx_file import OnnxFile
from tfopt.export.verify import check_problems

__all__ = ["audit_onnx"]

KERNEL_OPERATORS = {"Conv", "ConvTranspose", "MatMul", "Gemm"}
"""Those whose weights every quantization reaches; the first two inputs may be weights."""
WEIGHT_TYPES = {"none": "float32", "float16": "float16", "int8": "int8"}


def audit_onnx(path: Path, file: OnnxFile, quantization: str) -> None:
    """Refuses a file that would fail in a runtime or is quietly float.

    Args:
        path: the file.
        file: what was read from it.
        quantization: what was asked for: "none", "float16" or "int8".

    Raises:
        ExportError: naming the operators.
    """
    problems = [*_invalid(path), *_foreign(file), *_other_weights(file, WEIGHT_TYPES[quantization])]
    if quantization == "int8" and not any(operator.is_rounding for operator in file.operators):
        problems.append("nothing in it is int8: the model has no operator that ONNX Runtime quantizes")
    remedy = "Build the layers it names of other operations, or choose another quantization."
    check_problems(problems, quantization, remedy=remedy)


def _invalid(path: Path) -> list[str]:
    from onnx import checker, shape_inference

    try:
        checker.check_model(path, full_check=True)
    except (checker.ValidationError, shape_inference.InferenceError) as error:
        return [f"ONNX's checker says: {first_line(error)}"]
    return []


def _foreign(file: OnnxFile) -> list[str]:
    return [
        f"{operator.domain}.{operator.name} ({operator.node}) is no operator of ONNX"
        for operator in file.operators
        if operator.domain not in {"", "ai.onnx"}
    ]


def _other_weights(file: OnnxFile, dtype: str) -> list[str]:
    weights = [
        (operator, tensor.stored or tensor)
        for operator in file.operators
        if operator.name in KERNEL_OPERATORS and not operator.is_nested
        for tensor in operator.inputs[:2]
    ]
    return [
        f"{operator.name} ({operator.node}) has {weight.dtype} weights, not {dtype}"
        for operator, weight in weights
        if weight.constant is not None and weight.dtype != dtype
    ]
