"""TensorProto to array and back: TensorFlow's own functions say the same, and malformed tensors are refused."""

import time

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tfopt.serving.server.request_error import Code, RequestError
from tfopt.serving.server.tensor_protos import read_tensor, write_tensor

TensorProto = type(tf.make_tensor_proto(0))
TYPES = [
    *(np.dtype(name) for name in ("float16", "float32", "float64", "complex64", "complex128", "bool")),
    *(np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)),
]


def written(array: np.ndarray) -> TensorProto:
    tensor = TensorProto()
    write_tensor(tensor, array)
    return TensorProto.FromString(tensor.SerializeToString())


any_array = st.sampled_from(TYPES).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)


@given(any_array)
def test_arrays_come_back_bit_for_bit(array: np.ndarray) -> None:
    by_field, by_content = written(array), tf.make_tensor_proto(array)
    assert not by_field.tensor_content  # TF Serving's responses have typed fields, and clients read those
    for tensor in (by_field, by_content):
        back = read_tensor(tensor, "x")
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        assert back.tobytes() == array.tobytes()
    if array.size:
        assert tf.make_ndarray(by_field).tobytes() == array.tobytes()


@pytest.mark.parametrize("array", [np.array([1.5, -2, np.inf], ml_dtypes.bfloat16), np.array(ml_dtypes.bfloat16(3))])
def test_bfloat16_comes_back(array: np.ndarray) -> None:
    for tensor in (written(array), tf.make_tensor_proto(array)):
        back = read_tensor(tensor, "x")
        assert back.dtype == array.dtype
        assert back.tobytes() == array.tobytes()


@given(arrays.arrays(object, arrays.array_shapes(min_dims=0, max_dims=2, min_side=0), elements=st.binary(max_size=4)))
def test_strings_come_back(array: np.ndarray) -> None:
    back = read_tensor(written(array), "x")
    assert (back.dtype, back.shape) == (object, array.shape)
    assert back.ravel().tolist() == array.ravel().tolist()


def test_strings_may_be_in_tensor_content_and_of_fixed_length() -> None:
    content = tf.io.serialize_tensor(tf.constant([b"a", b"long"])).numpy()
    assert read_tensor(TensorProto.FromString(content), "x").tolist() == [b"a", b"long"]
    packed = TensorProto(dtype=tf.string.as_datatype_enum, tensor_content=b"\x01\x04along")
    packed.tensor_shape.dim.add(size=2)
    assert read_tensor(packed, "x").tolist() == [b"a", b"long"]
    assert read_tensor(written(np.array([b"a", b"bc"])), "x").tolist() == [b"a", b"bc"]


def tensor(dtype: tf.DType, shape: tuple[int, ...], **values: object) -> TensorProto:
    made = TensorProto(dtype=dtype.as_datatype_enum, **values)
    for size in shape:
        made.tensor_shape.dim.add(size=size)
    return made


def test_fewer_values_than_the_shape_are_filled_up_as_tensorflow_does() -> None:
    np.testing.assert_array_equal(read_tensor(tensor(tf.float32, (2, 2), float_val=[1, 2]), "x"), [[1, 2], [2, 2]])
    np.testing.assert_array_equal(read_tensor(tensor(tf.int32, (3,)), "x"), [0, 0, 0])
    assert read_tensor(tensor(tf.string, (2,)), "x").tolist() == [b"", b""]
    assert read_tensor(tensor(tf.string, (2,), string_val=[b"a"]), "x").tolist() == [b"a", b"a"]
    np.testing.assert_array_equal(
        read_tensor(tensor(tf.complex64, (2,), scomplex_val=[1, 2]), "x"), np.array([1 + 2j, 1 + 2j], np.complex64)
    )


def test_any_byte_but_zero_is_true() -> None:
    assert read_tensor(tensor(tf.bool, (3,), tensor_content=b"\x00\x01\x02"), "x").tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("malformed", "message"),
    [
        (tensor(tf.float32, (1, 4), tensor_content=bytes(12)), r"x: .*\(1, 4\).*float32 has 16 bytes\. Received: 12"),
        (tensor(tf.float32, (1, 2), float_val=[1, 2, 3]), r"\(1, 2\) has 2 values\. Received: 3 values in float_val"),
        (tensor(tf.float32, (2,), double_val=[1, 2]), "tensor_content or float_val. Received: double_val"),
        (tensor(tf.float32, (-1, 2), float_val=[1, 2]), r"without unknown sizes\. Received: \(-1, 2\)"),
        (tensor(tf.resource, ()), "Received: DataType 20"),
        (TensorProto(), "Received: DataType 0"),
        (tensor(tf.string, (3,), tensor_content=b"\x01a"), "no encoding of strings"),
    ],
)
def test_malformed_tensors_are_refused(malformed: TensorProto, message: str) -> None:
    with pytest.raises(RequestError, match=message) as refused:
        read_tensor(malformed, "x")
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert str(refused.value).startswith("tensor parsing error: x: ")


def test_an_unknown_rank_is_refused() -> None:
    malformed = tensor(tf.float32, ())
    malformed.tensor_shape.unknown_rank = True
    with pytest.raises(RequestError, match="of unknown rank"):
        read_tensor(malformed, "x")


def test_a_few_bytes_cannot_ask_for_all_memory() -> None:
    bomb = tensor(tf.float32, (1 << 20, 1 << 20), float_val=[1])
    started = time.thread_time()  # not the clock on the wall, which goes on while others have the processor
    with pytest.raises(RequestError, match="more than the 1000000 bytes") as refused:
        read_tensor(bomb, "x", max_bytes=1_000_000)
    assert refused.value.code is Code.RESOURCE_EXHAUSTED
    assert time.thread_time() - started < 0.5


def test_a_dtype_without_a_field_is_told() -> None:
    with pytest.raises(RequestError, match="datetime64") as refused:
        write_tensor(TensorProto(), np.array(["2024-01-01"], "datetime64[D]"))
    assert refused.value.code is Code.UNIMPLEMENTED
