"""Requests hold the samples, in what the model takes."""

import base64
import json

import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays

from tfopt.errors import DataError
from tfopt.load.endpoint import Endpoint
from tfopt.load.model_inputs import InputTensor
from tfopt.load.request_bodies import grpc_body, made_up, rest_body, samples_of

X = InputTensor("x", "float32", (None, 3))
IDS = InputTensor("ids", "int64", (None, None))


@given(arrays.arrays(np.float32, (2, 3), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_floats_survive_json_in_few_digits(x: np.ndarray) -> None:
    body = rest_body({"x": x})
    read = np.array(json.loads(body)["instances"], np.float32)
    np.testing.assert_array_equal(read, x)
    assert len(body) <= 22 + 6 * 18


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16, np.int64, np.uint8, np.bool_])
def test_every_type_survives_json(dtype: type) -> None:
    x = np.array([[0.1, 1, 0], [3, 2, 0.7]]).astype(dtype)
    read = np.array(json.loads(rest_body({"x": x}))["instances"]).astype(dtype)
    np.testing.assert_array_equal(read, x)


def test_several_inputs_are_named_in_each_instance() -> None:
    body = json.loads(rest_body({"a": np.array([1, 2]), "b": np.array([[0.5], [1.5]])}, signature="other"))
    assert body == {"signature_name": "other", "instances": [{"a": 1, "b": [0.5]}, {"a": 2, "b": [1.5]}]}


def test_strings_are_text_where_they_are_and_base64_elsewhere() -> None:
    texts = np.array([b"caf\xc3\xa9", b"\xff\x00", "plain"], object)
    assert json.loads(rest_body({"t": texts}))["instances"] == [
        "café",
        {"b64": base64.b64encode(b"\xff\x00").decode()},
        "plain",
    ]
    nested = np.array([[b"a", b"b"]], object)
    assert json.loads(rest_body({"t": nested}))["instances"] == [["a", "b"]]


def test_a_grpc_body_holds_model_version_and_arrays() -> None:
    import tensorflow as tf
    from tensorflow_serving.apis.predict_pb2 import PredictRequest

    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    request = PredictRequest.FromString(grpc_body({"x": x}, Endpoint.of("grpc://h/m/versions/3", signature="s")))
    assert (request.model_spec.name, request.model_spec.version.value) == ("m", 3)
    assert request.model_spec.signature_name == "s"
    np.testing.assert_array_equal(tf.make_ndarray(request.inputs["x"]), x)
    labelled = PredictRequest.FromString(grpc_body({"x": x}, Endpoint.of("grpc://h/m/labels/new")))
    assert labelled.model_spec.version_label == "new"


def test_samples_are_made_up_within_what_models_take() -> None:
    made = made_up([IDS, X], 50, seed=3)
    assert made["x"].shape == (50, 3)
    assert made["x"].dtype == np.float32
    assert 0 <= made["x"].min() < made["x"].max() < 1
    assert made["ids"].shape == (50, 32)
    assert set(np.unique(made["ids"])) == {0, 1}
    np.testing.assert_array_equal(made["x"], made_up([IDS, X], 50, seed=3)["x"])


@pytest.mark.parametrize("given_", [InputTensor("t", "object", (None,)), InputTensor("t", "float32", None)])
def test_what_cannot_be_made_up_must_be_given(given_: InputTensor) -> None:
    with pytest.raises(DataError, match=r"needs samples\. Give data="):
        made_up([given_], 1)


def test_given_samples_get_the_model_s_types() -> None:
    samples = samples_of({"x": [[1, 2, 3]], "ids": np.ones((1, 5))}, [IDS, X])
    assert (samples["x"].dtype, samples["ids"].dtype) == (np.float32, np.int64)
    assert samples_of(np.ones((2, 3)), [X])["x"].shape == (2, 3)


@pytest.mark.parametrize(
    ("data", "inputs", "message"),
    [
        (np.ones((2, 4)), [X], r"expected shape \('n', 3\) for x. Received: \(2, 4\)"),
        (np.ones(3), [X], r"Received: \(3,\)"),
        (np.ones((0, 3)), [X], "at least one"),
        (np.float32(1), [X], "at least one"),
        (np.ones((2, 3)), [IDS, X], "expected a mapping with arrays for ids, x"),
        ({"y": np.ones((2, 3))}, [X], "expected arrays for x. Received: y"),
        ({"x": np.ones((2, 3)), "ids": np.ones((3, 1))}, [IDS, X], "as many samples for each input"),
    ],
)
def test_samples_that_do_not_fit_are_refused(data: object, inputs: list[InputTensor], message: str) -> None:
    with pytest.raises(DataError, match=message):
        samples_of(data, inputs)
