"""An independent NumPy interpreter of int8 .tflite files: integers only, as TensorFlow Lite's specification has it.

It knows the operators of the golden networks and shares nothing with `tfopt.quantization`. The reader gives no
operator options, so strides and padding are told from the shapes; a fused ReLU needs nothing where the grid of its
output begins at zero, and the golden networks have none elsewhere.

References: TensorFlow Lite 8-bit quantization specification; Jacob et al. 2018, arXiv:1712.05877, section 2.2.
"""

import math

import numpy as np


def run_reference(file, inputs):
    """Returns the int8 outputs of a `TfliteFile`, by signature name, for int8 inputs with a batch axis of 1."""
    values = {tensor.name: inputs[name] for name, tensor in file.inputs.items()}
    for operator in file.operators:
        arrays = [values[tensor.name] if tensor.constant is None else tensor.values() for tensor in operator.inputs]
        output = operator.outputs[0]
        values[output.name] = OPERATORS[operator.name](arrays, operator.inputs, output)
    return {name: values[tensor.name] for name, tensor in file.outputs.items()}


def rescale(accumulator, multiplier):
    """Multiplies integers by a positive real number, as a 31-bit integer and two rounding shifts."""
    mantissa, exponent = math.frexp(multiplier)
    fixed = round(mantissa * 2**31)
    if fixed == 2**31:
        fixed, exponent = 2**30, exponent + 1
    product = (accumulator.astype(np.int64) << max(exponent, 0)) * fixed
    # The high 32 bits of twice the product, rounded with ties upward ...
    high = (product + 2**30) >> 31
    # ... and a right shift that rounds with ties away from zero.
    shift = max(-exponent, 0)
    remainder = high & ((1 << shift) - 1)
    threshold = (((1 << shift) - 1) >> 1) + (high < 0)
    return (high >> shift) + (remainder > threshold)


def to_output(accumulator, multipliers, output):
    """Brings accumulators of shape `(..., channels)` to the output's grid."""
    channels = [rescale(accumulator[..., c], m) for c, m in enumerate(multipliers)]
    return np.clip(np.stack(channels, -1) + output.zero_points[0], -128, 127).astype(np.int8)


def weighted(accumulator, bias, tensors, output):
    """What every layer with weights does to its int32 accumulators."""
    total = accumulator + bias
    assert np.abs(total).max() < 2**31, "an int32 accumulator would overflow"
    scales = np.broadcast_to(tensors[1].scales, total.shape[-1:])
    return to_output(total, tensors[0].scales[0] * scales / output.scales[0], output)


def patches(x, height, width, output):
    """The windows of a zero-centred image, of shape `(n, rows, columns, height, width, channels)`, with stride 1."""
    rows, columns = (size - x.shape[axis] for axis, size in ((1, output.shape[1]), (2, output.shape[2])))
    missing = rows + height - 1, columns + width - 1  # none for "valid", size - 1 for "same"
    padding = [(total // 2, total - total // 2) for total in missing]
    padded = np.pad(x, [(0, 0), *padding, (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    return np.moveaxis(windows, 3, -1)


def centred(x, tensor):
    return x.astype(np.int64) - tensor.zero_points[0]


def convolution(arrays, tensors, output):
    x, kernel, bias = arrays
    windows = patches(centred(x, tensors[0]), *kernel.shape[1:3], output)
    return weighted(np.einsum("nrchwi,ohwi->nrco", windows, kernel.astype(np.int64)), bias, tensors, output)


def depthwise_convolution(arrays, tensors, output):
    x, kernel, bias = arrays
    windows = patches(centred(x, tensors[0]), *kernel.shape[1:3], output)
    return weighted(np.einsum("nrchwi,hwi->nrci", windows, kernel[0].astype(np.int64)), bias, tensors, output)


def fully_connected(arrays, tensors, output):
    x, kernel, bias = arrays
    return weighted(centred(x, tensors[0]) @ kernel.T.astype(np.int64), bias, tensors, output)


def add(arrays, tensors, output):
    # Both inputs are brought to a common finer grid first, with 20 bits of room.
    common = 2 * max(tensor.scales[0] for tensor in tensors)
    total = sum(
        rescale(centred(x, tensor) << 20, tensor.scales[0] / common) for x, tensor in zip(arrays, tensors, strict=True)
    )
    sums = rescale(total, common / (2**20 * output.scales[0])) + output.zero_points[0]
    return np.clip(sums, -128, 127).astype(np.int8)


def max_pool(arrays, tensors, output):
    n, rows, columns, channels = arrays[0].shape
    high, wide = rows // output.shape[1], columns // output.shape[2]
    return arrays[0].reshape(n, rows // high, high, columns // wide, wide, channels).max(axis=(2, 4))


def concatenation(arrays, tensors, output):
    assert {(tensor.scales, tensor.zero_points) for tensor in tensors} == {(output.scales, output.zero_points)}
    return np.concatenate(arrays, axis=-1)


def softmax(arrays, tensors, output):
    # The specification fixes the output's grid alone; each kernel has an exponential of its own.
    assert (output.scales, output.zero_points) == ((1 / 256,), (-128,))
    powers = np.exp(tensors[0].scales[0] * (arrays[0].astype(np.float64) - arrays[0].max(-1, keepdims=True)))
    return np.clip(np.round(256 * powers / powers.sum(-1, keepdims=True)) - 128, -128, 127).astype(np.int8)


def reshape(arrays, tensors, output):
    return arrays[0].reshape(output.shape)


OPERATORS = {
    "ADD": add,
    "CONCATENATION": concatenation,
    "CONV_2D": convolution,
    "DEPTHWISE_CONV_2D": depthwise_convolution,
    "FULLY_CONNECTED": fully_connected,
    "MAX_POOL_2D": max_pool,
    "RESHAPE": reshape,
    "SOFTMAX": softmax,
}
