"""Looking over a converted .tflite file: what would fail on a device, or is quietly float."""

from __future__ import annotations

from tfopt.export.presets import PRESETS
from tfopt.export.tflite_file import Operator, TfliteFile
from tfopt.export.verify import check_problems

__all__ = ["audit", "float_operators"]


def audit(
    file: TfliteFile, layers: tuple[tuple[str, ...], ...], quantization: str, *, allow_float: bool
) -> dict[str, list[str]]:
    """Refuses a file that would fail on the device or is quietly float.

    Args:
        file: the file, read back.
        layers: the Keras layers of each operator.
        quantization: the preset it was converted to.
        allow_float: whether a file that should compute on integers may compute in float in places.

    Returns:
        For each kind of operator that computes in float, the layers it belongs to; the most frequent kind first.

    Raises:
        ExportError: with all that is wrong.
    """
    preset = PRESETS[quantization]
    floats = {id(operator) for operator in float_operators(file, float_edges=preset.integer_tensors is None)}
    problems = []
    densified = {
        id(one.outputs[0]) for one in file.operators if one.name == "DENSIFY" and one.outputs[0].dtype == "INT8"
    }
    for operator, computed in zip(file.operators, layers, strict=True):
        writes = _described(operator, computed)
        if operator.name.startswith("CUSTOM"):
            problems.append(f"{writes} is no TFLite builtin")
        elif operator.name in {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"}:
            problems.append(f"{writes} keeps state outside the graph")
        elif any(-1 in tensor.shape for tensor in operator.outputs):
            problems.append(f"{writes} has a dynamic shape")
        elif preset.is_integer and id(operator) in floats and not allow_float:
            problems.append(f"{writes} computes in float")
        elif operator.name == "FULLY_CONNECTED" and any(id(tensor) in densified for tensor in operator.inputs):
            problems.append(
                f"{writes} has sparse int8 weights not in blocks of 16 along the input: XNNPACK refuses them"
            )
    if preset.integer_tensors:
        problems += [
            f"the tensor '{name}' is {tensor.dtype}, not {preset.integer_tensors}"
            for name, tensor in (*file.inputs.items(), *file.outputs.items())
            if tensor.is_float
        ]
    check_problems(
        problems,
        quantization,
        remedy="print(tfopt.quantization.coverage(model)) names the layers without an integer rule; allow_float=True "
        "lets them compute in float.",
    )
    computed_by: dict[str, list[tuple[str, ...]]] = {}
    for operator, computed in zip(file.operators, layers, strict=True):
        if id(operator) in floats:
            computed_by.setdefault(operator.name, []).append(computed)
    most_frequent = sorted(computed_by, key=lambda name: -len(computed_by[name]))
    return {name: list(dict.fromkeys(layer for one in computed_by[name] for layer in one)) for name in most_frequent}


def _described(operator: Operator, layers: tuple[str, ...]) -> str:
    if layers:
        return f"{operator.name} ({'layer' if len(layers) == 1 else 'layers'} {', '.join(map(repr, layers))})"
    return f"{operator.name} (it writes '{operator.outputs[0].name}')" if operator.outputs else operator.name


def float_operators(file: TfliteFile, *, float_edges: bool) -> list[Operator]:
    """The operators that compute in float.

    Args:
        file: what to look at.
        float_edges: whether inputs and outputs may be float: what quantizes an input and what dequantizes an output
            does not count then.
    """
    inputs, outputs = ({id(tensor) for tensor in edge.values()} for edge in (file.inputs, file.outputs))

    def at_an_edge(operator: Operator) -> bool:
        return (operator.name == "QUANTIZE" and id(operator.inputs[0]) in inputs) or (
            operator.name == "DEQUANTIZE" and id(operator.outputs[0]) in outputs
        )

    return [one for one in file.operators if one.is_float and not (float_edges and at_an_edge(one))]
