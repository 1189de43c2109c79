"""The rows of several requests in one array per input, and the outputs given back to each: array maths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfopt.serving.server.request_error import Code, RequestError

__all__ = ["Arrays", "join_rows", "split_rows"]

Arrays = dict[str, np.ndarray]
"""Tensors by name; the first axis of each is the batch."""


def join_rows(blocks: Sequence[Arrays], *, size: int) -> Arrays:
    """Puts blocks of rows under one another, each row copied once, and repeats the first row up to a size.

    Where further axes differ in length, blocks are padded to the longest with their first value, as TF Serving
    pads them.

    Args:
        blocks: at least one; they have the same names, dtypes and ranks.
        size: rows to return; at least as many as the blocks have.

    Example:
        >>> join_rows([{"x": np.array([[1, 2]])}, {"x": np.array([[3, 4]])}], size=4)
        {'x': array([[1, 2],
               [3, 4],
               [1, 2],
               [1, 2]])}
    """
    if len(blocks) == 1 and all(len(array) == size for array in blocks[0].values()):
        return blocks[0]
    return {name: _joined([block[name] for block in blocks], size) for name in blocks[0]}


def _joined(arrays: list[np.ndarray], size: int) -> np.ndarray:
    longest = tuple(max(lengths) for lengths in zip(*(array.shape[1:] for array in arrays), strict=True))
    joined = np.empty((size, *longest), arrays[0].dtype)
    stop = 0
    for array in arrays:
        start, stop = stop, stop + len(array)
        rows = joined[start:stop]
        if array.shape[1:] != longest:
            rows[...] = array.flat[0] if array.size else (b"" if array.dtype.hasobject else 0)
            rows = rows[tuple(slice(length) for length in array.shape)]
        rows[...] = array
    joined[stop:] = joined[0]
    return joined


def split_rows(outputs: Arrays, lengths: Sequence[int], *, size: int) -> list[Arrays]:
    """Gives every block its rows of the outputs, as views; the rows that fill the batch up are left out.

    Args:
        outputs: what the model made of a batch.
        lengths: rows of each block.
        size: rows that the batch had.

    Raises:
        RequestError: FAILED_PRECONDITION if an output has no row for each row of the batch.

    Example:
        >>> split_rows({"y": np.array([1, 2, 3, 1])}, [1, 2], size=4)
        [{'y': array([1])}, {'y': array([2, 3])}]
    """
    for name, array in outputs.items():
        if array.ndim == 0:
            raise RequestError(Code.FAILED_PRECONDITION, f'Batched output tensor has 0 dimensions: "{name}"')
        if len(array) != size:
            raise RequestError(
                Code.FAILED_PRECONDITION,
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
                f'tensors: "{name}" has {len(array)}, the inputs have {size}',
            )
    blocks, stop = [], 0
    for length in lengths:
        start, stop = stop, stop + length
        blocks.append({name: array[start:stop] for name, array in outputs.items()})
    return blocks
