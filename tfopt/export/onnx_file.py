"""Reading an .onnx file back: its operators, tensors and constants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfopt.errors import DataError, first_line

__all__ = ["OnnxFile", "OnnxOperator", "OnnxTensor", "read_onnx"]


@dataclass(frozen=True, eq=False)
class OnnxTensor:
    """One tensor of a file.

    Args:
        name: as the converter called it.
        shape: its sizes for one sample where that tells them, None for a size that stays unknown; None where even
            their number is.
        dtype: "float32", "uint8", …; empty where it is unknown.
        constant: its values, for a constant.
        stored: the integer tensor that it is dequantized from; None for a tensor that is not.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str
    constant: np.ndarray | None = None
    stored: OnnxTensor | None = None


@dataclass(frozen=True, eq=False)
class OnnxOperator:
    """One operator of a file.

    Args:
        name: "Conv", …
        domain: of which set of operators it is; empty for ONNX's own.
        node: what the converter called this one, which holds the layer's name.
        inputs: its input tensors, constants included; an absent optional one is left out.
        outputs: its output tensors.
        is_nested: whether it is in the body of a loop or a branch, and so runs any number of times.
    """

    name: str
    domain: str
    node: str
    inputs: tuple[OnnxTensor, ...]
    outputs: tuple[OnnxTensor, ...]
    is_nested: bool = False

    @property
    def is_rounding(self) -> bool:
        """Whether it does nothing but quantize or dequantize."""
        return self.name in {"QuantizeLinear", "DequantizeLinear"}


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """What is in an .onnx file.

    Args:
        opset: the version of ONNX's operators.
        inputs: the input tensors by name; a size that is open is None.
        outputs: the output tensors, likewise.
        operators: the operators in order, those of loops and branches behind the operator that holds them.
    """

    opset: int
    inputs: dict[str, OnnxTensor]
    outputs: dict[str, OnnxTensor]
    operators: tuple[OnnxOperator, ...]

    @property
    def operator_counts(self) -> dict[str, int]:
        """How often each operator occurs, the most frequent first."""
        return dict(Counter(operator.name for operator in self.operators).most_common())


def read_onnx(path: str | Path) -> OnnxFile:
    """Reads an .onnx file.

    Raises:
        DataError: if the file is missing, damaged, or not an ONNX model.
    """
    import onnx

    path = Path(path)
    try:
        model = onnx.load(path)
        opset = next((one.version for one in model.opset_import if one.domain in {"", "ai.onnx"}), None)
        if opset is None or not model.graph.output:  # an empty file is a valid protobuf message
            raise DataError(f"{path} is not an ONNX file: it has no operators of ONNX, or no output.")
        inputs, outputs = (
            {value.name: _described(value) for value in values} for values in (model.graph.input, model.graph.output)
        )
        return OnnxFile(opset, inputs, outputs, tuple(_operators(_for_one_sample(model).graph, {})))
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"Cannot read {path}. Received: {error}.") from None
    except Exception as error:  # the protobuf reader, the checker and shape inference raise errors of their own
        raise DataError(f"{path} is not an ONNX file, or is damaged: {first_line(error)}.") from None


def _for_one_sample(model: Any) -> Any:
    """The model with one sample for its batch, and with the shapes of all tensors that follow from it."""
    import onnx

    for value in (*model.graph.input, *model.graph.output):
        for batch in value.type.tensor_type.shape.dim[:1]:
            if not batch.HasField("dim_value"):
                batch.dim_value = 1
    del model.graph.value_info[:]  # the sizes they leave open depend on the batch
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _operators(graph: Any, outer: dict[str, OnnxTensor], *, is_nested: bool = False) -> Iterator[OnnxOperator]:
    from onnx import helper, numpy_helper

    tensors = dict(outer)
    tensors |= {value.name: _described(value) for value in (*graph.input, *graph.output, *graph.value_info)}
    tensors |= {tensor.name: _constant(tensor.name, numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensors[node.output[0]] = _constant(node.output[0], numpy_helper.to_array(node.attribute[0].t))
            continue
        texts = (node.op_type, node.domain, node.name, *node.input, *node.output)
        if not all(isinstance(text, str) for text in texts):  # protobuf gives bytes for what is no UTF-8
            raise ValueError(f"an operator has a name that is no text: {node.op_type!r} {node.name!r}")
        if not any(node.output):
            raise ValueError(f"the operator {node.op_type} '{node.name}' has no output")
        inputs = tuple(tensors.get(name) or OnnxTensor(name, None, "") for name in node.input if name)
        for name in node.output:
            known = tensors.get(name) or OnnxTensor(name, None, "")
            stored = inputs[0] if node.op_type == "DequantizeLinear" else None
            tensors[name] = OnnxTensor(known.name, known.shape, known.dtype, stored=stored)
        outputs = tuple(tensors[name] for name in node.output if name)
        yield OnnxOperator(node.op_type, node.domain, node.name, inputs, outputs, is_nested)
        for attribute in node.attribute:
            value = helper.get_attribute_value(attribute)
            for body in value if isinstance(value, list) else [value]:
                if hasattr(body, "initializer"):
                    yield from _operators(body, tensors, is_nested=True)


def _constant(name: str, values: np.ndarray) -> OnnxTensor:
    return OnnxTensor(name, values.shape, str(values.dtype), values)


def _described(value: Any) -> OnnxTensor:
    from onnx import helper

    if not isinstance(value.name, str):
        raise ValueError(f"a tensor has a name that is no text: {value.name!r}")
    tensor = value.type.tensor_type
    shape = tuple(size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim)
    dtype = str(helper.tensor_dtype_to_np_dtype(tensor.elem_type)) if tensor.elem_type else ""
    return OnnxTensor(value.name, shape if tensor.HasField("shape") else None, dtype)
