"""Arrays of few distinct values in few bytes, without loss: Huffman codes, and gaps instead of zeros."""

from __future__ import annotations

import math
from collections.abc import Callable

import ml_dtypes  # noqa: F401  (teaches NumPy the names of bfloat16 and float8)
import numpy as np

from tfopt.compression.huffman import code_lengths, pack, unpack
from tfopt.errors import DataError

__all__ = ["coded_size_bytes", "decode_array", "encode_array", "entropy_bits"]

_DENSE, _SPARSE = 0, 1
_RAW, _HUFFMAN = 0, 1
_LONGEST_GAP = 255
_MOST_VARINT_BITS = 63
"""The symbol for 255 zeros and no weight after them, where Deep Compression puts a weight of zero."""

_MOST_CODES = 1 << 16

_Stream = tuple[int, Callable[[], bytes]]
"""The bytes that a sequence takes, and the function that writes them."""


def encode_array(array: np.ndarray) -> bytes:
    """Codes an array in the least bytes of four ways, for `decode_array` to restore it bit for bit.

    - The values one after the other, or
    - the values that are not zero, and for each the count of zeros before it (Deep Compression's relative index);

    and each of these sequences as it is, or in canonical Huffman codes with a table of its distinct values. What does
    not compress takes a few bytes more than its own.

    Args:
        array: numbers of any shape, also empty, whose dtype has 1, 2, 4 or 8 bytes: floats (also bfloat16 and
            float8), ints, bools. NaN, infinity and -0.0 are kept as they are; of the zeros, only +0.0 is left out.

    Raises:
        DataError: if the dtype is of another size, or holds objects or text.

    Example:
        >>> weights = np.zeros((64, 64), np.float32)
        >>> weights[::4] = 0.5
        >>> weights.nbytes, len(encode_array(weights)), np.array_equal(decode_array(encode_array(weights)), weights)
        (16384, 160, True)

    References: Huffman 1952; Han et al. 2016, arXiv:1510.00149, sections 2 and 4.
    """
    head, streams = _plan(array)
    return head + b"".join(encoded() for _, encoded in streams)


def coded_size_bytes(array: np.ndarray) -> int:
    """The length of `encode_array(array)`, which it knows without writing the codes.

    Example:
        >>> coded_size_bytes(np.ones(1000, np.float32))
        22
    """
    head, streams = _plan(array)
    return len(head) + sum(size for size, _ in streams)


def decode_array(data: bytes) -> np.ndarray:
    """Restores the array that `encode_array` coded.

    Raises:
        DataError: if the bytes are not those of one whole array.

    Example:
        >>> decode_array(encode_array(np.array([1.5, -0.0, 1.5], np.float16)))
        array([ 1.5, -0. ,  1.5], dtype=float16)
    """
    reader = _Reader(data)
    try:
        dtype = np.dtype(reader.take(reader.varint()).decode())
        shape = tuple(reader.varint() for _ in range(reader.varint()))
        layout, size = reader.varint(), math.prod(shape)
        if layout == _DENSE:
            patterns = _read_stream(reader, _pattern_dtype(dtype), size)
        elif layout == _SPARSE:
            places = _places(_read_stream(reader, np.dtype(np.uint8), size))
            patterns = np.zeros(size, _pattern_dtype(dtype))
            patterns[places] = _read_stream(reader, patterns.dtype, size)
        else:
            raise ValueError(f"layout {layout}")
        array = patterns.view(dtype).reshape(shape)
    except (IndexError, MemoryError, OverflowError, TypeError, ValueError) as error:
        raise DataError(
            f"decode_array: the bytes are not those of a coded array ({error}): the data is damaged."
        ) from None
    if not reader.at_end:
        raise DataError("decode_array: there are bytes left after the array: the data is damaged.")
    return array


def entropy_bits(array: np.ndarray) -> float:
    """The mean bits a value needs where each is coded on its own: the bound that Huffman codes approach.

    Coding gaps can fall below it only by what neighbours tell about each other.

    Example:
        >>> entropy_bits(np.array([0.0, 0.0, 1.0, 2.0]))
        1.5

    References: Shannon 1948.
    """
    _, counts = np.unique(_bit_patterns(array), return_counts=True)
    shares = counts / max(array.size, 1)
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def _plan(array: np.ndarray) -> tuple[bytes, list[_Stream]]:
    """The header of the shorter layout, and its sequences."""
    patterns, name = _bit_patterns(array), _dtype_name(array.dtype)
    head = b"".join([_varint(len(name)), name.encode(), _varint(array.ndim), *map(_varint, array.shape)])
    dense = [_stream(patterns)]
    places = np.flatnonzero(patterns)
    if places.size == patterns.size:
        return head + _varint(_DENSE), dense
    sparse = [_stream(_gaps(places)), _stream(patterns[places])]
    layout, streams = min((_DENSE, dense), (_SPARSE, sparse), key=lambda each: sum(size for size, _ in each[1]))
    return head + _varint(layout), streams


def _stream(symbols: np.ndarray) -> _Stream:
    head = _varint(_RAW) + _varint(symbols.size)
    raw = len(head) + symbols.nbytes, lambda: head + symbols.tobytes()
    table, counts = np.unique(symbols, return_counts=True)
    if not 0 < table.size <= min(_MOST_CODES, (symbols.size + 1) // 2):
        return raw
    lengths = code_lengths(counts)
    body_bytes = -(-int(counts @ lengths.astype(np.int64)) // 8)
    sizes = _varint(_HUFFMAN) + _varint(symbols.size) + _varint(table.size) + _varint(body_bytes)
    code = sizes + table.tobytes() + lengths.tobytes()
    coded = len(code) + body_bytes, lambda: code + pack(np.searchsorted(table, symbols), lengths)
    return min(raw, coded, key=lambda stream: stream[0])


def _read_stream(reader: _Reader, dtype: np.dtype, most: int) -> np.ndarray:
    kind, count = reader.varint(), reader.varint()
    if kind not in (_RAW, _HUFFMAN) or count > most:
        raise ValueError(f"a sequence of kind {kind} with {count} symbols")
    if kind == _RAW:
        return np.frombuffer(reader.take(count * dtype.itemsize), dtype)
    table_size, body_bytes = reader.varint(), reader.varint()
    table = np.frombuffer(reader.take(table_size * dtype.itemsize), dtype)
    lengths = np.frombuffer(reader.take(table_size), np.uint8)
    return table[unpack(reader.take(body_bytes), lengths, count)]


def _gaps(places: np.ndarray) -> np.ndarray:
    """How many zeros come before each place, as many symbols as it takes."""
    zeros = np.diff(places, prepend=-1) - 1
    longest, rest = np.divmod(zeros, _LONGEST_GAP)
    gaps = np.full(places.size + int(longest.sum()), _LONGEST_GAP, np.uint8)
    gaps[np.cumsum(longest + 1) - 1] = rest
    return gaps


def _places(gaps: np.ndarray) -> np.ndarray:
    ends = np.cumsum(gaps.astype(np.int64) + (gaps != _LONGEST_GAP))
    return ends[gaps != _LONGEST_GAP] - 1


def _bit_patterns(array: np.ndarray) -> np.ndarray:
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    return native.reshape(-1).view(_pattern_dtype(array.dtype))


def _pattern_dtype(dtype: np.dtype) -> np.dtype:
    if dtype.itemsize not in (1, 2, 4, 8) or dtype.kind in "OSU":
        raise DataError(f"Expected numbers of 1, 2, 4 or 8 bytes to code. Received: an array of dtype {dtype}.")
    return np.dtype(f"u{dtype.itemsize}")


def _dtype_name(dtype: np.dtype) -> str:
    try:
        return np.dtype(dtype.name).name
    except TypeError:  # bytes without a meaning, such as "V2"
        return dtype.str


def _varint(number: int) -> bytes:
    """Seven bits a byte, the low ones first; the high bit says that more follow (LEB128)."""
    groups = [number >> shift & 0x7F for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._position = data, 0

    @property
    def at_end(self) -> bool:
        return self._position == len(self._data)

    def take(self, count: int) -> bytes:
        taken = self._data[self._position : self._position + count]
        if len(taken) != count:
            raise ValueError(f"{count} bytes wanted, {len(taken)} left")
        self._position += count
        return taken

    def varint(self) -> int:
        number, shift = 0, 0
        while shift < _MOST_VARINT_BITS:
            [byte] = self.take(1)
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number
        raise ValueError(f"a number of more than {_MOST_VARINT_BITS} bits")
