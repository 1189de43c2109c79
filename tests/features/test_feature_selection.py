"""Each method keeps what tells of the targets, and leaves out what does not."""

from typing import Any

import numpy as np
import pytest

from tfopt.errors import ConfigError, DataError
from tfopt.features import select

pytestmark = pytest.mark.slow

METHODS = ("mutual_information", "rfe", "permutation", "l1")
SAMPLES = 600


def table(*, constant: bool = True) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    x = {
        "noise": generator.normal(size=SAMPLES),
        "age": generator.normal(40, 10, SAMPLES),
        "number": np.array([f"row {index}" for index in range(SAMPLES)]),
        "work": generator.choice(["private", "state", "none"], SAMPLES),
        "letter": generator.choice(list("abc"), SAMPLES),
        "rooms": generator.integers(1, 9, SAMPLES),
    }
    return x | {"constant": np.ones(SAMPLES), "same": ["x"] * SAMPLES} if constant else x


def value(x: dict[str, Any]) -> np.ndarray:
    luck = np.random.default_rng(1).normal(0, 0.5, SAMPLES)
    return 0.1 * (x["age"] - 40) + 2.0 * (x["work"] == "state") + 0.4 * x["rooms"] + luck


TARGETS = {
    "two classes": lambda x: value(x) > 2.5,
    "three classes": lambda x: np.array(["low", "middle", "high"])[np.digitize(value(x), [1.5, 3.5])],
    "values": value,
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("targets", TARGETS)
def test_what_tells_of_the_targets_is_kept_and_noise_is_not(method, targets) -> None:
    x = table()
    selection = select(x, TARGETS[targets](x), method)
    rows = {row.name: row for row in selection.rows}
    useful = {"age", "work", "rooms"}
    # A forest is often as good, or better by chance, with a column of noise more.
    assert set(selection.kept) >= useful if method == "rfe" else set(selection.kept) == useful
    assert list(rows) == list(x)
    assert min(rows[name].score for name in useful) > max(rows[name].score for name in ("noise", "letter"))
    assert all(row.score >= 0 for row in rows.values())
    assert {rows[name].reason for name in ("constant", "same")} == {"it has one value throughout"}
    assert (rows["age"].kind, rows["work"].kind) == ("number", "words")


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_selects_the_same(method) -> None:
    x = table(constant=False)
    y = TARGETS["two classes"](x)
    assert select(x, y, method, max_samples=200).rows == select(x, y, method, max_samples=200).rows


@pytest.mark.parametrize("method", METHODS)
def test_no_more_than_asked_for_is_kept_and_the_best(method) -> None:
    x = table()
    one = select(x, TARGETS["values"](x), method, keep=1)
    best = max(one.rows, key=lambda row: row.score)
    assert one.kept == (best.name,)
    many = select(x, TARGETS["values"](x), method, keep=5)
    assert len(many.kept) == 5
    assert set(many.kept) >= {"age", "work", "rooms"}


def test_of_equal_columns_the_earlier_one_is_kept_and_the_table_says_so() -> None:
    column = np.random.default_rng(0).integers(0, 4, 300)
    selection = select(np.stack([column, column, column], axis=1), column > 1, keep=2, names=["a", "b", "c"])
    assert selection.kept == ("a", "b")
    assert selection.rows[2].reason.startswith("as good as 'b', which comes first")


def test_a_column_that_counts_the_samples_tells_nothing() -> None:
    x = table(constant=False)
    for method in METHODS:
        selection = select({name: x[name] for name in ("number", "work")}, x["work"] == "state", method)
        assert selection.kept == ("work",)


def test_what_only_two_columns_together_tell_is_seen_by_trees() -> None:
    generator = np.random.default_rng(0)
    x = np.concatenate([np.tile([[0, 0], [0, 1], [1, 0], [1, 1]], (150, 1)), generator.normal(size=(600, 2))], axis=1)
    y = x[:, 0] != x[:, 1]
    assert select(x, y, "permutation").kept == ("column_0", "column_1")
    for method in ("l1", "mutual_information"):
        with pytest.raises(DataError, match=f"no column is useful by {method}.*keep=N"):
            select(x[:, :2], y, method)
    assert select(x[:, :2], y, "l1", keep=1).rows[0].reason == "no linear relation to y"


def test_a_single_column_is_kept_by_elimination() -> None:
    x = np.random.default_rng(0).normal(size=(60, 1))
    assert select(x, x[:, 0] > 0, "rfe").kept == ("column_0",)


def test_printing_gives_a_table_with_the_best_first() -> None:
    x = table()
    lines = str(select(x, TARGETS["two classes"](x))).splitlines()
    assert lines[0].split()[:5] == ["column", "kind", "nats", "above", "chance"]
    assert {line.split()[0] for line in lines[1:4]} == {"age", "work", "rooms"}
    assert all("kept" in line for line in lines[1:4])
    assert lines[-1] == "3 of 8 columns kept by mutual_information: 2 classes, 600 samples"


def test_rare_classes_and_few_samples_are_told() -> None:
    x = table()
    y = np.zeros(SAMPLES, int)
    y[:4] = 1
    with pytest.raises(DataError, match="1 of the class 1"):
        select(x, y, max_samples=200)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"method": "pca"}, ConfigError, "mutual_information, rfe, permutation, l1. Received: 'pca'"),
        ({"keep": 0}, ConfigError, "select: keep must be a whole number of at least 1"),
        ({"keep": 7}, ConfigError, "7 of them. Received: 6 of 8"),
        ({"max_samples": 5}, ConfigError, "max_samples"),
        ({"vocabulary_size": 0}, ConfigError, "vocabulary_size"),
        ({"task": "ranking"}, ConfigError, "ranking"),
        ({"x": {"a": np.ones(SAMPLES)}}, DataError, "at least 1 of them. Received: 0 of 1"),
        ({"x": {"a": [1.0, np.nan] * (SAMPLES // 2)}}, DataError, "300 missing"),
    ],
)
def test_what_cannot_be_is_refused(changed, error, message) -> None:
    x = table()
    arguments = {"x": x, "y": TARGETS["two classes"](x), **changed}
    with pytest.raises(error, match=message):
        select(arguments.pop("x"), arguments.pop("y"), **arguments)
