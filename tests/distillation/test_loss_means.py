import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfopt.distillation.loss_means import LossMeans

BATCHES = st.lists(
    st.tuples(st.floats(0, 10, width=32), st.floats(0, 10, width=32), st.integers(1, 64)), min_size=1, max_size=5
)


@given(batches=BATCHES)
def test_each_loss_has_the_mean_over_the_samples(batches):
    means = LossMeans(["student", "logits"])
    for student, logits, samples in batches:
        means.update_state({"logits": logits, "student": student}, samples=samples)
    *losses, samples = np.array(batches).T
    found = means.result()
    assert list(found) == ["student_loss", "logits_loss"]
    expected = [np.average(loss, weights=samples) for loss in losses]
    assert [float(mean) for mean in found.values()] == pytest.approx(expected, rel=1e-5)


def test_an_epoch_begins_anew():
    means = LossMeans(["student"])
    assert float(means.result()["student_loss"]) == 0
    means.update_state({"student": 3.0}, samples=2)
    means.reset_state()
    means.update_state({"student": 1.0}, samples=1)
    assert float(means.result()["student_loss"]) == 1
