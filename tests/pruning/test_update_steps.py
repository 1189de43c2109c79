import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfopt.errors import ConfigError
from tfopt.pruning.update_steps import UpdateSteps, read_schedule
from tfopt.schedules import constant


class TfmotSchedule:
    """What a schedule of tfmot has, without its tensors."""

    def __init__(self, begin_step, end_step, frequency):
        self.begin_step, self.end_step, self.frequency = begin_step, end_step, frequency

    def should_prune(self, step):
        within = step >= self.begin_step and (step <= self.end_step or self.end_step < 0)
        return within and (step - self.begin_step) % self.frequency == 0

    def __call__(self, step):
        return self.should_prune(step), np.float32(step / 1000)


@given(st.integers(0, 30), st.one_of(st.just(-1), st.integers(0, 40)), st.integers(1, 12), st.integers(0, 60))
def test_updates_are_due_where_tfmot_prunes(begin, length, frequency, step):
    schedule = TfmotSchedule(begin, length if length < 0 else begin + length, frequency)
    read, steps = read_schedule("x", schedule, 0, None, 100)
    # tfmot's step t is before batch t, after t - 1 updates of the weights.
    pruned = [t - 1 for t in range(1, step + 2) if schedule.should_prune(t)]
    assert steps.latest(step) == (pruned[-1] if pruned else None)
    for due in pruned[-1:]:
        assert read(due) == np.float32((due + 1) / 1000)
        assert isinstance(read(due), np.float32)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 9), st.integers(0, 60))
def test_native_steps_end_with_an_update(begin, length, frequency, step):
    steps = UpdateSteps(begin, begin + length, frequency)
    due = [s for s in range(begin, begin + length) if (s - begin) % frequency == 0] + [begin + length]
    assert steps.latest(step) == max((s for s in due if s <= step), default=None)
    assert steps.last == begin + length


def test_steps_without_end():
    schedule, steps = read_schedule("x", constant(0.5), 3, None, 10)
    assert schedule(7) == 0.5
    assert [steps.latest(step) for step in (2, 3, 1_000)] == [None, 3, 993]
    assert steps.last is None


def test_a_schedule_of_tfmot_that_never_prunes_has_no_last_step():
    _, steps = read_schedule("x", TfmotSchedule(0, 0, 100), 0, None, 100)
    assert steps.last is None
    assert steps.latest(50) is None


@pytest.mark.parametrize("besides", [{"begin_step": 1}, {"end_step": 5}, {"frequency": 7}])
def test_steps_beside_a_schedule_that_has_its_own_are_refused(besides):
    (name, value) = next(iter(besides.items()))
    arguments = {"begin_step": 0, "end_step": None, "frequency": 100, **besides}
    with pytest.raises(
        ConfigError, match=rf"^x: the schedule TfmotSchedule has steps .*{name}={value}.* Leave them out"
    ):
        read_schedule("x", TfmotSchedule(0, 10, 2), **arguments)
