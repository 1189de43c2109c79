"""JSON of responses, and of requests that only the standard library reads."""

from __future__ import annotations

import base64
import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from tfopt.serving.server.request_error import Code, RequestError
from tfopt.serving.server.rest_json import Layout, load_json, predict_response, signature_name

DTYPES = ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64", "bool"]
ROWS = st_numpy.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)
OUTPUTS = st.sampled_from(DTYPES).flatmap(lambda dtype: st_numpy.arrays(np.dtype(dtype), ROWS))


def refusal(body: bytes) -> str:
    with pytest.raises(RequestError) as refused:
        load_json(body)
    assert refused.value.code is Code.INVALID_ARGUMENT
    return refused.value.message


@given(OUTPUTS, st.sampled_from(Layout))
def test_an_output_is_read_back_to_the_last_bit_nan_and_infinity_included(array: np.ndarray, layout: Layout) -> None:
    document = json.loads(predict_response({"y": array}, layout))
    (value,) = document.values()
    np.testing.assert_array_equal(np.array(value, array.dtype).reshape(array.shape), array)


def test_floats_are_the_shortest_text_of_their_dtype() -> None:
    for dtype in (np.float32, np.float64):
        assert predict_response({"y": np.array([0.1, 3, 1e-3], dtype)}, Layout.ROWS) == (
            b'{"predictions":[0.1,3.0,0.001]}'
        )
    for small in (np.float16, ml_dtypes.bfloat16):
        assert predict_response({"y": np.array([0.5, 3]).astype(small)}, Layout.ROWS) == b'{"predictions":[0.5,3.0]}'


def test_several_outputs_are_objects_by_name() -> None:
    outputs = {
        "scores": np.array([[0.5, np.nan], [1, -np.inf]], np.float32),
        "class": np.array([3, 4]),
        "name": np.array([b"null", b"\xc3\xa9"], object),
        "image_bytes": np.array([[b"\xff", b""], [b"a", b"b"]], object),
    }
    rows = [
        {"scores": [0.5, "NaN"], "class": 3, "name": "null", "image_bytes": [{"b64": "/w=="}, {"b64": ""}]},
        {"scores": [1.0, "-Infinity"], "class": 4, "name": "é", "image_bytes": [{"b64": "YQ=="}, {"b64": "Yg=="}]},
    ]
    columns = {name: [row[name] for row in rows] for name in outputs}

    def read(layout: Layout) -> Any:
        return json.loads(predict_response(outputs, layout), parse_constant=str)

    assert read(Layout.ROWS) == {"predictions": rows}
    assert read(Layout.COLUMNS) == {"outputs": columns}


def test_scalars_per_instance_that_are_not_numbers_are_written_in_rows() -> None:
    outputs = {"a": np.array([np.inf, 1.5], np.float32), "b": np.array([True, False])}
    assert predict_response(outputs, Layout.ROWS) == (b'{"predictions":[{"a":Infinity,"b":true},{"a":1.5,"b":false}]}')


def test_an_output_of_any_memory_layout_is_written() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert json.loads(predict_response({"y": array}, Layout.COLUMNS)) == {"outputs": array.tolist()}
    assert predict_response({"y": np.array(2.5, np.float32)}, Layout.COLUMNS) == b'{"outputs":2.5}'


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({}, "Cannot convert empty tensor map to JSON"),
        ({"y": np.array(1.0)}, "Tensor name: y has no shape information "),
        ({"x": np.zeros(2), "y": np.zeros(3)}, "Tensor name: y has inconsistent batch size: 3 expecting: 2"),
        ({"y": np.zeros(1, complex)}, "Failed to write JSON value for tensor type: complex128"),
        (
            {"y": np.array([b"\xff"], object)},
            "Failed to write JSON value for tensor type: string. Output 'y' has bytes that are not UTF-8; name it "
            "'y_bytes' to have them as base64.",
        ),
    ],
)
def test_outputs_that_rows_cannot_hold_are_refused(outputs: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(RequestError) as refused:
        predict_response(outputs, Layout.ROWS)
    assert refused.value.message == message


def test_bytes_go_out_and_come_back_as_base64() -> None:
    data = bytes(range(256))
    body = predict_response({"image_bytes": np.array([data], object)}, Layout.ROWS)
    assert base64.b64decode(json.loads(body)["predictions"][0]["b64"]) == data


def test_nan_and_infinity_are_numbers() -> None:
    values = load_json(b'{"x": [NaN, Infinity, -Infinity, 1, 1.5, 18446744073709551616]}')["x"]
    assert repr(values) == "[nan, inf, -inf, 1, 1.5, 1.8446744073709552e+19]"
    assert load_json(b'\xef\xbb\xbf{"x": 1}') == {"x": 1}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b'{"x": 1', "JSON Parse error: Expecting ',' delimiter at offset: 7"),
        (b'{"x": nul}', "JSON Parse error: Expecting value at offset: 6"),
        (b'{"x": 1} {}', "JSON Parse error: Extra data at offset: 9"),
        (b'{"x": 1e400}', "JSON Parse error: Number too big to be stored in double: 1e400"),
        (b'{"x": "\\ud800"}', "JSON Parse error: 'utf-8' codec can't encode"),
        (b'{"x": "\xff"}', "JSON Parse error: 'utf-8' codec can't decode"),
        (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "JSON Parse error: The document is nested too deeply"),
        (b'{"x": ' + b"9" * 5000 + b"}", "JSON Parse error: "),
        (b"[1]", "JSON Value: [\n    1\n] Is not object"),
        (b"NaN", "JSON Value: NaN Is not object"),
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes, message: str) -> None:
    assert refusal(body).startswith(message)


def test_a_request_without_a_signature_has_the_default_one() -> None:
    assert signature_name({}) == signature_name({"signature_name": ""}) == "serving_default"
    with pytest.raises(RequestError, match="'signature_name' key must be a string value"):
        signature_name({"signature_name": 5})
