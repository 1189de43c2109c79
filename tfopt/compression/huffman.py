"""Canonical Huffman codes of whole arrays of symbols: pure array maths, no TensorFlow."""

from __future__ import annotations

import heapq

import numpy as np

from tfopt.errors import DataError

__all__ = ["MAXIMUM_CODE_BITS", "code_lengths", "pack", "unpack"]

MAXIMUM_CODE_BITS = 20
"""The longest code: a table of all bit patterns of this length must fit into memory."""

_BLOCK_BYTES = 1 << 17


def code_lengths(counts: np.ndarray) -> np.ndarray:
    """The bits of each symbol's code that make the whole shortest.

    Where a code would be longer than 20 bits, the counts are brought closer together until none is.

    Args:
        counts: how often each of at most 65,536 symbols occurs, positive, of shape `(n,)`.

    Returns:
        A uint8 array of shape `(n,)`; 0 for a symbol that is the only one.

    Example:
        >>> code_lengths(np.array([1, 5, 2]))
        array([2, 1, 2], dtype=uint8)

    References: Huffman 1952.
    """
    while True:
        lengths = _unlimited_lengths(counts)
        if lengths.max(initial=0) <= MAXIMUM_CODE_BITS:
            return lengths.astype(np.uint8)
        counts = (counts + 1) // 2


def pack(indices: np.ndarray, lengths: np.ndarray) -> bytes:
    """Writes the codes of symbols one after the other, the most significant bit first, zeros at the end.

    Args:
        indices: which symbol, of shape `(count,)`.
        lengths: bits of each symbol's code, as `code_lengths` gives them.

    Example:
        >>> pack(np.array([1, 0, 1]), np.array([2, 1, 2])).hex(), pack(np.array([0, 0]), np.array([0]))
        ('40', b'')
    """
    codes, lengths = _canonical_codes(lengths)[indices], lengths[indices].astype(np.int64)
    ends = np.cumsum(lengths)
    bits = np.zeros(int(ends[-1]) if ends.size else 0, np.uint8)
    for place in range(int(lengths.max(initial=0))):
        long = lengths > place
        bits[ends[long] - 1 - place] = (codes[long] >> place) & 1
    return np.packbits(bits).tobytes()


def unpack(packed: bytes, lengths: np.ndarray, count: int) -> np.ndarray:
    """Reads what `pack` wrote.

    Args:
        packed: the codes.
        lengths: bits of each symbol's code.
        count: how many symbols there are.

    Returns:
        The indices of the symbols, of shape `(count,)`.

    Raises:
        DataError: if the lengths are not those of a whole code, or the codes end too early or too late.

    Example:
        >>> unpack(bytes.fromhex("40"), np.array([2, 1, 2]), 3)
        array([1, 0, 1])
    """
    if lengths.size == 1 and lengths[0] == 0 and not packed:
        return np.zeros(count, np.int64)
    width = int(lengths.max(initial=0))
    usable = 0 < width <= MAXIMUM_CODE_BITS and lengths.min() > 0
    if not usable or _spans(lengths).sum() != 1 << width:
        raise DataError("The lengths of the Huffman codes do not make a code: the data is damaged.")
    order = _canonical_order(lengths)
    symbols = np.repeat(order, _spans(lengths)[order])  # by the next `width` bits
    steps = lengths[symbols]
    padded = np.concatenate([np.frombuffer(packed, np.uint8), np.zeros(4, np.uint8)]).astype(np.uint32)
    words = (padded[:-3] << 24) | (padded[1:-2] << 16) | (padded[2:-1] << 8) | padded[3:]
    found, position, missing = [np.zeros(0, np.int64)], 0, count
    for begin in range(0, len(packed), _BLOCK_BYTES):
        # What would be read at every bit; then from code to code.
        block = words[begin : min(begin + _BLOCK_BYTES, len(packed)), np.newaxis]
        windows = ((block << np.arange(8, dtype=np.uint32)) >> np.uint32(32 - width)).reshape(-1)
        jumps = steps[windows].tolist()
        starts: list[int] = []
        position -= 8 * begin
        while position < len(jumps) and len(starts) < missing:
            starts.append(position)
            position += jumps[position]
        position += 8 * begin
        missing -= len(starts)
        found.append(symbols[windows[starts]])
    if missing or -(-position // 8) != len(packed):
        raise DataError("The Huffman codes end too early or too late: the data is damaged.")
    return np.concatenate(found)


def _unlimited_lengths(counts: np.ndarray) -> np.ndarray:
    size = len(counts)
    heap = [(int(count), node) for node, count in enumerate(counts)]
    heapq.heapify(heap)
    parents = np.zeros(2 * size, np.int64)
    for node in range(size, 2 * size - 1):
        first, one = heapq.heappop(heap)
        second, other = heapq.heappop(heap)
        parents[one] = parents[other] = node
        heapq.heappush(heap, (first + second, node))
    depths = np.zeros(2 * size, np.int64)
    for node in range(2 * size - 3, -1, -1):
        depths[node] = depths[parents[node]] + 1
    return depths[:size]


def _canonical_order(lengths: np.ndarray) -> np.ndarray:
    """Shorter codes come first, and of one length those of earlier symbols; so the lengths tell the codes."""
    return np.argsort(lengths, kind="stable")


def _spans(lengths: np.ndarray) -> np.ndarray:
    """How many bit patterns of the longest code's length begin with each code."""
    wide = lengths.astype(np.int64)
    return 1 << (wide.max(initial=0) - wide)


def _canonical_codes(lengths: np.ndarray) -> np.ndarray:
    order, spans = _canonical_order(lengths), _spans(lengths)
    codes = np.zeros(lengths.size, np.int64)
    codes[order] = (np.cumsum(spans[order]) - spans[order]) // spans[order]
    return codes
