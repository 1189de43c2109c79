"""Which targets compute less for a weight of zero. Most compute zeros like any other number.

References: XNNPACK's sparse inference (Elsen et al. 2020, arXiv:1911.09723); TFLite's sparse fully-connected kernels;
the weight compression of Arm Ethos-U. docs/pruning.md has what was measured.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from tfopt.errors import ConfigError

__all__ = ["TARGETS", "Target", "check_target", "why_pruning_is_not_faster", "zero_blocks", "zeros_use"]

Target = Literal["tflite", "edge_tpu", "ethos_u", "onnx", "serving"]
TARGETS: tuple[str, ...] = get_args(Target)

_LEAST_ZEROS = 2 / 3
"""From this share on sparse kernels were faster than dense ones."""
_BLOCK = 4
"""Inputs of a dense layer that a sparse float kernel takes as one; the int8 one takes 16 and was slower than dense."""
_DENSE_ONLY = {
    "edge_tpu": "no: the Edge TPU multiplies zeros too",
    "onnx": "no: ONNX Runtime multiplies zeros too",
    "serving": "no: TensorFlow multiplies zeros too",
}
_STREAMED = "yes: Ethos-U reads compressed weights"


def check_target(name: str, target: str) -> None:
    """Refuses what is not a target.

    Raises:
        ConfigError: the message begins with `name`.
    """
    if target not in TARGETS:
        raise ConfigError(f"{name} must be one of {', '.join(TARGETS)}. Received: {target!r}.")


def zeros_use(
    target: Target, weights: np.ndarray, kind: Literal["dense", "pointwise", "other"], *, integer: bool = False
) -> str:
    """Whether the zeros of a kernel make a layer faster on a target, and why or under what condition.

    Args:
        target: where the model runs.
        weights: the kernel; of shape `(outputs, inputs)` for a dense layer or a 1×1 convolution.
        kind: "dense", "pointwise" (a 1×1 convolution) or "other".
        integer: whether the weights are int8.

    Example:
        >>> zeros_use("edge_tpu", np.zeros((4, 4)), "dense")
        'no: the Edge TPU multiplies zeros too'
        >>> zeros_use("tflite", np.repeat([[0.0, 0.0, 0.0, 1.0]], 4, axis=-1), "dense")
        'can: Dense in blocks of 1×4, with export_tflite(sparse_weights=True)'
    """
    if target in _DENSE_ONLY:
        return _DENSE_ONLY[target]
    if target == "ethos_u":
        return _STREAMED
    if kind == "dense" and integer:
        return "no: in int8, sparse kernels were slower than dense ones"
    if kind == "dense":
        share = zero_blocks(weights, _BLOCK)
        if share >= _LEAST_ZEROS:
            return f"can: Dense in blocks of 1×{_BLOCK}, with export_tflite(sparse_weights=True)"
        return f"no: {share:.0%} of the blocks of 1×{_BLOCK} along the input are zero, {_LEAST_ZEROS:.0%} are needed"
    if kind == "pointwise" and not integer and np.mean(weights == 0) >= _LEAST_ZEROS:
        return "can on ARM in float: 1×1 convolution; not on x86"
    return "no: TFLite multiplies zeros too"


def why_pruning_is_not_faster(target: Target, *, block_columns: int | None) -> str | None:
    """Why a model that is pruned so will not be faster on a target; None where it can be.

    Args:
        target: where the model will run.
        block_columns: input channels of the blocks that are zeroed as one; None for single weights.

    Example:
        >>> why_pruning_is_not_faster("onnx", block_columns=4)
        'ONNX Runtime multiplies zeros too'
        >>> why_pruning_is_not_faster("ethos_u", block_columns=None)
    """
    if target in _DENSE_ONLY:
        return _DENSE_ONLY[target].removeprefix("no: ")
    if target == "tflite" and (block_columns is None or block_columns % _BLOCK):
        return (
            "TFLite multiplies single zeros too; Dense layers gain from block=(1, 4), exported in float32 with "
            "sparse_weights=True"
        )
    return None


def zero_blocks(weights: np.ndarray, block: int) -> float:
    """The share of blocks of `1 × block` along the last axis that hold zeros alone."""
    rows = weights.reshape(-1, weights.shape[-1])
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[-1] % block)))
    return float(np.mean(~padded.reshape(len(rows), -1, block).any(axis=-1)))
