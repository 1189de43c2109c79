"""The operations of a .tflite file's operators, counted from their shapes."""

from __future__ import annotations

from math import prod

from tfopt.export.tflite_file import Operator

__all__ = ["operator_flops"]


def operator_flops(operator: Operator) -> int | None:
    """Counts what an operator computes in one run, or for one sample if its batch is open.

    A multiply-accumulate is two operations, of integers too. Those of kernels and of products of tensors are counted,
    and not what is done once per element, as `tfopt.surgery.flops` does. None where a kernel's use is not known, or a
    size.
    """
    if not operator.outputs or any(-1 in tensor.shape[1:] for tensor in operator.outputs):
        return None
    given = _one_sample(operator.outputs[0].shape)
    match operator.name:
        case "CONV_2D":
            return 2 * prod(given[:-1]) * prod(operator.inputs[1].shape)
        case "DEPTHWISE_CONV_2D":
            return 2 * prod(given) * prod(operator.inputs[1].shape[1:3])
        case "FULLY_CONNECTED":
            return 2 * prod(given) * operator.inputs[1].shape[-1]
        case "TRANSPOSE_CONV":  # the sizes of the output, the kernel, and what is spread
            return 2 * prod(_one_sample(operator.inputs[2].shape)[:-1]) * prod(operator.inputs[1].shape)
        case "BATCH_MATMUL":
            shared = prod(_one_sample(operator.inputs[0].shape)) // max(prod(given[:-1]), 1)
            return 2 * prod(given) * shared
        case "CONV_3D" | "UNIDIRECTIONAL_SEQUENCE_LSTM" | "WHILE" | "SVDF":
            return None
    return 0


def _one_sample(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (1, *shape[1:]) if shape[:1] == (-1,) else shape
