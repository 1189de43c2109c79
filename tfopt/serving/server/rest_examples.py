"""The JSON of `:classify` and `:regress`: tf.train.Examples in, labels and scores or values out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorflow_serving.apis.input_pb2 import Input

from tfopt.serving.server.request_error import Code, RequestError
from tfopt.serving.server.rest_arrays import bytes_from_json, is_base64, json_text, json_type, lossless
from tfopt.serving.server.rest_json import dump_json, json_value, load_json, signature_name

__all__ = ["classify_response", "examples_request", "regress_response"]

FLOAT = np.dtype(np.float32)
LARGEST_INT64 = 2**63 - 1
# Which list of a Feature holds the values of a type, and what TF Serving calls it.
LISTS = {bool: "int64_list", int: "int64_list", float: "float_list", str: "bytes_list", dict: "bytes_list"}


def examples_request(body: bytes) -> tuple[str, Input]:
    """Reads the body of a `:classify` or `:regress` request.

    Whole numbers and booleans are int64 features, other numbers float ones, strings and `{"b64": "..."}` bytes.

    Returns:
        The signature's name, and the examples with their context.

    Raises:
        RequestError: INVALID_ARGUMENT with TF Serving's message.

    Example:
        >>> name, examples = examples_request(b'{"examples": [{"age": 7, "size": [1.5, 2.0]}]}')
        >>> examples.example_list.examples[0].features.feature["size"].float_list.value
        [1.5, 2.0]

    References: tensorflow.org/tfx/serving/api_rest; util/json_tensor.cc of TF Serving.
    """
    document = load_json(body)
    name = signature_name(document)
    request = Input()
    added = request.example_list.examples
    if "context" in document:
        # Replaces the list without a context: a request has one or the other.
        added = request.example_list_with_context.examples
        _fill_example(document["context"], request.example_list_with_context.context)
    if "examples" not in document:
        raise _invalid(
            f"JSON Value: {json_text(document)} When method is classify, key 'examples' is expected and was not found"
        )
    examples = document["examples"]
    if not isinstance(examples, list):
        raise _invalid(f"JSON Value: {json_text(document)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise _invalid(f"JSON Value: {json_text(document)} 'examples' value is an empty array")
    for example in examples:
        _fill_example(example, added.add())
    return name, request


def classify_response(outputs: Mapping[str, np.ndarray]) -> bytes:
    """Writes the labels and scores of each example.

    Args:
        outputs: `classes`, bytes of shape `(n, c)`, and/or `scores`, float32 of that shape. A label that is not
            there is "", a score 0.

    Example:
        >>> classify_response({"scores": np.array([[0.25, 0.75]], np.float32)})
        b'{"results":[[["",0.25],["",0.75]]]}'
    """
    classes, scores = outputs.get("classes"), outputs.get("scores")
    labels = None if classes is None else [json_value("classes", row) for row in classes]
    values = None if scores is None else [[json_value("scores", score) for score in row] for row in scores]
    if labels is None:
        labels = [[""] * len(row) for row in values or ()]
    if values is None:
        values = [[0.0] * len(row) for row in labels]
    results = [list(zip(*row, strict=True)) for row in zip(labels, values, strict=True)]
    if not results:
        raise _invalid("Cannot convert empty ClassificationResults to JSON")
    return dump_json({"results": results})


def regress_response(outputs: Mapping[str, np.ndarray]) -> bytes:
    """Writes the value of each example.

    Args:
        outputs: `outputs`, float32 of shape `(n,)`.

    Example:
        >>> regress_response({"outputs": np.array([0.5, np.inf], np.float32)})
        b'{"results":[0.5,Infinity]}'
    """
    if not outputs["outputs"].size:
        raise _invalid("Cannot convert empty RegressionResults to JSON")
    return dump_json({"results": json_value("outputs", outputs["outputs"])})


def _fill_example(value: Any, example: Any) -> None:
    if not isinstance(value, dict):
        raise _invalid(f"Example must be JSON object but got JSON {json_type(value)}")
    for name, content in value.items():
        _fill_feature(name, content if isinstance(content, list) else [content], example.features.feature[name])


def _fill_feature(name: str, values: list[Any], feature: Any) -> None:
    lists = []
    for value in values:
        if type(value) not in LISTS or (isinstance(value, dict) and not is_base64(value)):
            raise _invalid(f"Feature: {name} has element with unexpected JSON type: {json_type(value)}")
        lists.append(LISTS[type(value)])
        if lists[-1] != lists[0]:
            raise _invalid(
                f"Unexpected element type in feature: {name} expecting type: {lists[0].removesuffix('_list')}"
            )
        if lists[0] == "float_list":
            lossless(value, FLOAT)
        elif lists[0] == "int64_list" and value > LARGEST_INT64:
            raise _invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
    if lists:
        if lists[0] == "bytes_list":
            content: list[Any] = [bytes_from_json(value) for value in values]
        else:  # protobuf takes no booleans for numbers
            content = [int(value) if isinstance(value, bool) else value for value in values]
        getattr(feature, lists[0]).value.extend(content)


def _invalid(message: str) -> RequestError:
    return RequestError(Code.INVALID_ARGUMENT, message)
