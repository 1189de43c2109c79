"""The limitations of single operators on the Edge TPU.

References: Coral, "TensorFlow models on the Edge TPU", table of supported operations with their known limitations;
logs of edgetpu_compiler 2 to 16 in the issues of google-coral/edgetpu, where a rule is marked "observed".
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from ai_edge_litert import schema_py_generated as schema

from tfopt.export.edge_tpu.support import Support, accepted, refused
from tfopt.export.tflite_file import Operator, Tensor

__all__ = ["ON_CHIP_BYTES", "Limit"]

Limit = Callable[[Operator], Support | None]
"""What a limitation says of an operator; None if it keeps within it."""

ON_CHIP_BYTES = 8 * 2**20
LARGEST_SOFTMAX = 16_000
SURE_ENLARGEMENT = 2.0
# Twofold enlargement was seen to map and 33-fold was not; this is their geometric mean, since nothing is published.
LARGEST_ENLARGEMENT = 8.0


def no_fused_activation(operator: Operator) -> Support | None:
    """Pooling and concatenation take no activation."""
    if operator.options.get("fusedActivationFunction", 0) == schema.ActivationFunctionType.NONE:
        return None
    return refused("it has a fused activation", "apply the activation before it, not after it")


def concatenation(operator: Operator) -> Support | None:
    """A constant may only be one of two parts, and only zeros."""
    constants = [tensor for tensor in operator.inputs if tensor.constant is not None]
    zero_points = [next(iter(tensor.zero_points), 0) for tensor in constants]
    zeros = all((tensor.values() == zero).all() for tensor, zero in zip(constants, zero_points, strict=True))
    if constants and not (zeros and len(operator.inputs) == 2):
        return refused("it joins a constant that is not one of two parts and all zeros", "pad with zeros instead")
    return no_fused_activation(operator)


def equal_dilation(operator: Operator) -> Support | None:
    """Convolutions are dilated alike in both directions; grouped ones are not documented."""
    height, width = (operator.options.get(f"dilation{side}Factor", 1) for side in "HW")
    if height != width:
        return refused(f"its dilation is {height}×{width}", "use the same dilation_rate in both directions")
    if operator.name == "CONV_2D" and operator.inputs[1].static_shape[3] != operator.inputs[0].static_shape[3]:
        return accepted("grouped convolutions are not documented", "unknown")
    return None


def fully_connected(operator: Operator) -> Support | None:
    """Weights in the default order, one row of outputs; scales per unit are accepted, though not documented."""
    if operator.options.get("weightsFormat", 0) != schema.FullyConnectedOptionsWeightsFormat.DEFAULT:
        return refused("its weights are shuffled", "convert without shuffled weights")
    if prod(operator.outputs[0].static_shape[:-1]) > 1:
        return refused(
            f"its output {_sizes(operator.outputs[0])} has more than one row",
            "apply Conv1D(units, 1) or Conv2D(units, 1) instead of Dense to a sequence",
        )
    if len(operator.inputs[1].scales) > 1:
        return accepted("scales per unit are not documented; compiler 16 takes them", "observed")
    return None


def mean(operator: Operator) -> Support | None:
    """Not over the batch; over channels only if their number is a multiple of 4."""
    shape = operator.inputs[0].static_shape
    if len(shape) - 1 in _axes(operator) and shape[-1] % 4:
        return refused(f"it averages over {shape[-1]} channels", "make the number of channels a multiple of 4")
    return not_over_batch(operator)


def not_over_batch(operator: Operator) -> Support | None:
    """Reductions keep the batch."""
    if 0 in _axes(operator):
        return refused("it reduces the batch", "reduce over other axes only")
    return None


def pack(operator: Operator) -> Support | None:
    """Tensors are not stacked along the batch."""
    if operator.options.get("axis", 0) % len(operator.outputs[0].static_shape) == 0:
        return refused("it stacks along the batch", "stack along another axis")
    return None


def pad(operator: Operator) -> Support | None:
    """The batch is not padded."""
    if any(_numbers(operator.inputs[1])[:2]):
        return refused("it pads the batch", "pad other axes only")
    return None


def prelu(operator: Operator) -> Support | None:
    """One slope for each channel."""
    if prod(operator.inputs[1].static_shape[:-1]) > 1:
        return refused(
            f"its slopes {_sizes(operator.inputs[1])} are not one for each channel", "use PReLU(shared_axes=[1, 2])"
        )
    return None


def resize(operator: Operator) -> Support | None:
    """Refused where it would lose precision, which depends on the sizes in a way that is not published."""
    given, made = operator.inputs[0].static_shape, operator.outputs[0].static_shape
    if prod(given) + prod(made) > ON_CHIP_BYTES:
        return refused(
            f"resizing {_sizes(operator.inputs[0])} to {_sizes(operator.outputs[0])} needs more than the memory on "
            "chip",
            "resize a smaller tensor: fewer channels, or a smaller input",
            "observed",
        )
    factor = max(made[axis] / given[axis] for axis in (1, 2))
    if factor > LARGEST_ENLARGEMENT:
        return refused(
            f"enlarging {factor:.3g}-fold may lose precision",
            f"enlarge by at most {LARGEST_ENLARGEMENT:g}, better in steps of 2, or outside the model",
            "observed",
        )
    if factor > SURE_ENLARGEMENT:
        return accepted("it may be refused for its size", "unknown")
    return None


def softmax(operator: Operator) -> Support | None:
    """At most 16,000 classes; several rows are not documented, but taken."""
    shape = operator.inputs[0].static_shape
    if shape and shape[-1] > LARGEST_SOFTMAX:
        return refused(f"it has {shape[-1]:,} classes, more than {LARGEST_SOFTMAX:,}", "return the logits")
    if prod(shape[:-1]) > 1:
        return accepted("several rows are not documented; compiler 16 takes them", "observed")
    return None


def split(operator: Operator) -> Support | None:
    """The batch is not split."""
    axis, tensor = operator.inputs
    if _numbers(axis)[0] % len(tensor.static_shape) == 0:
        return refused("it splits the batch", "split along another axis")
    return None


def squeeze(operator: Operator) -> Support | None:
    """Only leading ones are removed: anything else would move data."""
    shape = operator.inputs[0].static_shape
    named = operator.options.get("squeezeDims")
    removed = {int(axis) % len(shape) for axis in (() if named is None else named)}
    removed = removed or {axis for axis, size in enumerate(shape) if size == 1}
    first = next((axis for axis, size in enumerate(shape) if size > 1), len(shape))
    if any(axis > first for axis in removed):
        return refused(f"it removes an inner axis of {_sizes(operator.inputs[0])}", "use Reshape")
    return None


def strided_slice(operator: Operator) -> Support | None:
    """Slices without steps, ellipsis or new axes."""
    if set(_numbers(operator.inputs[3])) - {1}:
        return refused("it takes every n-th element", "use MaxPooling2D(1, strides=n), or a convolution with strides")
    if operator.options.get("ellipsisMask", 0) or operator.options.get("newAxisMask", 0):
        return refused("it uses an ellipsis or a new axis", "write every axis out, and use Reshape for a new one")
    return None


def tile(operator: Operator) -> Support | None:
    """Not documented, but taken; the batch stays."""
    if _numbers(operator.inputs[1])[0] != 1:
        return refused("it repeats the batch", "repeat other axes only")
    return accepted("not documented; compilers take it", "observed")


def transpose(operator: Operator) -> Support | None:
    """Taken since compiler 16, but not every order."""
    if _numbers(operator.inputs[1])[0] != 0:
        return refused("it moves the batch", "keep the batch first", "observed")
    return accepted("compiler 16 takes some orders and sizes, not all", "observed")


def _axes(operator: Operator) -> set[int]:
    rank = len(operator.inputs[0].static_shape)
    return {axis % rank for axis in _numbers(operator.inputs[1])}


def _numbers(tensor: Tensor) -> list[int]:
    return [] if tensor.constant is None else tensor.values().reshape(-1).tolist()  # None: it has no elements


def _sizes(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.static_shape))
