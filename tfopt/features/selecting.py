"""The verb `select`: which columns of a table are worth a model's input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from sklearn.model_selection import train_test_split

from tfopt.errors import ConfigError, DataError
from tfopt.features.columns import Column, Table, read_table
from tfopt.features.elimination import judge_by_elimination
from tfopt.features.feature_selection import FeatureRow, FeatureSelection
from tfopt.features.judgement import Judgement
from tfopt.features.l1 import judge_by_l1
from tfopt.features.mutual_information import judge_by_mutual_information
from tfopt.features.permutation import judge_by_permutation
from tfopt.features.preprocessing import prepare
from tfopt.features.target import Target, Task, read_target
from tfopt.schedules.arguments import check_steps

__all__ = ["Method", "select"]

Method = Literal["mutual_information", "rfe", "permutation", "l1"]
Judge = Callable[[Sequence[Column], Target, int], Judgement]

METHODS: dict[str, tuple[Judge, str]] = {
    "mutual_information": (judge_by_mutual_information, "nats above chance"),
    "rfe": (judge_by_elimination, "outlived"),
    "permutation": (judge_by_permutation, "score lost"),
    "l1": (judge_by_l1, "coefficient"),
}


def select(
    x: Any,
    y: Any,
    method: Method = "mutual_information",
    *,
    keep: int | None = None,
    task: Task | None = None,
    names: Sequence[str] | None = None,
    max_samples: int = 10_000,
    vocabulary_size: int = 256,
    seed: int = 0,
) -> FeatureSelection:
    """Tells which columns of a table a model needs, and makes a model that takes those alone.

    Use it on tabular data before training: fewer columns are less to collect, to send and to compute. Give training
    samples only. A column of one value is never kept; where scores are equal, the earlier column comes first.

    Args:
        x: an array of shape `(n, columns)`; a mapping from names to arrays of n values; or a data frame. A column holds
            numbers or words (categories); give codes as words.
        y: n classes (whole numbers, truth values, words) or n float values.
        method: "mutual_information": what each column alone tells of the targets, linear or not; fast.
            "rfe": recursive feature elimination by a random forest: sees columns together; slow.
            "permutation": what boosted trees lose on samples held out where a column is shuffled.
            "l1": a linear model with an L1 penalty: sees columns together, and only what is linear; no interactions.
        keep: how many columns; by default as many as the method finds useful.
        task: "classification" or "regression"; by default a regression where y holds floats.
        names: of the columns of an array; by default column_0, column_1, ….
        max_samples: so many samples, drawn at random (of each class its share), are scored.
        vocabulary_size: so many words of a column, the commonest, the model tells apart.
        seed: of all that is random; the same seed gives the same selection.

    Returns:
        The selection: print it, read `kept`, build the `model()` and its `inputs(x)`.

    Raises:
        ConfigError: if an argument is not usable, or fewer columns than `keep` vary.
        DataError: if a value is missing, x and y do not fit, a class has less than three samples, or no column is
            useful.

    Example:
        >>> generator = np.random.default_rng(0)
        >>> x = {"age": generator.normal(40, 9, 300), "shoe": generator.normal(42, 2, 300),
        ...      "work": generator.choice(["private", "state"], 300)}
        >>> y = (x["age"] > 40) | (x["work"] == "state")
        >>> select(x, y).kept
        ('age', 'work')

    References: Guyon & Elisseeff 2003, An introduction to variable and feature selection, JMLR 3.
    """
    if method not in METHODS:
        raise ConfigError(f"select: method must be one of {', '.join(METHODS)}. Received: {method!r}.")
    if keep is not None:
        check_steps("select: keep", keep, minimum=1)
    check_steps("select: max_samples", max_samples, minimum=30)
    check_steps("select: vocabulary_size", vocabulary_size, minimum=1)
    table = read_table(x, names)
    target = read_target(y, table.samples, task)
    judged, judged_target = _drawn(table, target, max_samples, seed)
    places = [index for index, column in enumerate(judged.columns) if not column.is_constant]
    if not places or (keep is not None and keep > len(places)):
        raise (ConfigError if keep and places else DataError)(
            f"select: expected columns that vary, {keep or 'at least 1'} of them. "
            f"Received: {len(places)} of {len(table.columns)}; the others have one value throughout."
        )
    judge, score_name = METHODS[method]
    judgement = judge([judged.columns[place] for place in places], judged_target, seed)
    rows = _rows(table, places, judgement, keep)
    if not any(row.kept for row in rows):
        raise DataError(
            f"select: no column is useful by {method}: none tells more of y than chance. "
            "Try another method, more samples, or keep=N for the best N all the same."
        )
    return FeatureSelection(
        method=method,
        score_name=score_name,
        task=target.task,
        classes=target.classes,
        rows=rows,
        samples=judged.samples,
        one_input=table.is_array,
        _preparations=tuple(
            prepare(column, vocabulary_size) for column, row in zip(table.columns, rows, strict=True) if row.kept
        ),
        _value_scale=(0.0, 1.0)
        if target.classes is not None
        else (float(target.values.mean()), float(target.values.std())),
    )


def _drawn(table: Table, target: Target, most: int, seed: int) -> tuple[Table, Target]:
    if table.samples <= most:
        return table, target
    stratify = None if target.classes is None else target.values
    rows = np.arange(table.samples)
    rest = table.samples - most
    if target.classes is not None and min(most, rest) < len(target.classes):
        raise ConfigError(f"select: max_samples must be above the {len(target.classes)} classes. Received: {most}.")
    chosen, _ = train_test_split(rows, train_size=most, test_size=rest, stratify=stratify, random_state=seed)
    chosen = np.sort(chosen)
    drawn = target.at(chosen)
    if drawn.classes is not None:
        read_target(drawn.values, len(chosen))  # each class must still be there
    return table.at(chosen), drawn


def _rows(table: Table, places: Sequence[int], judgement: Judgement, keep: int | None) -> tuple[FeatureRow, ...]:
    scores = np.zeros(len(table.columns))
    scores[places] = judgement.scores
    kept = np.zeros(len(scores), dtype=bool)
    reasons = ["it has one value throughout"] * len(scores)
    for place, reason in zip(places, judgement.reasons, strict=True):
        reasons[place] = reason
    if keep is None:
        kept[np.asarray(places)[judgement.useful]] = True
    else:
        order = sorted(places, key=lambda place: -scores[place])  # stable: of equal ones the earlier comes first
        kept[order[:keep]] = True
        last = order[keep - 1]
        for place in order[keep:]:
            tied = scores[place] == scores[last]
            why = (
                f"as good as '{table.columns[last].name}', which comes first" if tied else f"not among the best {keep}"
            )
            reasons[place] = f"{why}; {reasons[place]}"
    return tuple(
        FeatureRow(
            name=column.name,
            kind="words" if column.holds_words else "number",
            score=float(scores[index]),
            kept=bool(kept[index]),
            reason=reasons[index],
        )
        for index, column in enumerate(table.columns)
    )
