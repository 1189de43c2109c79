"""Bodies of `:predict`: rows and columns, by every parser, and TF Serving's messages where they are wrong."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from tfopt.serving.server.loaded_version import Signature, TensorInfo
from tfopt.serving.server.request_error import Code, RequestError
from tfopt.serving.server.rest_json import Layout
from tfopt.serving.server.rest_request import PredictRequest, predict_request


def request(body: Any, **dtypes: Any) -> PredictRequest:
    inputs = {name: TensorInfo(name, np.dtype(dtype), None) for name, dtype in dtypes.items()}
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return predict_request(text, lambda name: Signature(name, "tensorflow/serving/predict", inputs, {}))


def refusal(body: Any, **dtypes: Any) -> str:
    with pytest.raises(RequestError) as refused:
        request(body, **dtypes)
    assert refused.value.code is Code.INVALID_ARGUMENT
    return refused.value.message


FLOATS = st_numpy.arrays(np.float32, st_numpy.array_shapes(min_dims=1, max_dims=3, max_side=3))


@given(FLOATS, st.sampled_from(Layout), st.booleans(), st.booleans())
def test_every_way_to_write_floats_gives_the_same_array(
    array: np.ndarray, layout: Layout, named: bool, commented: bool
) -> None:
    """NaN is for the standard library, a further key for orjson, the rest for simdjson."""
    value: Any = array.tolist()
    if named:
        value = [{"x": row} for row in value] if layout is Layout.ROWS else {"x": value}
    body = {layout.value: value, **({"comment": [0]} if commented else {})}

    read = request(body, x="float32")

    assert read.layout is layout
    assert read.signature == "serving_default"
    assert read.inputs.keys() == {"x"}
    np.testing.assert_array_equal(read.inputs["x"], array)
    assert read.inputs["x"].dtype == np.float32


def test_strings_and_bytes_go_in_rows_and_columns() -> None:
    for value in (["hi", {"b64": "/w=="}], [{"x": "hi"}, {"x": {"b64": "/w=="}}]):
        assert request({"instances": value}, x=object).inputs["x"].tolist() == [b"hi", b"\xff"]
    assert request({"inputs": {"x": ["hi"]}}, x=object).inputs["x"].tolist() == [b"hi"]
    # One object that is base64 is the value of the only input.
    assert request({"inputs": {"b64": "/w=="}}, x=object).inputs["x"].tolist() == b"\xff"
    assert request({"instances": [{"b64": "/w=="}]}, x=object).inputs["x"].tolist() == [b"\xff"]


def test_several_inputs_of_different_dtypes() -> None:
    rows = [{"age": 7, "name": "a", "seen": True}, {"age": 8, "name": "b", "seen": False}]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    for body in ({"instances": rows}, {"inputs": {**columns, "extra": 0}}):
        inputs = request(body, age="int64", name=object, seen="bool").inputs
        assert {name: array.tolist() for name, array in inputs.items()} == {
            "age": [7, 8],
            "name": [b"a", b"b"],
            "seen": [True, False],
        }


def test_the_signature_is_asked_for_by_its_name() -> None:
    def unknown(name: str) -> Signature:
        raise RequestError(Code.INVALID_ARGUMENT, f"no {name}")

    for value in ([1.5], [math.nan]):
        body = json.dumps({"signature_name": "other", "instances": value}).encode()
        with pytest.raises(RequestError, match="no other"):
            predict_request(body, unknown)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "Missing 'inputs' or 'instances' key"),
        ({"instances": 5}, "Excepting 'instances' to be an list/array"),
        ({"instances": []}, "No values in 'instances' array"),
        ({"instances": [1], "inputs": [1]}, "expecting only one of 'inputs' or 'instances' keys to exist"),
        ({"signature_name": 3, "instances": [1]}, "'signature_name' key must be a string value."),
        (
            {"instances": [[1], [1, 2]]},
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
            "Expecting tensor size: 1 but got: 2",
        ),
        (
            {"instances": [[[1, 2]], [[1], [2]]]},
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
            "Expecting shape [1,2] but got: [2,1]",
        ),
        (
            {"instances": [[[1, 2], [3]]]},
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
            "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
        ),
        (
            {"instances": [[1], ["a"]]},
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
            'JSON Value: "a" Type: String is not of expected type: float',
        ),
        (
            {"instances": [{"x": [1]}, {"y": [1]}]},
            "Failed to process element: 1 key: y of 'instances' list. Error: INVALID_ARGUMENT: "
            "JSON object: does not have named input: y",
        ),
        (
            {"instances": [{"x": [1]}, {"x": [None]}]},
            "Failed to process element: 1 key: x of 'instances' list. Error: INVALID_ARGUMENT: "
            "JSON Value: null Type: Null is not of expected type: float",
        ),
        ({"instances": [{"x": [1]}, [1]]}, "Expecting object but got list at item 1 of input list"),
        ({"instances": [[1], {"x": [1]}]}, "Expecting value/list but got object at item 1 of input list"),
        ({"inputs": {"y": [1]}}, "Missing named input: x in 'inputs' object."),
        ({"inputs": {"x": [[1], [1, 2]]}}, "Encountered list at unexpected size: 2 at level: 1 expected size: 1"),
        ({"inputs": "a"}, 'JSON Value: "a" Type: String is not of expected type: float'),
        (b'{"instances": [1', "JSON Parse error: "),
        (b"[]", "JSON Value: [] Is not object"),
    ],
)
def test_a_wrong_body_is_refused_in_tf_servings_words(body: Any, message: str) -> None:
    assert message in refusal(body, x="float32")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"instances": [[1]]}, "instances is a plain list, but expecting list of objects as multiple input tensors"),
        ({"inputs": [[1]]}, "inputs is a plain value/list, but expecting an object as multiple input tensors"),
        (
            {"instances": [{"x": [1], "y": [1]}, {"x": [1]}]},
            "Failed to process element: 1 of 'instances' list. JSON object: {\n    \"x\": [\n        1\n    ]\n} "
            "keys must be equal to: x,y",
        ),
    ],
)
def test_several_inputs_must_be_named(body: Any, message: str) -> None:
    assert message in refusal(body, x="float32", y="float32")


def test_a_signature_without_inputs_cannot_be_asked() -> None:
    assert refusal({"instances": [1]}) == "Failed to get input map for signature: serving_default"


def test_a_dtype_that_json_lacks_is_not_implemented() -> None:
    with pytest.raises(RequestError, match="to type: complex64") as refused:
        request({"instances": [1]}, x="complex64")
    assert refused.value.code is Code.UNIMPLEMENTED
