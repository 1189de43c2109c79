import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tfopt.compression.coding import coded_size_bytes, decode_array, encode_array, entropy_bits
from tfopt.errors import DataError

HEADER_BYTES = 40
DTYPES = st.sampled_from([np.float32, np.float16, np.int8, np.float64, np.bool_, np.int32])


def bits(array):
    return np.ascontiguousarray(array).tobytes()


def assert_round_trip(array):
    data = encode_array(array)
    restored = decode_array(data)
    assert restored.dtype == array.dtype
    assert restored.shape == array.shape
    assert bits(restored) == bits(array)
    assert coded_size_bytes(array) == len(data)
    assert len(data) <= array.nbytes + HEADER_BYTES
    return len(data)


@given(DTYPES.flatmap(lambda dtype: arrays(dtype, array_shapes(min_dims=0, min_side=0, max_side=8))))
@settings(derandomize=True, deadline=None)
def test_any_array_comes_back_bit_for_bit(array):
    assert_round_trip(array)


@given(st.sampled_from([np.float32, np.float16]), st.binary(max_size=400), st.integers(0, 3))
@settings(derandomize=True, deadline=None)
def test_any_bits_come_back_signalling_nans_too(dtype, pattern, zeros):
    whole = pattern[: len(pattern) // 4 * 4]
    array = np.frombuffer(whole, dtype)
    assert_round_trip(np.concatenate([np.zeros(1000 * zeros, dtype), array]))


@given(
    st.lists(st.floats(width=32), min_size=1, max_size=5),
    st.integers(1, 3000),
    st.floats(0, 1),
    st.integers(0, 2**31),
)
@settings(derandomize=True, deadline=None)
def test_few_values_and_many_zeros_come_back(values, size, density, seed):
    generator = np.random.default_rng(seed)
    array = np.where(generator.random(size) < density, generator.choice(np.array(values, np.float32), size), 0)
    assert_round_trip(array)


def test_payloads_and_signs_are_kept():
    patterns = np.array([0x7FC00001, 0x7F800001, 0xFFC12345, 0x80000000, 0, 0x7F800000, 1], np.uint32)
    array = np.tile(patterns.view(np.float32), 50)
    assert assert_round_trip(array) < array.nbytes / 4
    sparse = np.zeros(5000, np.float32)
    sparse[4000] = -0.0
    assert np.signbit(decode_array(encode_array(sparse))[4000])


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_the_float_types_of_machine_learning_come_back(dtype):
    array = keras.ops.convert_to_numpy(keras.ops.cast([0.5, -0.25, 0.0, np.nan] * 30, dtype))
    assert assert_round_trip(array) < array.nbytes


def test_bytes_without_a_meaning_and_foreign_byte_orders_come_back():
    assert_round_trip(np.arange(6, dtype=np.uint16).view("V2").reshape(2, 3))
    swapped = np.array([1.5, -2.0], ">f4")
    np.testing.assert_array_equal(decode_array(encode_array(swapped)), swapped)
    transposed = np.arange(12, dtype=np.float32).reshape(3, 4).T
    np.testing.assert_array_equal(decode_array(encode_array(transposed)), transposed)


@pytest.mark.parametrize("gap", [0, 1, 254, 255, 256, 509, 510, 511, 70_000])
def test_gaps_of_any_length_are_coded(gap):
    array = np.zeros(2 * gap + 1000, np.float32)
    array[[gap, 2 * gap + 1, 2 * gap + 2]] = [1.0, 2.0, 3.0]
    assert assert_round_trip(array) < 600


def test_each_way_is_taken_where_it_is_shortest():
    generator = np.random.default_rng(0)
    trained = generator.normal(size=(100, 100)).astype(np.float32)
    clustered = generator.choice(np.linspace(-1, 1, 16, dtype=np.float32), (100, 100))
    kept = generator.random((100, 100)) < 0.2
    pruned, both = np.where(kept, trained, np.float32(0)), np.where(kept, clustered, np.float32(0))
    sizes = [assert_round_trip(array) for array in (trained, clustered, pruned, both)]
    raw, count = trained.nbytes, np.count_nonzero(pruned)
    assert raw < sizes[0] <= raw + HEADER_BYTES
    assert raw / 8 < sizes[1] < raw / 8 + 200
    assert 4 * count < sizes[2] < 4.6 * count  # each gap takes less than 5 bits
    assert sizes[3] < raw / 18


@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.9, 0.95])
def test_pruned_and_clustered_weights_come_near_the_entropy(sparsity):
    generator = np.random.default_rng(0)
    values = np.linspace(-1, 1, 15, dtype=np.float32) + 0.01
    array = np.where(generator.random(200_000) < sparsity, np.float32(0), generator.choice(values, 200_000))
    assert 8 * coded_size_bytes(array) / array.size < 1.05 * entropy_bits(array)


def test_an_array_of_one_value_takes_next_to_nothing():
    assert coded_size_bytes(np.zeros((1000, 1000), np.float32)) < HEADER_BYTES
    assert coded_size_bytes(np.full((1000, 1000), 0.1, np.float32)) < HEADER_BYTES


def test_entropy():
    assert entropy_bits(np.array([])) == 0
    assert entropy_bits(np.ones(9)) == 0
    assert entropy_bits(np.arange(16)) == 4
    assert entropy_bits(np.array([0.0, -0.0])) == 1  # told apart, as the code does


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([None]), np.zeros(2, np.complex128), np.zeros(3, "V3")])
def test_other_arrays_are_refused(array):
    with pytest.raises(DataError, match=r"numbers of 1, 2, 4 or 8 bytes.*Received: an array of dtype"):
        encode_array(array)


@pytest.mark.parametrize("name", ["dense", "raw", "sparse"])
def test_bytes_that_are_cut_off_or_too_many_are_refused(name):
    generator = np.random.default_rng(0)
    array = {
        "dense": generator.choice(np.float32([1, 2, 3]), 200),
        "raw": generator.normal(size=20).astype(np.float32),
        "sparse": generator.normal(size=300).astype(np.float32) * (generator.random(300) < 0.1),
    }[name]
    data = encode_array(array)
    for length in range(len(data)):
        with pytest.raises(DataError, match="damaged"):
            decode_array(data[:length])
    with pytest.raises(DataError, match="bytes left"):
        decode_array(data + b"\0")


@pytest.mark.parametrize(
    "data",
    [
        b"\x07unknown\x00\x00\x00\x00",
        b"\x02O8\x00\x00\x00\x00",
        b"\x05int32\x01\x01\x07\x00\x00",  # a third layout
        b"\x05int32\x01\x01\x00\x07\x01\x00\x00\x00\x00",  # a third kind of sequence
        b"\x05int32\x01\x01\x00\x00\x02" + bytes(8),  # two values for one place
        b"\x05int32\x01\x02\x01\x00\x02\xff\xfe\x00\x01\x01\x00\x00\x00",  # a gap that leads out of the array
        b"\xff\xff",
    ],
)
def test_bytes_that_make_no_sense_are_refused(data):
    with pytest.raises(DataError, match="damaged"):
        decode_array(data)
