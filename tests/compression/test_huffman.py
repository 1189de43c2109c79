import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfopt.compression.huffman import MAXIMUM_CODE_BITS, code_lengths, pack, unpack
from tfopt.errors import DataError

counts = st.lists(st.integers(1, 1000), min_size=2, max_size=40).map(np.array)


@given(counts)
@settings(derandomize=True, deadline=None)
def test_the_code_is_whole_and_within_one_bit_of_the_entropy(counts):
    lengths = code_lengths(counts).astype(int)
    assert np.sum(0.5**lengths) == 1
    shares = counts / counts.sum()
    entropy = -(shares * np.log2(shares)).sum()
    assert entropy - 1e-9 <= shares @ lengths < entropy + 1


@given(counts)
@settings(derandomize=True, deadline=None)
def test_rarer_symbols_have_no_shorter_codes(counts):
    lengths = code_lengths(counts)
    assert np.all(np.diff(lengths[np.argsort(counts, kind="stable")].astype(int)) <= 0)


def test_codes_are_limited_even_for_counts_that_grow_as_fibonacci_numbers():
    counts = [1, 1]
    while len(counts) < 40:
        counts.append(counts[-1] + counts[-2])
    lengths = code_lengths(np.array(counts)).astype(int)
    assert lengths.max() <= MAXIMUM_CODE_BITS
    assert np.sum(0.5**lengths) == 1


@given(counts, st.data())
@settings(derandomize=True, deadline=None)
def test_what_is_packed_is_unpacked(counts, data):
    lengths = code_lengths(counts)
    indices = np.array(data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=60)), np.int64)
    packed = pack(indices, lengths)
    assert len(packed) == -(-lengths[indices].astype(int).sum() // 8)
    np.testing.assert_array_equal(unpack(packed, lengths, indices.size), indices)


def test_codes_that_span_several_blocks_are_read():
    generator = np.random.default_rng(0)
    indices = np.minimum(generator.geometric(0.4, 600_000) - 1, 25)
    lengths = code_lengths(np.bincount(indices))
    packed = pack(indices, lengths)
    assert len(packed) > 1 << 17
    np.testing.assert_array_equal(unpack(packed, lengths, indices.size), indices)


def test_an_only_symbol_needs_no_bits():
    assert code_lengths(np.array([7])).tolist() == [0]
    assert pack(np.zeros(7, int), np.array([0], np.uint8)) == b""
    assert unpack(b"", np.array([0], np.uint8), 7).tolist() == [0] * 7


@pytest.mark.parametrize(
    ("packed", "lengths", "count"),
    [
        (b"\x40", [2, 2, 2], 3),  # a code is missing
        (b"\x40", [1, 1, 1], 3),  # one too many
        (b"\x40", [0, 1], 3),
        (b"\x40", [33, 33], 3),
        (b"\x40", [], 3),
        (b"\x40", [0], 3),
        (b"\x40", [2, 1, 2], 100),  # ends too early
        (b"\x40\x00", [2, 1, 2], 3),  # too late
        (b"", [2, 1, 2], 1),
    ],
)
def test_damaged_codes_are_refused(packed, lengths, count):
    with pytest.raises(DataError, match="damaged"):
        unpack(packed, np.array(lengths, np.uint8), count)
