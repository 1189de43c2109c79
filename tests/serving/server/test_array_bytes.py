"""Arrays come back from bytes as they were, and nothing else does."""

import contextlib
import pickle

import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays

from tfopt.errors import DataError
from tfopt.serving.server.array_bytes import ALIGNMENT, from_bytes, to_bytes

NUMBERS = [np.dtype(name) for name in ("bool", "i1", "u2", "<i4", ">i8", "f2", "f4", "f8", "c8", "S3", "U2")]
NUMBERS += [np.dtype(kind) for kind in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)]


@st.composite
def named_arrays(draw: st.DrawFn) -> dict[str, np.ndarray]:
    made = {}
    for name in draw(st.lists(st.text(max_size=3), unique=True, max_size=4)):
        shape = draw(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
        dtype = draw(st.sampled_from([*NUMBERS, np.dtype(object)]))
        count = int(np.prod(shape))
        if dtype.hasobject:
            flat = np.empty(count, object)
            flat[:] = draw(st.lists(st.binary(max_size=9) | st.text(max_size=5), min_size=count, max_size=count))
        elif dtype.kind == "U":
            flat = np.array(draw(st.lists(st.text("aé", max_size=2), min_size=count, max_size=count)), dtype)
        else:
            size = count * dtype.itemsize
            content = draw(st.binary(min_size=size, max_size=size))
            flat = np.frombuffer(content, np.uint8)
            flat = (flat > 127) if dtype.kind == "b" else flat.view(dtype)
        made[name] = flat.reshape(shape)
    return made


@given(named_arrays(), st.binary(max_size=16))
def test_arrays_come_back_to_the_last_bit(made: dict[str, np.ndarray], tag: bytes) -> None:
    read = from_bytes(to_bytes(made, tag=tag), tag=tag)
    assert list(read) == list(made)
    for name, array in made.items():
        assert read[name].dtype == array.dtype
        assert read[name].shape == array.shape
        assert not read[name].flags.writeable
        if array.dtype.hasobject:
            assert read[name].tolist() == array.tolist()
        else:
            assert read[name].tobytes() == array.tobytes()
            assert read[name].flags.aligned


def test_arrays_in_any_layout() -> None:
    array = np.arange(24.0).reshape(4, 6)[::2, ::-3]
    np.testing.assert_array_equal(from_bytes(to_bytes({"y": array}))["y"], array)
    assert len(to_bytes({"y": array})) % ALIGNMENT == 0


def test_content_of_another_key_is_refused() -> None:
    with pytest.raises(DataError, match="it belongs to another key"):
        from_bytes(to_bytes({"y": np.ones(1)}, tag=b"a"), tag=b"b")


@given(st.data())
def test_damaged_content_is_refused_or_read_but_never_breaks(data: st.DataObject) -> None:
    whole = to_bytes({"y": np.arange(5.0), "t": np.array([b"abc", "d"], object)})
    cut = data.draw(st.integers(0, len(whole) - ALIGNMENT))
    with pytest.raises(DataError, match="expected arrays as to_bytes writes them"):
        from_bytes(whole[:cut])
    place, value = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 255))
    damaged = whole[:place] + bytes([value]) + whole[place + 1 :]
    with contextlib.suppress(DataError):
        from_bytes(damaged)


def test_pickle_is_neither_read_nor_written() -> None:
    with pytest.raises(DataError, match="it does not begin as expected"):
        from_bytes(pickle.dumps({"y": np.ones(2)}))
    with pytest.raises(DataError, match=r"expected bytes or str in the object array y\. Received: dict"):
        to_bytes({"y": np.array([{}], object)})
