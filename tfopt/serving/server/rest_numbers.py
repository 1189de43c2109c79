"""The numbers of a `:predict` body as arrays, without a Python object for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfopt.errors import MissingExtraError
from tfopt.serving.server.loaded_version import TensorInfo
from tfopt.serving.server.rest_arrays import has_large, is_float
from tfopt.serving.server.rest_json import Layout

try:
    import simdjson
except ImportError as error:
    raise MissingExtraError("Serving over HTTP", extra="serving") from error

__all__ = ["ParsedBody", "parse_numbers", "read_numbers"]

# What may stand between the brackets and commas of numbers.
NUMBER_CHARACTERS = b"0123456789+-.eE \t\r\n"
LAYOUTS = {layout.value: layout for layout in Layout}


@dataclass(frozen=True)
class ParsedBody:
    """A body's parts, its numbers as yet unread."""

    signature: str
    layout: Layout
    value: Any
    """One list for the only input; in rows also a list of objects, in columns an object of lists."""


def parse_numbers(body: bytes) -> ParsedBody | None:
    """Takes a body apart; None where it has other keys than it needs, and where it is no strict JSON."""
    try:
        # A parser of its own: one that is shared refuses to go on while anything of its last document is alive.
        document = simdjson.Parser().parse(body)
    except (ValueError, RuntimeError):
        return None
    if not isinstance(document, simdjson.Object):
        return None
    keys = sorted(document.keys())
    if not keys or keys[0] not in LAYOUTS or keys[1:] not in ([], ["signature_name"]):
        return None
    signature = document["signature_name"] if len(keys) > 1 else ""
    return ParsedBody(signature, LAYOUTS[keys[0]], document[keys[0]]) if isinstance(signature, str) else None


def read_numbers(parsed: ParsedBody, body: bytes, inputs: Mapping[str, TensorInfo]) -> dict[str, np.ndarray] | None:
    """An array per input, where a body has nothing but rectangular ones of numbers that their dtypes surely hold.

    Where it has not, `rest_arrays.array_from_json` is slower and has the answer or the error message.

    Args:
        parsed: by `parse_numbers`.
        body: what it was parsed from.
        inputs: the signature's.

    Example:
        >>> body = b'{"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}'
        >>> read_numbers(parse_numbers(body), body, {"x": TensorInfo("x", np.dtype("float32"), (None, 2))})
        {'x': array([[1., 2.],
               [3., 4.]], dtype=float32)}
    """
    if not all(is_float(info.dtype) or info.dtype.kind in "iu" for info in inputs.values()):
        return None
    value = parsed.value
    try:
        if isinstance(value, simdjson.Object):
            return _columns(value, body, inputs) if parsed.layout is Layout.COLUMNS else None
        if not isinstance(value, simdjson.Array) or not len(value):
            return None
        if isinstance(value[0], simdjson.Object):
            return _rows(value, body, inputs) if parsed.layout is Layout.ROWS else None
        ((name, info),) = inputs.items()
        shape, layout = _layout(value)
        return {name: _array([value], info.dtype).reshape(shape)} if _has_layout(body, layout) else None
    except (KeyError, TypeError, ValueError, RuntimeError):  # names, types or numbers are not as expected
        return None


def _columns(value: Any, body: bytes, inputs: Mapping[str, TensorInfo]) -> dict[str, np.ndarray] | None:
    layouts = {name: _layout(value[name]) for name in value.keys()}  # noqa: SIM118 - it is no dict
    expected = b",".join(_key(name) + layout for name, (_, layout) in layouts.items())
    if not _has_layout(body, expected.removeprefix(_key(next(iter(layouts), "")))):
        return None
    return {name: _array([value[name]], info.dtype).reshape(layouts[name][0]) for name, info in inputs.items()}


def _rows(value: Any, body: bytes, inputs: Mapping[str, TensorInfo]) -> dict[str, np.ndarray] | None:
    first = value[0]
    layouts = {name: _layout(first[name]) for name in first.keys()}  # noqa: SIM118
    row = b"{" + b",".join(_key(name) + layout for name, (_, layout) in layouts.items()) + b"}"
    if layouts.keys() != inputs.keys() or not _has_layout(body, b"[" + b",".join([row] * len(value)) + b"]"):
        return None
    return {
        name: _array((item[name] for item in value), info.dtype).reshape(len(value), *layouts[name][0])
        for name, info in inputs.items()
    }


def _layout(value: Any) -> tuple[list[int], bytes]:
    """The shape of a list, going by the first of its lists, and its text if all of them are like that."""
    shape = []
    inner = value
    while isinstance(inner, simdjson.Array):
        shape.append(len(inner))
        if not shape[-1]:
            break
        inner = inner[0]
    if not shape:
        raise TypeError("not a list")
    layout = b""
    for size in reversed(shape):
        layout = b"[" + b",".join([layout] * size) + b"]"
    return shape, layout


def _has_layout(body: bytes, layout: bytes) -> bool:
    """Whether a body is these brackets, commas and keys from its first to its last bracket, and numbers between."""
    return body[body.index(b"[") : body.rindex(b"]") + 1].translate(None, NUMBER_CHARACTERS) == layout


def _key(name: str) -> bytes:
    return f'"{name}":'.encode().translate(None, NUMBER_CHARACTERS)


def _array(lists: Iterable[Any], dtype: np.dtype) -> np.ndarray:
    read = "d" if is_float(dtype) else dtype.kind
    buffers = [np.frombuffer(numbers.as_buffer(of_type=read), f"{'f' if read == 'd' else read}8") for numbers in lists]
    flat = np.concatenate(buffers) if len(buffers) > 1 else buffers[0]
    if is_float(dtype):
        if has_large(flat, dtype):
            raise ValueError("numbers that need a look at each")
    elif flat.size and not (np.iinfo(dtype).min <= flat.min() and flat.max() <= np.iinfo(dtype).max):
        raise ValueError("numbers beyond the dtype's")
    return flat.astype(dtype)
