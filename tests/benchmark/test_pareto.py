"""The Pareto front of size, score and latency."""

from hypothesis import given
from hypothesis import strategies as st
from made_reports import made_entry, made_report, timed

from tfopt.benchmark.pareto import pareto_front

figures = st.tuples(st.integers(1, 5), st.sampled_from([0.9, 0.95, 0.99]), st.sampled_from([1.0, 2.0, 4.0]))


def front(*entries):
    return pareto_front(made_report(*entries))


@given(st.lists(figures, min_size=1, max_size=8))
def test_it_is_what_no_other_dominates(rows):
    entries = [made_entry(str(index), size, timed(p50), score=score) for index, (size, score, p50) in enumerate(rows)]

    def dominated(mine):
        return any(
            other[0] <= mine[0] and other[1] >= mine[1] and other[2] <= mine[2] and other != mine for other in rows
        )

    assert front(*entries) == tuple(str(index) for index, row in enumerate(rows) if not dominated(row))


def test_a_difference_that_is_noise_is_none():
    small = made_entry("small", 10, timed(1.02, seed=1), score=0.9)
    assert front(made_entry("large", 20, timed(1.0), score=0.9), small) == ("small",)
    noisy = made_entry("noisy", 10, timed(1.0, seed=1, noise=0.5), score=0.9)
    assert front(made_entry("large", 20, timed(1.0), score=0.9), noisy) == ("large", "noisy")


def test_nothing_is_beaten_in_what_the_other_was_not_measured_in():
    served = made_entry("served", 50, timed(0.5, threads=None), score=0.9)
    assert front(made_entry("float32", 20, timed(1.0), score=0.9), served) == ("float32", "served")
    unscored = made_entry("unscored", 10, timed(0.5))
    assert front(made_entry("float32", 20, timed(1.0), score=0.9), unscored) == ("float32", "unscored")
    assert front(made_entry("float32", 20, timed(1.0), score=0.9), made_entry("bare", 30)) == ("float32",)


def test_equal_files_are_both_on_it_and_failed_ones_are_not():
    twin = made_entry("twin", 10, timed(1.0, seed=1), score=0.9)
    assert front(made_entry("one", 10, timed(1.0), score=0.9), twin) == ("one", "twin")
    assert front(made_entry("one", 10), made_entry("bad", 1, error="it is broken.")) == ("one",)
