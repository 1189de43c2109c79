"""Rows of several requests in one array, and each request's rows out of it again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfopt.serving.server.batch_arrays import join_rows, split_rows
from tfopt.serving.server.request_error import Code, RequestError


@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    fill=st.integers(0, 4),
    dtype=st.sampled_from(["float32", "int64", "bool", "object"]),
)
def test_what_is_joined_is_split_again(lengths: list[int], fill: int, dtype: str) -> None:
    rows = np.arange(sum(lengths) * 3).reshape(-1, 3)
    array = np.array([[b"%d" % value for value in row] for row in rows], object) if dtype == "object" else rows % 251
    array = array.astype(dtype)
    blocks = [{"x": block} for block in np.split(array, np.cumsum(lengths)[:-1])]
    size = sum(lengths) + fill
    joined = join_rows(blocks, size=size)
    assert joined["x"].shape == (size, 3)
    assert joined["x"].dtype == array.dtype
    np.testing.assert_array_equal(joined["x"][sum(lengths) :], np.repeat(array[:1], fill, axis=0))
    for block, part in zip(blocks, split_rows(joined, lengths, size=size), strict=True):
        np.testing.assert_array_equal(part["x"], block["x"])


def test_a_lone_block_of_the_right_size_is_not_copied() -> None:
    block = {"x": np.zeros((4, 2))}
    assert join_rows([block], size=4)["x"] is block["x"]


def test_lengths_are_padded_with_the_first_value_of_each_block() -> None:
    blocks = [{"x": np.array([[7, 8, 9]])}, {"x": np.array([[1]])}, {"x": np.empty((1, 0), int)}]
    np.testing.assert_array_equal(join_rows(blocks, size=3)["x"], [[7, 8, 9], [1, 1, 1], [0, 0, 0]])
    texts = [{"x": np.array([[b"a", b"b"]], object)}, {"x": np.empty((1, 0), object)}]
    assert join_rows(texts, size=2)["x"].tolist() == [[b"a", b"b"], [b"", b""]]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (np.float32(1), 'Batched output tensor has 0 dimensions: "y"'),
        (np.zeros(3), 'tensors: "y" has 3, the inputs have 4'),
    ],
)
def test_an_output_without_a_row_for_each_row_is_refused(output: np.ndarray, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        split_rows({"y": np.asarray(output)}, [4], size=4)
    assert caught.value.code == Code.FAILED_PRECONDITION
