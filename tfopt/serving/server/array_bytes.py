"""Named arrays as one piece of bytes and back, without pickle, whose bytes can run code."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import ml_dtypes  # noqa: F401 - makes NumPy know bfloat16 by its name
import numpy as np

from tfopt.errors import DataError

__all__ = ["from_bytes", "to_bytes"]

MAGIC = b"tfopt-arrays-1\n\0"
ALIGNMENT = 16
"""Of every array, counted from the start, so that what reads it finds numbers where it expects them."""


def to_bytes(arrays: Mapping[str, np.ndarray], *, tag: bytes = b"") -> bytes:
    """Writes arrays one after the other, behind a header in JSON.

    Args:
        arrays: numbers, booleans, or object arrays of bytes or str.
        tag: bytes that `from_bytes` must be given again.

    Raises:
        DataError: if an array holds something else.

    Example:
        >>> content = to_bytes({"y": np.array([1.5, 2.5])}, tag=b"a")
        >>> from_bytes(content, tag=b"a")
        {'y': array([1.5, 2.5])}
    """
    header: list[list[Any]] = []
    parts = []
    for name, array in arrays.items():
        if array.dtype.hasobject:
            items = [_encoded(name, item) for item in array.flat]
            header.append([name, "object", array.shape, [[kind, len(text)] for kind, text in items]])
            parts.append(b"".join(text for _, text in items))
        else:
            # Number types that others registered, such as bfloat16, are known by their name alone.
            dtype = array.dtype.name if array.dtype.isbuiltin == 2 else array.dtype.str
            header.append([name, dtype, array.shape, None])
            parts.append(np.ascontiguousarray(array).tobytes())
    told = json.dumps({"tag": tag.hex(), "arrays": header}).encode()
    start = MAGIC + struct.pack("<Q", len(told)) + told
    return b"".join(_padded(part) for part in (start, *parts))


def from_bytes(content: bytes, *, tag: bytes = b"") -> dict[str, np.ndarray]:
    """Reads what `to_bytes` wrote; the arrays are read-only.

    Raises:
        DataError: if it wrote something else, or with another tag.
    """
    try:
        if not content.startswith(MAGIC):
            raise ValueError("it does not begin as expected")
        size = struct.unpack_from("<Q", content, len(MAGIC))[0]
        begin = len(MAGIC) + 8
        header = json.loads(content[begin : begin + size])
        if header["tag"] != tag.hex():
            raise ValueError("it belongs to another key")
        offset = _aligned(begin + size)
        arrays = {}
        for name, dtype, shape, items in header["arrays"]:
            if dtype == "object":
                arrays[name] = _texts(content, offset, shape, items)
                offset += _aligned(sum(length for _, length in items))
            else:
                count = math.prod(shape)
                # An empty array may lie at the very end, where frombuffer finds no bytes.
                flat = np.frombuffer(content, np.dtype(dtype), count, offset) if count else np.empty(0, dtype)
                arrays[name] = flat.reshape(shape)
                arrays[name].flags.writeable = False
                offset += _aligned(arrays[name].nbytes)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, struct.error) as error:
        raise DataError(f"from_bytes: expected arrays as to_bytes writes them. Received: {error}.") from None
    return arrays


def _encoded(name: str, item: object) -> tuple[str, bytes]:
    if isinstance(item, bytes):
        return "bytes", item
    if isinstance(item, str):
        return "str", item.encode("utf-8", "surrogatepass")
    raise DataError(f"to_bytes: expected bytes or str in the object array {name}. Received: {type(item).__name__}.")


def _texts(content: bytes, offset: int, shape: list[int], items: list[tuple[str, int]]) -> np.ndarray:
    array = np.empty(len(items), object)
    for index, (kind, length) in enumerate(items):
        text = content[offset : offset + length]
        if len(text) != length:
            raise ValueError("it is cut off")
        array[index] = text if kind == "bytes" else text.decode("utf-8", "surrogatepass")
        offset += length
    array = array.reshape(shape)
    array.flags.writeable = False
    return array


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _padded(part: bytes) -> bytes:
    return part.ljust(_aligned(len(part)), b"\0")
