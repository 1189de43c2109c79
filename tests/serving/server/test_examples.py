"""Classify and regress: examples as bytes, and what clients may expect of the outputs."""

import re

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.input_pb2 import Input

from tfopt.serving.server.examples import checked_classes, checked_values, serialized_examples
from tfopt.serving.server.request_error import Code, RequestError


def example(**features: float) -> tf.train.Example:
    values = {name: tf.train.Feature(float_list=tf.train.FloatList(value=[value])) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=values))


def test_examples_are_serialized_one_by_one() -> None:
    request = Input()
    request.example_list.examples.extend([example(a=1), example(a=2)])
    assert [tf.train.Example.FromString(each) for each in serialized_examples(request)] == [example(a=1), example(a=2)]


def test_a_context_is_in_every_example_and_yields_to_it() -> None:
    request = Input()
    request.example_list_with_context.context.CopyFrom(example(a=1, b=5))
    request.example_list_with_context.examples.extend([example(c=3), example(a=2)])
    assert [tf.train.Example.FromString(each) for each in serialized_examples(request)] == [
        example(a=1, b=5, c=3),
        example(a=2, b=5),
    ]


@pytest.mark.parametrize("kind", [None, "example_list", "example_list_with_context"])
def test_a_request_may_have_no_examples(kind: str | None) -> None:
    request = Input()
    if kind:
        getattr(request, kind).SetInParent()
    assert serialized_examples(request).shape == (0,)


CLASSES, SCORES = np.array([[b"a", b"b"]], object), np.float32([[0.1, 0.9]])


def test_classes_scores_or_both() -> None:
    both = checked_classes({"other": SCORES, "scores": SCORES, "classes": CLASSES}, count=1)
    assert both.keys() == {"classes", "scores"}
    assert checked_classes({"classes": CLASSES}, count=1).keys() == {"classes"}
    assert checked_classes({"scores": SCORES}, count=1).keys() == {"scores"}


@pytest.mark.parametrize(
    ("outputs", "code", "message"),
    [
        ({"y": SCORES}, Code.FAILED_PRECONDITION, 'at least one of "classes" or "scores"'),
        ({"scores": SCORES[0]}, Code.INVALID_ARGUMENT, "Expected Tensor shape: [batch_size num_classes] but got [2]"),
        ({"scores": SCORES.astype(float)}, Code.INVALID_ARGUMENT, "Expected scores Tensor of DT_FLOAT. Got: float64"),
        ({"classes": SCORES}, Code.INVALID_ARGUMENT, "Expected classes Tensor of DT_STRING. Got: float32"),
        (
            {"scores": np.repeat(SCORES, 2, axis=0)},
            Code.INVALID_ARGUMENT,
            "Expected scores output batch size of 1. Got: 2",
        ),
        (
            {"classes": CLASSES[:, :1], "scores": SCORES},
            Code.INVALID_ARGUMENT,
            "Tensors class and score should match in dim_size(1). Got 1 vs. 2",
        ),
    ],
)
def test_other_outputs_of_a_classification_are_refused(outputs: dict, code: Code, message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)) as caught:
        checked_classes(outputs, count=1)
    assert caught.value.code == code


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_values_are_a_vector(shape: tuple[int, ...]) -> None:
    assert checked_values({"outputs": np.zeros(shape, np.float32)}, count=3)["outputs"].shape == (3,)


@pytest.mark.parametrize(
    ("outputs", "code", "message"),
    [
        ({"y": SCORES}, Code.FAILED_PRECONDITION, "No regression outputs found"),
        ({"outputs": SCORES}, Code.INVALID_ARGUMENT, "either [batch_size] or [batch_size, 1] but got [1, 2]"),
        ({"outputs": np.float32(1)}, Code.INVALID_ARGUMENT, "either [batch_size] or [batch_size, 1] but got []"),
        (
            {"outputs": np.zeros(2, np.float32)},
            Code.INVALID_ARGUMENT,
            "Input batch size did not match output batch size: 1 vs. 2",
        ),
        ({"outputs": np.zeros(1)}, Code.INVALID_ARGUMENT, "Expected output Tensor of DT_FLOAT.  Got: float64"),
    ],
)
def test_other_outputs_of_a_regression_are_refused(outputs: dict, code: Code, message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)) as caught:
        checked_values({name: np.asarray(array) for name, array in outputs.items()}, count=1)
    assert caught.value.code == code
