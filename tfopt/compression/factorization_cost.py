"""What a layer costs, and what the smaller ones would that it can become the product of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras

from tfopt.surgery.graph import Call, Value

__all__ = ["factor_shapes", "factored_multiply_accumulates", "multiply_accumulates"]

_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
_COUNTED = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    *_TRANSPOSED,
)


def factor_shapes(kernel_shape: tuple[int, ...], ranks: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The shapes of the kernels that a kernel becomes the product of.

    Example:
        >>> factor_shapes((64, 32), (5,)), factor_shapes((3, 3, 8, 64), (8, 16))
        ([(64, 5), (5, 32)], [(3, 3, 8, 16), (1, 1, 16, 64)])
    """
    *space, inputs, outputs = kernel_shape
    if len(ranks) == 1:
        return [(*space, inputs, ranks[0]), (*space, ranks[0], outputs)]
    shapes = [(1, 1, inputs, ranks[0]), (*space, *ranks), (1, 1, ranks[1], outputs)]
    return [
        shape for shape, needed in zip(shapes, (ranks[0] < inputs, True, ranks[1] < outputs), strict=True) if needed
    ]


def multiply_accumulates(call: Call) -> int:
    """Those of one call for one sample: positions of the output times the size of the kernel.

    Of a transposed convolution the positions of the input count. An unknown size counts as 1, and a layer that is
    neither Dense nor a convolution as nothing.
    """
    layer = call.operation
    if not isinstance(layer, _COUNTED):
        return 0
    transposed = isinstance(layer, _TRANSPOSED)
    return _positions(layer, call.inputs[0] if transposed else call.output) * math.prod(layer.kernel.shape)


def factored_multiply_accumulates(call: Call, factors: list[tuple[int, ...]]) -> int:
    """Those of the layers with kernels of the shapes `factors` that take the place of one call."""
    layer = call.operation
    positions = _positions(layer, call.output)
    # Before a k×k convolution with strides, the first factor sees every position of the input.
    ahead = len(factors) > 1 and math.prod(factors[1][:-2]) > 1
    counts = [positions] * len(factors)
    if ahead:
        counts[0] = _positions(layer, call.inputs[0], unknown=layer.strides)
    return sum(count * math.prod(shape) for count, shape in zip(counts, factors, strict=True))


def _positions(layer: keras.layers.Layer, value: Value, unknown: Sequence[int] | None = None) -> int:
    first = getattr(layer, "data_format", None) == "channels_first"
    sizes = value.shape[2:] if first else value.shape[1:-1]
    return math.prod(size or other for size, other in zip(sizes, unknown or [1] * len(sizes), strict=True))
