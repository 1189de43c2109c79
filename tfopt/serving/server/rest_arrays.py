"""Arrays from JSON: nested lists of numbers, booleans or strings as an array of the dtype that is wanted."""

from __future__ import annotations

import base64
import binascii
import json
from itertools import chain
from typing import Any

import ml_dtypes
import numpy as np

from tfopt.serving.server.request_error import Code, RequestError

__all__ = [
    "array_from_json",
    "bytes_from_json",
    "has_large",
    "is_base64",
    "is_float",
    "json_text",
    "json_type",
    "lossless",
]

LONGEST_QUOTE = 200
DTYPE_NAMES = {"object": "string", "float16": "half", "float32": "float", "float64": "double"}


def array_from_json(value: Any, dtype: np.dtype) -> np.ndarray:
    """A JSON value, a list or lists of lists, as an array of a dtype.

    Args:
        value: what a JSON parser made of it.
        dtype: the array's; `object` for strings, which become bytes (`{"b64": "..."}` is decoded).

    Raises:
        RequestError: INVALID_ARGUMENT if the lists are ragged, or a value is not one of the dtype's, or too large
            for it; UNIMPLEMENTED for a dtype that JSON has no values for.

    Example:
        >>> array_from_json([[1, 2.5]], np.dtype("float32"))
        array([[1. , 2.5]], dtype=float32)
        >>> array_from_json([{"b64": "aGk="}], np.dtype(object))
        array([b'hi'], dtype=object)
        >>> array_from_json([[1, 2], [3]], np.dtype("int32"))
        Traceback (most recent call last):
        ...
        tfopt.serving.server.request_error.RequestError: Encountered list at unexpected size: 1 at level: 1 expected \
size: 2

    References: github.com/tensorflow/serving, util/json_tensor.cc, whose messages these are.
    """
    leaves, shape = _leaves(value)
    if dtype.kind == "O":
        array = np.empty(len(leaves), object)
        array[:] = [bytes_from_json(leaf) for leaf in leaves]
    elif dtype.kind == "b":
        _check_types(leaves, {bool}, dtype)
        array = np.array(leaves, dtype)
    elif dtype.kind in "iu":
        _check_types(leaves, {int}, dtype)
        limits = np.iinfo(dtype)
        if leaves and not (limits.min <= min(leaves) and max(leaves) <= limits.max):
            raise _type_error(next(leaf for leaf in leaves if not limits.min <= leaf <= limits.max), dtype)
        array = np.array(leaves, dtype)
    elif is_float(dtype):
        _check_types(leaves, {int, float}, dtype)
        numbers = np.array(leaves, np.float64)
        if has_large(numbers, dtype):
            for leaf in leaves:
                lossless(leaf, dtype)
        array = numbers.astype(dtype)
    else:
        raise RequestError(
            Code.UNIMPLEMENTED, f"Conversion of JSON Value: {json_text(value)} to type: {dtype_name(dtype)}"
        )
    return array.reshape(shape)


def bytes_from_json(value: Any) -> bytes:
    r"""A JSON string as UTF-8, or what `{"b64": "..."}` holds.

    Raises:
        RequestError: INVALID_ARGUMENT if it is neither.

    Example:
        >>> bytes_from_json("hé"), bytes_from_json({"b64": "/9j/"})
        (b'h\xc3\xa9', b'\xff\xd8\xff')
    """
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, dict):
        raise _type_error(value, np.dtype(object))
    if not is_base64(value):
        raise RequestError(
            Code.INVALID_ARGUMENT, f"JSON Value: {json_text(value)} not formatted correctly for base64 data"
        )
    text = "".join(value["b64"].split()).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(Code.INVALID_ARGUMENT, "Unable to base64 decode") from None


def is_base64(value: Any) -> bool:
    """Whether a JSON value is `{"b64": "..."}`."""
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def lossless(number: float, dtype: np.dtype) -> None:
    """Refuses a whole number that a float dtype has no exact value for, and a number beyond its range.

    Raises:
        RequestError: INVALID_ARGUMENT.

    Example:
        >>> lossless(5000, np.dtype("float16"))
        Traceback (most recent call last):
        ...
        tfopt.serving.server.request_error.RequestError: Cannot convert JSON value: 5000 to half without loss of \
precision.
    """
    finfo = ml_dtypes.finfo(dtype)
    largest = _largest_exact(dtype) if isinstance(number, int) else float(finfo.max)
    if abs(number) > largest and abs(number) != float("inf"):
        raise RequestError(
            Code.INVALID_ARGUMENT,
            f"Cannot convert JSON value: {json_text(number)} to {dtype_name(dtype)} without loss of precision.",
        )


def has_large(numbers: np.ndarray, dtype: np.dtype) -> bool:
    """Whether some of the numbers may be more than a float dtype holds, or holds exactly: `lossless` has to look."""
    # NaN is not large: it compares as false.
    return bool((np.abs(numbers) > _largest_exact(dtype)).any())


def is_float(dtype: np.dtype) -> bool:
    """Whether a dtype is a float that requests can have, bfloat16 included."""
    return dtype.kind == "f" or dtype == ml_dtypes.bfloat16


def dtype_name(dtype: np.dtype) -> str:
    """TensorFlow's name of a dtype."""
    return DTYPE_NAMES.get(dtype.name, dtype.name)


def json_text(value: Any) -> str:
    """A JSON value to be quoted in a message, its beginning where it is long."""
    text = ""
    for part in json.JSONEncoder(indent=4).iterencode(value):
        text += part
        if len(text) > LONGEST_QUOTE:
            return text[:LONGEST_QUOTE] + "..."
    return text


def json_type(value: Any) -> str:
    """What JSON calls the type of a value."""
    if isinstance(value, bool):
        return str(value)
    names: dict[type, str] = {type(None): "Null", dict: "Object", list: "Array", str: "String"}
    return names.get(type(value), "Number")


def _leaves(value: Any) -> tuple[list[Any], list[int]]:
    """What stands in the innermost lists, and the sizes of the lists, outermost first."""
    shape: list[int] = []
    level = [value]
    while level and list in (types := set(map(type, level))):
        if len(types) > 1 or len(set(map(len, level))) > 1:
            raise RequestError(Code.INVALID_ARGUMENT, _ragged(level, depth=len(shape)))
        shape.append(len(level[0]))
        level = list(chain.from_iterable(level))
    return level, shape


def _ragged(level: list[Any], *, depth: int) -> str:
    first = level[0]
    if not isinstance(first, list):
        return f"Encountered list at unexpected level: {depth} expected < {depth}"
    for item in level:
        if not isinstance(item, list):
            rank = depth
            while isinstance(first, list):
                rank += 1
                first = first[0] if first else None
            return (
                f"JSON Value: {json_text(item)} found at incorrect level: {depth + 1} in the JSON DOM. "
                f"Expected at level: {rank}"
            )
        if len(item) != len(first):
            break
    return f"Encountered list at unexpected size: {len(item)} at level: {depth} expected size: {len(first)}"


def _check_types(leaves: list[Any], allowed: set[type], dtype: np.dtype) -> None:
    if not set(map(type, leaves)) <= allowed:
        raise _type_error(next(leaf for leaf in leaves if type(leaf) not in allowed), dtype)


def _type_error(value: Any, dtype: np.dtype) -> RequestError:
    return RequestError(
        Code.INVALID_ARGUMENT,
        f"JSON Value: {json_text(value)} Type: {json_type(value)} is not of expected type: {dtype_name(dtype)}",
    )


def _largest_exact(dtype: np.dtype) -> int:
    """The largest whole number up to which a float dtype has them all."""
    return int(2 ** (ml_dtypes.finfo(dtype).nmant + 1) - 1)
