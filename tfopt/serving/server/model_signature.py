"""What a model can be asked: its signatures, and whether the inputs of a request fit one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tfopt.serving.server.request_error import Code, RequestError

__all__ = ["Signature", "TensorInfo", "check_inputs"]


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a signature.

    Args:
        name: its key in the signature.
        dtype: NumPy's; object for strings, which are bytes.
        shape: None for an axis of any size, and for a tensor of any rank.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Signature:
    """What a model can be asked: the tensors it takes and gives.

    Args:
        name: its key in the model.
        method: "tensorflow/serving/predict", ".../classify" or ".../regress".
        inputs: by name.
        outputs: by name.
    """

    name: str
    method: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]

    @property
    def batched(self) -> bool:
        """Whether the first axis of every tensor is a batch of any size, so that requests can run together."""
        tensors = (*self.inputs.values(), *self.outputs.values())
        return bool(self.inputs) and all(info.shape is None or info.shape[:1] == (None,) for info in tensors)


def check_inputs(signature: Signature, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inputs of a request as a signature takes them: its names, its dtypes, one batch size.

    A dtype is changed where no value can be: int32 becomes int64 or float64, text becomes bytes.

    Raises:
        RequestError: INVALID_ARGUMENT, with the input, what was expected and what was received.

    Example:
        >>> x = TensorInfo("x", np.dtype("float32"), (None, 2))
        >>> signature = Signature("serving_default", "tensorflow/serving/predict", {"x": x}, {})
        >>> check_inputs(signature, {"x": np.zeros((1, 3), np.float32)})
        Traceback (most recent call last):
        ...
        tfopt.serving.server.request_error.RequestError: input "x" must have the shape [-1,2]. Received: [1,3]
    """
    if inputs.keys() != signature.inputs.keys():
        sent, wanted = sorted(inputs), sorted(signature.inputs)
        raise _invalid(
            f"input size does not match signature: {len(sent)}!={len(wanted)} len({{{','.join(sent)}}}) != "
            f"len({{{','.join(wanted)}}}). Sent extra: {{{','.join(sorted(set(sent) - set(wanted)))}}}. "
            f"Missing but required: {{{','.join(sorted(set(wanted) - set(sent)))}}}."
        )
    arrays = {name: _checked(info, inputs[name]) for name, info in signature.inputs.items()}
    if signature.batched:
        if any(array.ndim == 0 for array in arrays.values()):
            raise _invalid("Batching Run() input tensors must have at least one dimension")
        sizes = {name: len(array) for name, array in arrays.items()}
        if len(set(sizes.values())) > 1:
            raise _invalid(f"Batching Run() input tensors must have equal 0th-dimension size. Received: {sizes}")
    return arrays


def _checked(info: TensorInfo, array: np.ndarray) -> np.ndarray:
    if info.shape is not None and (
        array.ndim != len(info.shape)
        or any(wanted not in (None, size) for wanted, size in zip(info.shape, array.shape, strict=True))
    ):
        expected = ",".join("-1" if size is None else str(size) for size in info.shape)
        received = ",".join(str(size) for size in array.shape)
        raise _invalid(f'input "{info.name}" must have the shape [{expected}]. Received: [{received}]')
    if info.dtype.hasobject:
        return _strings(info, array)
    if array.dtype == info.dtype:
        return array
    if not np.can_cast(array.dtype, info.dtype, "safe"):
        raise _invalid(f'input "{info.name}" must be of type {info.dtype}. Received: {_type_name(array.dtype)}')
    return array.astype(info.dtype)


def _strings(info: TensorInfo, array: np.ndarray) -> np.ndarray:
    # TensorFlow looks at the elements when the batch runs, where one that is no string would fail its neighbours.
    if array.dtype.kind in "SU":
        array = array.astype(object)
    elif not array.dtype.hasobject:
        raise _invalid(f'input "{info.name}" must be of type string. Received: {_type_name(array.dtype)}')
    other = next((type(value).__name__ for value in array.flat if not isinstance(value, bytes | str)), None)
    if other:
        raise _invalid(f'input "{info.name}" must be of type string. Received: an element of type {other}')
    return array


def _type_name(dtype: np.dtype) -> str:
    return "string" if dtype.hasobject or dtype.kind in "SU" else str(dtype)


def _invalid(message: str) -> RequestError:
    return RequestError(Code.INVALID_ARGUMENT, message)
