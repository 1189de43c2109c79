"""The array maths that methods share."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tfopt.features.columns import Column
from tfopt.features.judgement import one_standard_error, pooled_codes, with_shuffled


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60), st.integers(1, 10))
def test_the_commonest_words_keep_numbers_of_their_own(words, most) -> None:
    codes, count = pooled_codes(Column("x", np.array(words)), most)
    once = sum(words.count(word) == 1 for word in set(words))
    assert count == min(len(set(words)), most, len(set(words)) - once + 1)
    assert set(codes) == set(range(count))
    counts = np.bincount(codes)
    own = counts[: count - 1]
    assert np.all(own[:-1] >= own[1:])
    for code in range(count - 1):
        assert len({word for word, one in zip(words, codes, strict=True) if one == code}) == 1


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(*[arrays(float, n, elements=st.floats(0, 1))] * 2)))
def test_one_standard_error_is_never_past_the_best(scores) -> None:
    means, deviations = scores
    chosen = one_standard_error(means, deviations, 3)
    best = int(np.argmax(means))
    assert chosen <= best
    assert means[chosen] >= means[best] - deviations[best] / np.sqrt(3)


def test_a_shuffled_copy_holds_the_same_values() -> None:
    codes = np.random.default_rng(0).normal(size=(50, 3))
    both = with_shuffled(codes, seed=1)
    np.testing.assert_array_equal(both[:, :3], codes)
    np.testing.assert_array_equal(np.sort(both[:, 3:], axis=0), np.sort(codes, axis=0))
    assert not np.array_equal(both[:, 3], codes[:, 0])
    assert not np.array_equal(np.argsort(both[:, 3]), np.argsort(both[:, 4]))  # each by itself
