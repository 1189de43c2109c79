"""Bodies of `:classify` and `:regress`, and their responses."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tfopt.serving.server.request_error import RequestError
from tfopt.serving.server.rest_examples import classify_response, examples_request, regress_response


def features(example: Any) -> dict[str, tuple[str | None, list[Any]]]:
    return {
        name: (kind, list(getattr(feature, kind).value) if kind else [])
        for name, feature in example.features.feature.items()
        for kind in [feature.WhichOneof("kind")]
    }


def test_json_types_choose_the_kind_of_a_feature() -> None:
    example = {"i": 7, "f": [1.5, 2.0], "s": ["a", "é"], "b": {"b64": "/w=="}, "t": [True, False], "none": []}
    name, request = examples_request(json.dumps({"signature_name": "s", "examples": [example]}).encode())
    assert name == "s"
    assert features(request.example_list.examples[0]) == {
        "i": ("int64_list", [7]),
        "f": ("float_list", [1.5, 2.0]),
        "s": ("bytes_list", [b"a", "é".encode()]),
        "b": ("bytes_list", [b"\xff"]),
        "t": ("int64_list", [1, 0]),
        "none": (None, []),
    }


def test_a_context_goes_with_the_examples() -> None:
    name, request = examples_request(b'{"context": {"city": "Rome"}, "examples": [{"x": 1}, {"x": 2}]}')
    assert name == "serving_default"
    assert request.WhichOneof("kind") == "example_list_with_context"
    assert features(request.example_list_with_context.context) == {"city": ("bytes_list", [b"Rome"])}
    assert [features(e)["x"][1] for e in request.example_list_with_context.examples] == [[1], [2]]


def test_nan_is_a_float_feature() -> None:
    _, request = examples_request(b'{"examples": [{"x": [NaN, -Infinity]}]}')
    kind, values = features(request.example_list.examples[0])["x"]
    assert kind == "float_list"
    assert np.isnan(values[0])
    assert values[1] == -np.inf


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{}", "When method is classify, key 'examples' is expected and was not found"),
        ('{"examples": {}}', "Expecting 'examples' value to be an list/array"),
        ('{"examples": []}', "'examples' value is an empty array"),
        ('{"examples": [5]}', "Example must be JSON object but got JSON Number"),
        ('{"examples": [{}], "context": 5}', "Example must be JSON object but got JSON Number"),
        ('{"examples": [{"x": null}]}', "Feature: x has element with unexpected JSON type: Null"),
        ('{"examples": [{"x": [[1]]}]}', "Feature: x has element with unexpected JSON type: Array"),
        ('{"examples": [{"x": {"y": 1}}]}', "Feature: x has element with unexpected JSON type: Object"),
        ('{"examples": [{"x": [1, 1.5]}]}', "Unexpected element type in feature: x expecting type: int64"),
        ('{"examples": [{"x": ["a", 1]}]}', "Unexpected element type in feature: x expecting type: bytes"),
        ('{"examples": [{"x": 18446744073709551615}]}', "Feature: x has uint64 element. Only int64 is supported."),
        ('{"examples": [{"x": 1e39}]}', "Cannot convert JSON value: 1e+39 to float without loss of precision."),
        ('{"examples": [{"x": {"b64": "?"}}]}', "Unable to base64 decode"),
        ('{"examples": [', "JSON Parse error: "),
    ],
)
def test_a_wrong_body_is_refused_in_tf_servings_words(body: str, message: str) -> None:
    with pytest.raises(RequestError) as refused:
        examples_request(body.encode())
    assert message in refused.value.message


def test_labels_and_scores_are_written_in_pairs() -> None:
    classes = np.array([[b"cat", b"dog"], [b"dog", b"cat"]], object)
    scores = np.array([[0.75, 0.25], [np.nan, 0.1]], np.float32)
    assert classify_response({"classes": classes, "scores": scores}) == (
        b'{"results":[[["cat",0.75],["dog",0.25]],[["dog",NaN],["cat",0.1]]]}'
    )
    assert classify_response({"classes": classes[:1]}) == b'{"results":[[["cat",0.0],["dog",0.0]]]}'
    assert classify_response({"scores": scores[:1]}) == b'{"results":[[["",0.75],["",0.25]]]}'


def test_values_are_written_in_a_list() -> None:
    assert regress_response({"outputs": np.array([0.1, 2], np.float32)}) == b'{"results":[0.1,2.0]}'


def test_a_result_of_no_example_is_refused() -> None:
    with pytest.raises(RequestError, match="Cannot convert empty ClassificationResults to JSON"):
        classify_response({"scores": np.zeros((0, 3), np.float32)})
    with pytest.raises(RequestError, match="Cannot convert empty RegressionResults to JSON"):
        regress_response({"outputs": np.zeros(0, np.float32)})
