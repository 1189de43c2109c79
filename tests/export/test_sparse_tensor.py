import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfopt.export.sparse_tensor import Dimension, SparseLayout


def encode(dense, block):
    """Rows of blocks along the last axis of a matrix, those without a number left out."""
    rows, columns = dense.shape
    blocks = dense.reshape(rows, columns // block, block)
    segments, indices, values = [0], [], []
    for row in blocks:
        kept = np.flatnonzero(row.any(axis=-1))
        indices += kept.tolist()
        segments.append(len(indices))
        values += row[kept].ravel().tolist()
    levels = [Dimension(rows), Dimension(0, tuple(segments), tuple(indices))]
    if block == 1:
        return SparseLayout((0, 1), (), tuple(levels)), np.array(values, dense.dtype)
    return SparseLayout((0, 1, 2), (1,), (*levels, Dimension(block))), np.array(values, dense.dtype)


@settings(deadline=None)
@given(
    rows=st.integers(1, 6),
    blocks=st.integers(1, 5),
    block=st.sampled_from([1, 4, 16]),
    zeros=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_a_matrix_comes_back_as_it_was(rows, blocks, block, zeros, seed):
    generator = np.random.default_rng(seed)
    dense = generator.integers(1, 100, (rows, blocks * block)).astype(np.int8)
    dense *= np.repeat(generator.random((rows, blocks)) >= zeros, block, axis=1)
    layout, values = encode(dense, block)
    np.testing.assert_array_equal(layout.to_dense(values, dense.shape), dense)


def test_four_axes_in_any_order():
    dense = np.zeros((2, 3, 2, 2), np.float32)
    dense[1, 2, 0, 1], dense[0, 0, 1, 0] = 5.0, 6.0
    # Levels: axis 3, then the pairs that are there.
    layout = SparseLayout(
        (3, 0, 1, 2),
        (),
        (Dimension(2), Dimension(0, (0, 1, 2), (0, 1)), Dimension(0, (0, 1, 2), (0, 2)), Dimension(2)),
    )
    values = np.array([0.0, 6.0, 5.0, 0.0], np.float32)
    np.testing.assert_array_equal(layout.to_dense(values, dense.shape), dense)


@pytest.mark.parametrize("dtype", [np.int8, np.float16, np.float32])
def test_a_tensor_of_zeros_has_no_values(dtype):
    layout, values = encode(np.zeros((3, 8), dtype), 4)
    assert values.size == 0
    np.testing.assert_array_equal(layout.to_dense(values, (3, 8)), np.zeros((3, 8), dtype))
