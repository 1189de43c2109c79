"""The operations of an .onnx file's operators, counted from their shapes."""

from __future__ import annotations

from math import prod

from tfopt.export.onnx_file import OnnxOperator, OnnxTensor

__all__ = ["operator_flops"]

_RECURRENT = {"LSTM", "GRU", "RNN"}
_COUNTED = {"Conv", "ConvTranspose", "MatMul", "Gemm"} | _RECURRENT


def operator_flops(operator: OnnxOperator) -> int | None:
    """Counts what an operator computes for one sample.

    A multiply-accumulate is two operations, of integers too. Those of kernels and of products of tensors are counted,
    and not what is done once per element, as `tfopt.surgery.flops` does. None where a size is not known, or how often
    the operator runs.
    """
    if operator.name not in _COUNTED:
        return 0
    if len(operator.inputs) < (3 if operator.name in _RECURRENT else 2):  # a kernel is missing
        return None
    read, kernel, written = operator.inputs[0], operator.inputs[1], operator.outputs[0]
    sizes = [_sizes(tensor) for tensor in (read, kernel, written)]
    if operator.is_nested or not all(sizes):
        return None
    given, weights, answer = (size for size in sizes if size is not None)
    match operator.name:
        case "Conv":  # the kernel is (outputs, inputs of its group, height, width)
            return 2 * prod(answer) * prod(weights[1:])
        case "ConvTranspose":  # (inputs, outputs of its group, height, width)
            return 2 * prod(given) * prod(weights[1:])
        case "MatMul":
            return 2 * prod(answer) * given[-1]
        case "Gemm":
            return 2 * prod(answer) * prod(weights) // max(answer[-1], 1)
    # (steps, samples, inputs), and the kernels of input and state for all directions and gates
    state = _sizes(operator.inputs[2])
    return None if state is None else 2 * given[0] * (prod(weights) + prod(state))


def _sizes(tensor: OnnxTensor) -> tuple[int, ...] | None:
    if tensor.shape is None or None in tensor.shape:
        return None
    return tuple(size for size in tensor.shape if size is not None)
