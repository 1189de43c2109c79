"""JSON of requests and responses: read with NaN in it, written with arrays in it."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from enum import Enum
from itertools import chain
from typing import Any

import numpy as np

from tfopt.errors import MissingExtraError
from tfopt.export.signature import SIGNATURE
from tfopt.serving.server.request_error import Code, RequestError
from tfopt.serving.server.rest_arrays import is_float, json_text

try:
    import orjson
except ImportError as error:
    raise MissingExtraError("Serving over HTTP", extra="serving") from error

__all__ = ["Layout", "dump_json", "json_value", "load_json", "predict_response", "signature_name"]

NOT_FINITE = {"nan": b"NaN", "inf": b"Infinity", "-inf": b"-Infinity"}


class Layout(Enum):
    """How a `:predict` request is laid out, and its answer after it."""

    ROWS = "instances"
    """A list of instances, each with all inputs: `instances`, answered by `predictions`."""
    COLUMNS = "inputs"
    """An array per input, with all instances: `inputs`, answered by `outputs`."""


def predict_response(outputs: Mapping[str, np.ndarray], layout: Layout) -> bytes:
    """Writes the body of a `:predict` response.

    One output is a list of its values, several are objects by name: one per instance in rows, one in all in
    columns. Floats are the shortest text that is read back as the same float32 or float64; NaN, Infinity and -Infinity
    are written so. The strings of an output whose name ends with `_bytes` are `{"b64": "..."}`.

    Args:
        outputs: an array per output; of dtype `object` with bytes for strings.
        layout: the request's.

    Raises:
        RequestError: INVALID_ARGUMENT if an output cannot be written, or in rows has no batch axis of the others'
            size.

    Example:
        >>> predict_response({"p": np.array([[0.1, np.nan]], np.float32)}, Layout.ROWS)
        b'{"predictions":[[0.1,NaN]]}'
        >>> predict_response({"p": np.array([0.5]), "n_bytes": np.array([b"hi"], object)}, Layout.ROWS)
        b'{"predictions":[{"p":0.5,"n_bytes":{"b64":"aGk="}}]}'
        >>> predict_response({"p": np.array([0.5]), "n": np.array([b"hi"], object)}, Layout.COLUMNS)
        b'{"outputs":{"p":[0.5],"n":["hi"]}}'
    """
    if not outputs:
        raise _invalid("Cannot convert empty tensor map to JSON")
    if layout is Layout.ROWS:
        _check_batch(outputs)
        return dump_json({"predictions": _in_rows(outputs)})
    values = {name: json_value(name, array) for name, array in outputs.items()}
    return dump_json({"outputs": values if len(values) > 1 else values.popitem()[1]})


def load_json(body: bytes) -> dict[str, Any]:
    """The object that a body is; NaN, Infinity and -Infinity are numbers in it.

    Raises:
        RequestError: INVALID_ARGUMENT if it is not one.

    Example:
        >>> load_json(b'{"instances": [NaN]}')
        {'instances': [nan]}
        >>> load_json(b'{"instances": [1,, 2]}')
        Traceback (most recent call last):
        ...
        tfopt.serving.server.request_error.RequestError: JSON Parse error: Expecting value at offset: 17
    """
    if not body:
        raise _invalid("JSON Parse error: The document is empty")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = _load_json_with_nan(body)
    if not isinstance(document, dict):
        raise _invalid(f"JSON Value: {json_text(document)} Is not object")
    return document


def signature_name(document: Mapping[str, Any]) -> str:
    """The signature that a request names; TensorFlow's default where it names none.

    Raises:
        RequestError: INVALID_ARGUMENT if it is no string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise _invalid(
            f"JSON Value: {json_text(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name or SIGNATURE


def dump_json(value: Any) -> bytes:
    """Any value with arrays in it as JSON text."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def json_value(name: str, array: np.ndarray) -> Any:
    """An output as something that `dump_json` writes; see `predict_response`."""
    if array.dtype.kind == "O":
        return _strings(name, array.tolist())
    if is_float(array.dtype):
        if array.dtype.kind != "f":  # bfloat16, of which orjson knows nothing
            array = array.astype(np.float32)
        if not np.isfinite(array).all():
            return orjson.Fragment(_with_nan(array))
    elif array.dtype.kind not in "iub":
        raise _invalid(f"Failed to write JSON value for tensor type: {array.dtype.name}")
    return np.ascontiguousarray(array) if array.ndim else array[()]


def _check_batch(outputs: Mapping[str, np.ndarray]) -> None:
    size = None
    for name, array in outputs.items():
        if not array.ndim:
            raise _invalid(f"Tensor name: {name} has no shape information ")
        if size not in (None, len(array)):
            raise _invalid(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {size}")
        size = len(array)


def _in_rows(outputs: Mapping[str, np.ndarray]) -> Any:
    values = {name: json_value(name, array) for name, array in outputs.items()}
    if len(values) == 1:
        return values.popitem()[1]
    columns = []
    for name, array in outputs.items():
        # An array with NaN is text by now, which has no rows.
        whole = isinstance(values[name], orjson.Fragment)
        columns.append([json_value(name, np.asarray(row)) for row in array] if whole else values[name])
    return [dict(zip(values, row, strict=True)) for row in zip(*columns, strict=True)]


def _strings(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_strings(name, item) for item in value]
    if name.endswith("_bytes"):
        return {"b64": base64.b64encode(value).decode()}
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _invalid(
            f"Failed to write JSON value for tensor type: string. Output '{name}' has bytes that are not UTF-8; "
            f"name it '{name}_bytes' to have them as base64."
        ) from None


def _with_nan(array: np.ndarray) -> bytes:
    # orjson writes null for each number that JSON lacks, in the array's order.
    parts = dump_json(np.ascontiguousarray(array) if array.ndim else array[()]).split(b"null")
    words = [NOT_FINITE[str(number)] for number in array[~np.isfinite(array)].tolist()]
    return b"".join(chain.from_iterable(zip(parts, [*words, b""], strict=True)))


def _load_json_with_nan(body: bytes) -> Any:
    try:
        document = json.loads(body.decode("utf-8-sig"), parse_float=_finite, parse_int=_whole)
        if rb"\u" in body:  # half of a surrogate pair may be among them, which is no text
            json.dumps(document, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise _invalid(f"JSON Parse error: {error.msg} at offset: {error.pos}") from None
    except RecursionError:
        raise _invalid("JSON Parse error: The document is nested too deeply") from None
    except ValueError as error:  # no UTF-8, or a number that is too long or too large
        raise _invalid(f"JSON Parse error: {error}") from None
    return document


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"Number too big to be stored in double: {text[:40]}")
    return number


def _whole(text: str) -> int | float:
    # As TF Serving and orjson read it: what 64 bits do not hold is a double.
    return int(text) if len(text) < 20 or -(2**63) <= int(text) < 2**64 else _finite(text)


def _invalid(message: str) -> RequestError:
    return RequestError(Code.INVALID_ARGUMENT, message)
