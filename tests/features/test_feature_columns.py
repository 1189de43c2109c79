"""Tables and targets are read as they are, or refused by name."""

import numpy as np
import pytest

from tfopt.errors import ConfigError, DataError
from tfopt.features.columns import read_table
from tfopt.features.target import read_target


class Frame:
    """What of a data frame is used."""

    columns = ("age", "work")

    def __getitem__(self, name: str) -> list[object]:
        return {"age": [1, 2], "work": ["a", "b"]}[name]


def test_an_array_is_one_input_and_a_mapping_is_not() -> None:
    array = read_table(np.arange(6).reshape(3, 2))
    assert [column.name for column in array.columns] == ["column_0", "column_1"]
    assert array.is_array
    assert array.columns[1].values.tolist() == [1.0, 3.0, 5.0]
    assert read_table(np.zeros((3, 1), bool), ["flag"]).columns[0].values.dtype == np.float64
    mapping = read_table({"flag": [True, False], "word": np.array([["x"], ["y"]], dtype=object)})
    assert not mapping.is_array
    assert [column.holds_words for column in mapping.columns] == [False, True]


def test_a_data_frame_and_an_array_of_objects_are_read_by_column() -> None:
    assert [column.holds_words for column in read_table(Frame()).columns] == [False, True]
    table = read_table(np.array([[1.5, "a"], [2.5, "b"]], dtype=object), ["size", "word"])
    assert table.columns[0].values.tolist() == [1.5, 2.5]
    assert not table.is_array
    assert read_table({"word": [b"a", b"b"]}).columns[0].values.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ({"age": np.array([1.0, np.nan, 3.0])}, r"'age' must hold finite values\. Received: 1 missing \(NaN\) of 3"),
        (np.array([[1.0], [np.inf]]), r"'column_0' .* 1 infinite"),
        ({"huge": [1e60, 1.0]}, "beyond float32"),
        ({"work": ["a", None]}, r"'work' .* 1 missing \(None or NaN\)"),
        ({"work": ["a", float("nan")]}, "1 missing"),
        ({"mixed": [1, "a", 2]}, "Received: int, str"),
        ({"day": np.array(["2020-01-01"], dtype="datetime64[D]")}, "Turn dates"),
        ({"pair": np.zeros((3, 2))}, r"one value for each sample\. Received: shape \(3, 2\)"),
        ({"a": [1, 2], "b": [1]}, r"one length, at least 1\. Received: \{'a': 2, 'b': 1\}"),
        (np.zeros(3), r"shape \(3,\)"),
        (np.zeros((0, 3)), r"shape \(0, 3\)"),
    ],
)
def test_what_is_no_table_of_finite_values_is_refused(x, message) -> None:
    with pytest.raises(DataError, match=message):
        read_table(x)


@pytest.mark.parametrize("names", [["a", "a"], ["a", "b/c"], ["a", ""], ["a", 1], ["a"]])
def test_names_that_cannot_be_inputs_are_refused(names) -> None:
    with pytest.raises(ConfigError, match=r"[nN]ames"):
        read_table(np.zeros((2, 2)), names)


def test_names_are_not_given_twice() -> None:
    with pytest.raises(ConfigError, match="which has its own"):
        read_table({"a": [1]}, ["b"])


def test_the_kind_of_task_is_seen_or_told() -> None:
    assert read_target([0.5] * 5 + [1.5] * 5, 10).task == "regression"
    assert read_target(np.arange(12), 12, "regression").classes is None
    classes = read_target(np.array([[5], [2], [5], [2], [5], [2]]), 6)
    assert classes.classes == (2, 5)
    assert classes.values.tolist() == [1, 0, 1, 0, 1, 0]
    assert read_target(np.array([0.0, 1.0] * 3), 6, "classification").classes == (0.0, 1.0)
    assert read_target(np.array([True, False] * 3), 6).classes == (False, True)


@pytest.mark.parametrize(
    ("y", "task", "message"),
    [
        ([0, 1, 1, 1, 0, 1], None, "Received: 2 of the class 0"),
        ([1] * 6, None, "Received: one class"),
        (np.eye(6), None, r"y\.argmax\(axis=1\)"),
        ([0, 1], None, r"each of 6 samples\. Received: shape \(2,\)"),
        ([0.5, np.nan, 1, 2, 3, 4], None, "1 NaN"),
        ([1.5] * 6, None, "not all the same"),
        (["a", "b"] * 3, "regression", "fit the task regression"),
    ],
)
def test_targets_that_do_not_fit_are_refused(y, task, message) -> None:
    with pytest.raises(DataError, match=message):
        read_target(y, 6, task)


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="Received: 'ranking'"):
        read_target([0, 1], 2, "ranking")
