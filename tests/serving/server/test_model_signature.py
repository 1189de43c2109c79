"""check_inputs: what a signature takes, and what it refuses."""

import re

import numpy as np
import pytest

from tfopt.serving.server.model_signature import Signature, TensorInfo, check_inputs
from tfopt.serving.server.request_error import Code, RequestError

SIGNATURE = Signature(
    "s",
    "tensorflow/serving/predict",
    {
        "a": TensorInfo("a", np.dtype("float32"), (None, 2)),
        "n": TensorInfo("n", np.dtype("int64"), (None,)),
        "t": TensorInfo("t", np.dtype(object), None),
    },
    {},
)
GOOD = {"a": np.zeros((2, 2), np.float32), "n": np.zeros(2, np.int64), "t": np.array([b"x", "y"], object)}


def test_inputs_that_fit_pass_as_they_are() -> None:
    assert all(checked is GOOD[name] for name, checked in check_inputs(SIGNATURE, GOOD).items())


def test_what_loses_nothing_is_converted() -> None:
    checked = check_inputs(
        SIGNATURE,
        {"a": np.zeros((2, 2), np.float16), "n": np.zeros(2, np.int32), "t": np.array(["x", "y"])},
    )
    assert [checked[name].dtype for name in "ant"] == [np.float32, np.int64, np.dtype(object)]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"n": None},
            r"input size does not match signature: 2!=3 len({a,t}) != len({a,n,t}). Sent extra: {}. "
            "Missing but required: {n}.",
        ),
        ({"b": np.zeros(2)}, "Sent extra: {b}. Missing but required: {}."),
        ({"a": np.zeros((2, 3), np.float32)}, 'input "a" must have the shape [-1,2]. Received: [2,3]'),
        ({"a": np.zeros(2, np.float32)}, 'input "a" must have the shape [-1,2]. Received: [2]'),
        ({"a": np.zeros((2, 2))}, 'input "a" must be of type float32. Received: float64'),
        ({"a": np.array([["x", "y"]] * 2)}, 'input "a" must be of type float32. Received: string'),
        ({"n": np.zeros(2, np.float32)}, 'input "n" must be of type int64. Received: float32'),
        ({"n": np.zeros(2, np.uint64)}, 'input "n" must be of type int64. Received: uint64'),
        ({"t": np.zeros(2)}, 'input "t" must be of type string. Received: float64'),
        ({"t": np.array([b"x", 7], object)}, 'input "t" must be of type string. Received: an element of type int'),
        ({"t": np.array(b"x", object)}, "Batching Run() input tensors must have at least one dimension"),
        ({"n": np.zeros(3, np.int64)}, "must have equal 0th-dimension size. Received: {'a': 2, 'n': 3, 't': 2}"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(changed: dict, message: str) -> None:
    inputs = {name: array for name, array in {**GOOD, **changed}.items() if array is not None}
    with pytest.raises(RequestError, match=re.escape(message)) as caught:
        check_inputs(SIGNATURE, inputs)
    assert caught.value.code == Code.INVALID_ARGUMENT
