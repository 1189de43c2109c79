"""Numbers read by simdjson are those of the slower way, or are left to it."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from tfopt.serving.server.loaded_version import TensorInfo
from tfopt.serving.server.request_error import RequestError
from tfopt.serving.server.rest_arrays import array_from_json
from tfopt.serving.server.rest_numbers import parse_numbers, read_numbers

NUMBERS = ["float32", "float64", "float16", "int8", "int32", "int64", "uint8", "uint32", "uint64"]
SHAPES = st_numpy.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)
ARRAYS = st.sampled_from(NUMBERS).flatmap(
    lambda dtype: st_numpy.arrays(
        np.dtype(dtype),
        SHAPES,
        elements={"allow_nan": False, "allow_infinity": False} if dtype.startswith("float") else None,
    )
)


def read(body: bytes, **dtypes: Any) -> dict[str, np.ndarray] | None:
    parsed = parse_numbers(body)
    infos = {name: TensorInfo(name, np.dtype(dtype), None) for name, dtype in dtypes.items()}
    return None if parsed is None else read_numbers(parsed, body, infos)


@given(ARRAYS, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_an_array_is_read_as_json_and_numpy_read_it(array: np.ndarray, indent: int | str | None, first: bool) -> None:
    document = {"inputs": array.tolist()}
    document = {"signature_name": "s [1", **document} if first else document
    body = json.dumps(document, indent=indent).encode()

    fast = read(body, x=array.dtype)

    slow = array_from_json(json.loads(body)["inputs"], array.dtype)
    if fast is not None:
        assert fast["x"].dtype == array.dtype
        assert fast["x"].shape == slow.shape
        np.testing.assert_array_equal(fast["x"], slow)
    elif not first and array.shape[0]:
        # Left to the other way: whole floats so large that not all of them exist.
        assert np.abs(array.astype(np.float64)).max() > 2 ** (np.finfo(array.dtype).nmant + 1) - 1


NESTED = st.recursive(st.integers(0, 3), lambda inner: st.lists(inner, max_size=3), max_leaves=8)


@given(st.lists(NESTED, min_size=1, max_size=3))
def test_ragged_lists_are_never_read(value: list[Any]) -> None:
    fast = read(json.dumps({"instances": value}).encode(), x="int64")
    try:
        slow = array_from_json(value, np.dtype("int64"))
    except RequestError:
        assert fast is None
    else:
        assert fast is None or np.array_equal(fast["x"], slow)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_named_inputs_are_read_in_rows_and_in_columns(rows: int, height: int, width: int) -> None:
    random_state = np.random.RandomState(rows * 9 + height * 3 + width)
    # Digits and an "e" in names stand among the numbers that are left out when layouts are compared.
    x1, e2 = random_state.rand(rows, height), random_state.randint(0, 9, (rows, 2, width))
    columns = json.dumps({"inputs": {"e2": e2.tolist(), "x1": x1.tolist()}, "signature_name": "s"}).encode()
    instances = [{"x1": x.tolist(), "e2": e.tolist()} for x, e in zip(x1, e2, strict=True)]
    for body in (columns, json.dumps({"instances": instances}).encode()):
        arrays = read(body, x1="float64", e2="int32")
        assert arrays is not None
        np.testing.assert_array_equal(arrays["x1"], x1)
        np.testing.assert_array_equal(arrays["e2"], e2)
        assert arrays["e2"].dtype == np.int32


def test_rows_may_name_their_inputs_in_any_order() -> None:
    rows = [{"a1": [1], "a2": [2]}, {"a2": [4], "a1": [3]}]
    arrays = read(json.dumps({"instances": rows}).encode(), a1="int32", a2="int32")
    assert arrays is not None
    assert arrays["a1"].tolist() == [[1], [3]]
    assert arrays["a2"].tolist() == [[2], [4]]


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [[1, 2], [3], [4, 5, 6]]}',  # as many numbers as a rectangle has
        b'{"instances": [[1, true]]}',
        b'{"instances": [["1", 2]]}',
        b'{"instances": [[1, null]]}',
        b'{"instances": [NaN]}',
        b'{"instances": [1e400]}',
        b'{"instances": [16777217]}',
        b'{"instances": []}',
        b'{"instances": 1}',
        b'{"instances": {"x": [1]}}',
        b'{"inputs": [{"x": [1]}]}',
        b'{"instances": [{"x": [1]}, {"y": [1]}]}',
        b'{"instances": [{"x": [1], "y": [1]}]}',
        b'{"instances": [{"x": 1}]}',
        b'{"inputs": {"y": [1]}}',
        b'{"instances": [1], "inputs": [1]}',
        b'{"instances": [1], "comment": [1]}',
        b'{"instances": [1], "signature_name": 5}',
        b'{"instances": [1]',
        b"[1]",
        b"{}",
        b"",
        b'{"instances": [\xff]}',
    ],
)
def test_anything_else_is_left_to_the_other_way(body: bytes) -> None:
    assert read(body, x="float32") is None


@pytest.mark.parametrize(("dtype", "value"), [("int8", 128), ("uint8", -1), ("int32", 1.5), ("uint64", 2**64)])
def test_numbers_that_a_dtype_lacks_are_left_to_the_other_way(dtype: str, value: float) -> None:
    assert read(json.dumps({"instances": [value]}).encode(), x=dtype) is None


@pytest.mark.parametrize("dtype", ["bool", object])
def test_other_dtypes_are_left_to_the_other_way(dtype: Any) -> None:
    assert read(b'{"instances": [1]}', x=dtype) is None


def test_random_floats_come_back_to_the_last_bit() -> None:
    randoms = random.Random(0)
    numbers = np.array([randoms.uniform(-1, 1) * 10 ** randoms.randint(-30, 5) for _ in range(2000)])
    for dtype in (np.float32, np.float64):
        array = numbers.astype(dtype)
        body = json.dumps({"instances": array.tolist()}).encode()
        arrays = read(body, x=dtype)
        assert arrays is not None
        assert arrays["x"].tobytes() == array.tobytes()
