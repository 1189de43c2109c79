"""When zeros and shared values are worth a column, and what is said of them."""

import pytest

from tfopt.benchmark.contents import Contents
from tfopt.inspection_table import Part


def contents(*, zeros=0.0, coded=1.0, use="no: never", target="tflite"):
    part = Part(
        name="conv",
        kind="CONV_2D",
        dtypes="int8",
        shape=(1, 4),
        weights=1000,
        nonzeros=round(1000 * (1 - zeros)),
        distinct_values=16,
        flops=2000,
        size_bytes=1000,
        gzip_bytes=900,
        coded_bytes=round(1000 * coded),
        zeros_use=use,
    )
    return Contents.of([part, part], target)


def test_the_total_comes_with_the_parts():
    made = contents(zeros=0.25)
    assert (len(made.parts), made.total.weights, made.total.nonzeros) == (2, 2000, 1500)


@pytest.mark.parametrize(
    ("figures", "notable"),
    [
        ({}, False),
        ({"zeros": 0.05, "coded": 0.8}, False),  # of trained int8 weights
        ({"zeros": 0.5, "coded": 0.7}, True),
        ({"coded": 0.5}, True),
    ],
)
def test_pruned_and_clustered_weights_are_notable(figures, notable):
    assert contents(**figures).is_sparse_or_shared is notable


def test_a_file_without_weights_is_not_notable():
    empty = Contents.of([], "tflite")
    assert not empty.is_sparse_or_shared
    assert empty.zeros_sentence == ""


def test_the_sentence_says_whether_zeros_pay():
    assert contents(zeros=0.8).zeros_sentence == "80.0 % of the weights are zero; faster on tflite? no: never"
    assert contents(zeros=0.8, use="").zeros_sentence == "80.0 % of the weights are zero"
    assert contents(zeros=0.01).zeros_sentence == ""


def test_it_is_read_back_from_json():
    made = contents(zeros=0.5)
    assert Contents.model_validate_json(made.model_dump_json()) == made
