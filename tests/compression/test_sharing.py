import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tfopt.compression.sharing import MAXIMUM_SHARED_VALUES, shared_values


@given(
    arrays(np.float32, array_shapes(max_dims=4, max_side=8), elements=st.integers(-3, 3).map(lambda whole: whole / 7))
)
def test_values_and_indices_give_the_weights_back(weights):
    found = shared_values(weights)
    distinct = np.unique(weights).size
    if distinct < 2 or 4 * distinct >= weights.size:
        assert found is None
    else:
        values, indices = found
        assert values.tolist() == sorted(set(weights.reshape(-1).tolist()))
        assert indices.dtype == np.int32
        np.testing.assert_array_equal(values[indices], weights)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_any_float_is_read(dtype):
    weights = keras.ops.convert_to_numpy(keras.ops.cast([0.5, -0.25, 0.0] * 10, dtype))
    values, indices = shared_values(weights)
    assert values.dtype == weights.dtype
    np.testing.assert_array_equal(values[indices], weights)


def test_a_codebook_has_at_most_256_values():
    codes = np.arange(300, dtype=np.float32)
    assert shared_values(np.tile(codes[:MAXIMUM_SHARED_VALUES], 8))[0].size == 256
    assert shared_values(np.tile(codes[:257], 8)) is None
    # The distinct ones may also come late.
    assert shared_values(np.concatenate([np.zeros(2000, np.float32), codes])) is None


@pytest.mark.parametrize("seed", range(3))
def test_trained_weights_do_not_share_values(seed):
    weights = np.random.default_rng(seed).normal(size=(64, 32)).astype(np.float32)
    assert shared_values(weights) is None
    assert shared_values(weights.astype(np.float16).astype(np.float32)) is None


@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_a_kernel_of_one_value_has_just_been_initialized(constant):
    assert shared_values(np.full((8, 8), constant)) is None


@pytest.mark.parametrize("axis", [-1, -2])
def test_each_channel_may_have_a_codebook_of_its_own(axis):
    generator = np.random.default_rng(0)
    channels = [generator.choice(generator.normal(size=4), (3, 3, 16)) for _ in range(100)]
    channels[7][:] = 0  # one that was pruned away
    weights = np.stack(channels, axis=axis).astype(np.float32)
    values, indices = shared_values(weights)
    assert values.size == 4 * 99 + 1
    np.testing.assert_array_equal(values[indices], weights)
    channels[3] = generator.normal(size=(3, 3, 16))
    assert shared_values(np.stack(channels, axis=axis)) is None
