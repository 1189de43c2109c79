"""TensorProto to array and back at the speed of a copy; `tf.make_ndarray` makes a Python number of each value."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from tfopt.serving.server.request_error import Code, RequestError

__all__ = ["read_tensor", "write_tensor"]

_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.float16: "half_val",
    tf.bfloat16: "half_val",
    tf.int8: "int_val",
    tf.int16: "int_val",
    tf.int32: "int_val",
    tf.int64: "int64_val",
    tf.uint8: "int_val",
    tf.uint16: "int_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    tf.bool: "bool_val",
    tf.complex64: "scomplex_val",
    tf.complex128: "dcomplex_val",
    tf.string: "string_val",
}
_TYPES = {dtype.as_datatype_enum: dtype for dtype in _FIELDS}
_BY_NUMPY = {np.dtype(dtype.as_numpy_dtype): dtype for dtype in _FIELDS}
_WIRE_TYPES = {"float_val": "<f4", "double_val": "<f8", "bool_val": "?"}
"""The packed fields whose bytes in a message are those of the array, each with its type there."""
_SHAPE_FIELDS = {"dtype", "tensor_shape", "version_number"}


def read_tensor(tensor: Any, name: str, *, max_bytes: int | None = None) -> np.ndarray:
    """Returns what a request's TensorProto holds, by TensorFlow's rules.

    Values come from `tensor_content` or from the field of the dtype; where that field has fewer values than the
    shape, the last one is repeated, and where there are no values at all they are zeros. An array over
    `tensor_content` is a read-only view of its bytes. More values than the shape has, and values in the field of
    another dtype, are errors here: TensorFlow drops them without a word.

    Args:
        tensor: a TensorProto.
        name: the input's, for messages.
        max_bytes: of an array that is larger than the message it came in, by repeated values.

    Returns:
        The array; strings are `bytes` in an array of objects.

    Raises:
        RequestError: INVALID_ARGUMENT if the values do not fit the shape, or the dtype has no arrays;
            RESOURCE_EXHAUSTED beyond `max_bytes`.

    Example:
        >>> read_tensor(tf.make_tensor_proto([[1.0, 2.0]]), "x")
        array([[1., 2.]], dtype=float32)

    References: tensorflow/core/framework/tensor.proto.
    """
    dtype = _TYPES.get(tensor.dtype)
    if dtype is None:
        known = ", ".join(sorted(each.name for each in _FIELDS))
        raise _refusal(name, f"expected a dtype of {known}. Received: DataType {tensor.dtype}")
    shape = tuple(axis.size for axis in tensor.tensor_shape.dim)
    if tensor.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        shown = "of unknown rank" if tensor.tensor_shape.unknown_rank else shape
        raise _refusal(name, f"expected a shape without unknown sizes. Received: {shown}")
    content = tensor.tensor_content
    if content and dtype == tf.string:
        return _strings_of_content(tensor, shape, name)
    numpy_type = np.dtype(dtype.as_numpy_dtype)
    size = math.prod(shape)
    if content:
        if len(content) != size * numpy_type.itemsize:
            raise _refusal(
                name,
                f"tensor_content of shape {shape} and dtype {dtype.name} has {size * numpy_type.itemsize} bytes. "
                f"Received: {len(content)} bytes",
            )
        if dtype == tf.bool:  # any byte but 0 is true, and NumPy has no such bools
            return (np.frombuffer(content, np.uint8) != 0).reshape(shape)
        return np.frombuffer(content, numpy_type).reshape(shape)
    values = _typed_values(tensor, dtype, numpy_type)
    if len(values) == size:
        return values.reshape(shape)
    if len(values) > size:
        raise _refusal(name, f"shape {shape} has {size} values. Received: {len(values)} values in {_FIELDS[dtype]}")
    if not len(values):
        _check_no_other_field(tensor, dtype, name)
    if max_bytes is not None and size * numpy_type.itemsize > max_bytes:
        raise RequestError(
            Code.RESOURCE_EXHAUSTED,
            f"tensor parsing error: {name}: shape {shape} of {dtype.name} has {size * numpy_type.itemsize} bytes, more "
            f"than the {max_bytes} bytes that this server takes.",
        )
    last = values[-1] if len(values) else (b"" if dtype == tf.string else numpy_type.type())
    full = np.full(size, last, numpy_type)
    full[: len(values)] = values
    return full.reshape(shape)


def write_tensor(tensor: Any, array: np.ndarray) -> None:
    """Fills an empty TensorProto as TF Serving fills those of its responses: values in the field of the dtype.

    Clients read them there (`response.outputs["scores"].float_val`) as well as with `tf.make_ndarray`.

    Args:
        tensor: an empty TensorProto.
        array: numbers, bools, or bytes (an array of objects or of `S`), of any shape.

    Raises:
        RequestError: UNIMPLEMENTED if the dtype has no field.

    Example:
        >>> tensor = tf.make_tensor_proto(0)
        >>> tensor.Clear()
        >>> write_tensor(tensor, np.array([[0.5, 2.0]], np.float32))
        >>> list(tensor.float_val), tf.make_ndarray(tensor)
        ([0.5, 2.0], array([[0.5, 2. ]], dtype=float32))

    References: tensorflow_serving/servables/tensorflow/predict_util.cc.
    """
    dtype = tf.string if array.dtype.kind in "SO" else _BY_NUMPY.get(array.dtype)
    if dtype is None:
        raise RequestError(Code.UNIMPLEMENTED, f"Outputs of dtype {array.dtype} cannot be sent.")
    tensor.dtype = dtype.as_datatype_enum
    sizes = tensor.tensor_shape.dim
    for size in array.shape:
        sizes.add(size=size)
    field = _FIELDS[dtype]
    flat = array.ravel()
    wire_type = _WIRE_TYPES.get(field)
    if wire_type is not None:
        # Extending a repeated field makes a Python number of each value, 25 to 200 times slower than this.
        number = tensor.DESCRIPTOR.fields_by_name[field].number
        data = flat.astype(wire_type, copy=False).tobytes()
        tensor.MergeFromString(_varint(number << 3 | 2) + _varint(len(data)) + data)
        return
    if field == "half_val":
        flat = flat.view(np.uint16)
    elif dtype.is_complex:
        flat = flat.view(flat.real.dtype)
    getattr(tensor, field).extend(flat.tolist())


def _typed_values(tensor: Any, dtype: tf.DType, numpy_type: np.dtype) -> np.ndarray:
    """The values of the dtype's field, as they are, one after the other."""
    field = getattr(tensor, _FIELDS[dtype])
    if dtype == tf.string:
        return np.array([*field, None], object)[:-1]  # None, or NumPy would not take bytes for objects
    values = np.array(field) if len(field) else np.empty(0, np.int32)
    if _FIELDS[dtype] == "half_val":
        return values.astype(np.uint16).view(numpy_type)
    if dtype.is_complex:
        pairs = len(values) // 2 * 2
        return values[:pairs].astype(numpy_type.type().real.dtype).view(numpy_type)
    return values.astype(numpy_type, copy=False)


def _strings_of_content(tensor: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    try:
        return np.asarray(tf.io.parse_tensor(tensor.SerializeToString(), tf.string).numpy(), object).reshape(shape)
    except (tf.errors.OpError, ValueError):
        raise _refusal(name, f"tensor_content is no encoding of strings of shape {shape}") from None


def _check_no_other_field(tensor: Any, dtype: tf.DType, name: str) -> None:
    others = [field.name for field, _ in tensor.ListFields() if field.name not in _SHAPE_FIELDS]
    if others:
        raise _refusal(
            name, f"values of dtype {dtype.name} are in tensor_content or {_FIELDS[dtype]}. Received: {others[0]}"
        )


def _refusal(name: str, reason: str) -> RequestError:
    return RequestError(Code.INVALID_ARGUMENT, f"tensor parsing error: {name}: {reason}.")


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
