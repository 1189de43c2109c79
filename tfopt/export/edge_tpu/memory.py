"""How many bytes of parameters stay on the Edge TPU, and how many are sent to it at every inference."""

from __future__ import annotations

from collections.abc import Iterable

from tfopt.export.edge_tpu.operators import MAPPED_DTYPES
from tfopt.export.tflite_file import Operator

__all__ = ["CACHE_BYTES", "cached_and_streamed", "parameter_bytes"]

CACHE_BYTES = round(7.67 * 2**20)
"""What compilers were seen to offer parameters of the 8 MiB on chip: 7.67 to 7.88 MiB."""

_WITH_BIAS = {
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "TRANSPOSE_CONV",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
}
"""Their inputs from the second on are weights, biases, or computed."""


def parameter_bytes(operators: Iterable[Operator]) -> int:
    """The bytes of weights and other constants that the given operators compute with; shared ones count once.

    Axes, shapes and sizes become part of the program, not of the parameters.
    """
    constants = {}
    for operator in operators:
        biased = operator.name in _WITH_BIAS
        for tensor in operator.inputs[1:] if biased else operator.inputs:
            if tensor.constant is not None and (biased or tensor.dtype in MAPPED_DTYPES):
                constants[id(tensor)] = len(tensor.constant)
    return sum(constants.values())


def cached_and_streamed(size_bytes: int) -> tuple[int, int]:
    """The parts of parameters that stay on chip, and that are sent at every inference.

    Example:
        >>> cached_and_streamed(10_000_000)
        (8042578, 1957422)
        >>> cached_and_streamed(4_096)
        (4096, 0)
    """
    cached = min(size_bytes, CACHE_BYTES)
    return cached, size_bytes - cached
