"""JSON values as arrays: what NumPy makes of them, and TF Serving's messages where they do not fit."""

from __future__ import annotations

import base64
import json
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from tfopt.serving.server.request_error import Code, RequestError
from tfopt.serving.server.rest_arrays import array_from_json, bytes_from_json, json_text

NUMBERS = ["float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"]
SHAPES = st_numpy.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@given(st.sampled_from(NUMBERS).flatmap(lambda dtype: st_numpy.arrays(np.dtype(dtype), SHAPES)))
def test_a_rectangular_value_becomes_the_array_it_was(array: np.ndarray) -> None:
    value = json.loads(json.dumps(array.tolist()))
    read = array_from_json(value, array.dtype)
    assert read.dtype == array.dtype
    # [] says nothing of the axes within it.
    assert read.shape == np.array(value, array.dtype).shape
    np.testing.assert_array_equal(read, np.array(value, array.dtype))


@pytest.mark.parametrize("dtype", [np.dtype("float16"), np.dtype(ml_dtypes.bfloat16)])
def test_small_floats_are_rounded_as_numpy_rounds(dtype: np.dtype) -> None:
    read = array_from_json([0.1, -3, math.nan, math.inf], dtype)
    assert read.dtype == dtype
    expected = np.array([0.1, -3, math.nan, math.inf]).astype(dtype)
    np.testing.assert_array_equal(read.astype(np.float32), expected.astype(np.float32))


@given(st.lists(st.one_of(st.text(), st.binary()), max_size=5))
def test_strings_become_bytes_and_base64_is_decoded(strings: list[str | bytes]) -> None:
    value = [{"b64": base64.b64encode(s).decode()} if isinstance(s, bytes) else s for s in strings]
    expected = [s if isinstance(s, bytes) else s.encode() for s in strings]
    read = array_from_json(value, np.dtype(object))
    assert read.dtype == object
    assert read.tolist() == expected


def test_base64_needs_no_padding() -> None:
    assert bytes_from_json({"b64": "aGk"}) == b"hi"


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        ([[1, 2], [3]], "int32", "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        # As many numbers as a rectangle has.
        ([[1, 2], [3], [4, 5, 6]], "float32", "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ([1, [2]], "float32", "Encountered list at unexpected level: 1 expected < 1"),
        ([[1], 2], "float32", "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        ([1, "a"], "float32", 'JSON Value: "a" Type: String is not of expected type: float'),
        ([True], "float32", "JSON Value: true Type: True is not of expected type: float"),
        ([None], "float64", "JSON Value: null Type: Null is not of expected type: double"),
        ([1.0], "int32", "JSON Value: 1.0 Type: Number is not of expected type: int32"),
        ([1], "bool", "JSON Value: 1 Type: Number is not of expected type: bool"),
        ([1, 300], "uint8", "JSON Value: 300 Type: Number is not of expected type: uint8"),
        ([-1], "uint64", "JSON Value: -1 Type: Number is not of expected type: uint64"),
        ([5], object, "JSON Value: 5 Type: Number is not of expected type: string"),
        ([16777216], "float32", "Cannot convert JSON value: 16777216 to float without loss of precision."),
        ([1e39], "float32", "Cannot convert JSON value: 1e+39 to float without loss of precision."),
        ([2**53], "float64", "Cannot convert JSON value: 9007199254740992 to double without loss of precision."),
        ([{"b64": "?"}], object, "Unable to base64 decode"),
        ([{"b64": 1}], object, 'JSON Value: {\n    "b64": 1\n} not formatted correctly for base64 data'),
        ({"b64": "aGk="}, "int32", 'JSON Value: {\n    "b64": "aGk="\n} Type: Object is not of expected type: int32'),
    ],
)
def test_what_does_not_fit_is_refused_in_tf_servings_words(value: object, dtype: object, message: str) -> None:
    with pytest.raises(RequestError) as refused:
        array_from_json(value, np.dtype(dtype))
    assert refused.value.message == message
    assert refused.value.code is Code.INVALID_ARGUMENT


def test_large_floats_that_a_dtype_holds_pass() -> None:
    assert array_from_json([1e38, 16777216.0, -math.inf], np.dtype("float32")).tolist() == pytest.approx(
        [1e38, 16777216.0, -math.inf]
    )


def test_a_dtype_without_json_values_is_not_implemented() -> None:
    with pytest.raises(RequestError, match="Conversion of JSON Value: 1 to type: complex64") as refused:
        array_from_json(1, np.dtype("complex64"))
    assert refused.value.code is Code.UNIMPLEMENTED


def test_a_long_value_is_quoted_by_its_beginning() -> None:
    text = json_text(list(range(1_000_000)))
    assert text.startswith("[\n    0,\n    1,")
    assert len(text) < 300
    assert text.endswith("...")
