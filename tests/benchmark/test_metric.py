import numpy as np
import pytest

from tfopt.benchmark.metric import check_metric, is_regression, score
from tfopt.errors import ConfigError, DataError

THREE = np.array([[0.1, 0.9, 0.0], [0.7, 0.2, 0.1], [0.3, 0.3, 0.4]])


@pytest.mark.parametrize("targets", [[1, 0, 1], [[1], [0], [1]], [[0, 1, 0], [1, 0, 0], [0.0, 1, 0]]])
def test_class_numbers_and_one_hot_rows_are_top1_accuracy(targets):
    result = score(np.array(targets), [THREE])
    assert (result.metric, result.value) == ("top-1 accuracy", pytest.approx(2 / 3))


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
@pytest.mark.parametrize("dtype", [int, bool])
def test_one_sigmoid_output_is_thresholded(shape, dtype):
    result = score(np.array([1, 0, 1, 0], dtype), [np.array([0.9, 0.2, 0.4, 0.1]).reshape(shape)])
    assert (result.metric, result.value) == ("accuracy at threshold 0.5", 0.75)


def test_a_logit_is_not_taken_for_a_probability():
    with pytest.raises(DataError, match=r"must be a probability in \[0, 1\]. Received values in \[-2, 3\]"):
        score([0, 1], [np.array([[-2.0], [3.0]])])


def test_float_targets_are_r2_also_where_one_axis_is_missing():
    predictions = np.array([[0.1], [0.9], [2.1]])
    result = score([0.0, 1.0, 2.0], [predictions])
    residual = np.sum((np.array([0, 1, 2]) - predictions[:, 0]) ** 2)
    assert (result.metric, result.value) == ("R²", pytest.approx(1 - residual / 2))


def test_the_metric_can_be_chosen():
    assert score([0.0, 1.0], [np.array([[0.2], [0.9]])], "accuracy").value == 1.0
    assert score([1, 2, 3], [np.array([[1.0], [2.0], [3.0]])], "r2").value == 1.0


def test_a_callable_is_given_all_outputs_and_names_the_metric():
    def heads(targets, predictions):
        return float(len(predictions) + targets)

    result = score(5, [THREE, THREE], heads)
    assert (result.metric, result.value) == ("heads", 7.0)


def test_several_outputs_need_a_callable():
    with pytest.raises(ConfigError, match="2 outputs and no metric"):
        score([0, 1, 2], [THREE, THREE])


@pytest.mark.parametrize("targets", [[0, 1], [[0, 1], [1, 0], [0, 1]], ["a", "b", "c"], [0.5, 1.5]])
def test_targets_that_do_not_fit_are_refused(targets):
    with pytest.raises(DataError, match="benchmark: "):
        score(targets, [THREE])


def test_a_metric_that_is_not_finite_is_refused():
    with pytest.raises(DataError, match=r"finite number\. Received: nan"):
        score([0, 1, 2], [THREE], lambda targets, predictions: float("nan"))


def test_an_unknown_metric_is_refused_before_anything_runs():
    with pytest.raises(ConfigError, match="Received: 'f1'"):
        check_metric("f1")


@pytest.mark.parametrize(
    ("targets", "outputs", "metric", "expected"),
    [
        ([0.5, 1.5], [np.zeros((2, 1))], None, True),
        ([0.5, 1.5], [np.zeros(2)], lambda targets, predictions: 1.0, True),
        ([1, 2], [np.zeros((2, 1))], "r2", True),
        ([1, 0], [np.zeros((2, 1))], None, False),
        ([1, 0], [np.zeros((2, 3))], None, False),
        ([[1.0, 0], [0, 1.0]], [np.zeros((2, 2))], None, False),
        ([0.5, 1.5], [np.zeros((2, 1))], "accuracy", False),
        ([0.5, 1.5], [np.zeros((2, 1)), np.zeros((2, 1))], lambda targets, predictions: 1.0, False),
        ([[0.5, 1.5]], [np.zeros((1, 3))], lambda targets, predictions: 1.0, False),
        (["a", "b"], [np.zeros((2, 1))], lambda targets, predictions: 1.0, False),
    ],
)
def test_quantities_are_told_from_classes(targets, outputs, metric, expected):
    assert is_regression(targets, outputs, metric) is expected
