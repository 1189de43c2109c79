"""The columns of a table, as numbers or words: read from arrays, mappings and data frames, or a clear error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfopt.errors import ConfigError, DataError

__all__ = ["Column", "Table", "read_table"]


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a table.

    Args:
        name: what it is called.
        values: of shape `(n,)`: float64, or text where the column holds words.
    """

    name: str
    values: np.ndarray

    @property
    def holds_words(self) -> bool:
        """Whether its values are words, not numbers."""
        return self.values.dtype.kind == "U"

    @property
    def is_constant(self) -> bool:
        """Whether all values are the same."""
        return bool(np.all(self.values == self.values[0]))


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of one length.

    Args:
        columns: at least one, with at least one sample.
        is_array: whether they came as one array of numbers, which a model takes as one input.
    """

    columns: tuple[Column, ...]
    is_array: bool

    @property
    def samples(self) -> int:
        """How many rows there are."""
        return len(self.columns[0].values)

    def at(self, rows: np.ndarray) -> Table:
        """Some of the rows."""
        return Table(tuple(Column(column.name, column.values[rows]) for column in self.columns), self.is_array)


def read_table(x: Any, names: Sequence[str] | None = None) -> Table:
    """Reads columns.

    Args:
        x: an array of shape `(n, columns)`; a mapping from names to arrays of n values; or a data frame. A column
            holds numbers or words; truth values are the numbers 0 and 1.
        names: of the columns of an array; by default column_0, column_1, ….

    Raises:
        DataError: if a value is missing (NaN, None) or infinite, a column mixes numbers and words or holds something
            else, or the lengths differ.
        ConfigError: if there are not as many names as columns, or they are not unique.

    Example:
        >>> table = read_table({"age": [31, 47], "work": ["private", "state"]})
        >>> [(column.name, column.holds_words) for column in table.columns]
        [('age', False), ('work', True)]
    """
    if isinstance(x, Mapping) or (hasattr(x, "columns") and hasattr(x, "__getitem__")):
        if names is not None:
            raise ConfigError(
                "names are those of an array's columns. Received: names with a mapping, which has its own."
            )
        keys = list(x) if isinstance(x, Mapping) else list(x.columns)
        raw = {key: x[key] for key in keys}
        is_array = False
    else:
        array = np.asarray(x)
        if array.ndim != 2 or 0 in array.shape:
            raise DataError(
                "Expected a table: an array of shape (n, columns), or a mapping from names to columns. "
                f"Received: shape {array.shape}."
            )
        is_array = array.dtype.kind in "biuf"
        keys = [f"column_{index}" for index in range(array.shape[1])] if names is None else list(names)
        if len(keys) != array.shape[1]:
            raise ConfigError(
                f"names must have one for each of the {array.shape[1]} columns. Received: {len(keys)} names."
            )
        raw = dict(zip(keys, array.T, strict=True))
    _check_names(keys)
    columns = tuple(Column(name, _values(name, values)) for name, values in raw.items())
    lengths = {column.name: len(column.values) for column in columns}
    if len(set(lengths.values())) > 1 or not all(lengths.values()):
        raise DataError(f"Expected columns of one length, at least 1. Received: {lengths}.")
    return Table(columns, is_array)


def _check_names(names: Sequence[Any]) -> None:
    wrong = [name for name in names if not isinstance(name, str) or not name or "/" in name]
    if not names or wrong or len(set(names)) < len(names):
        raise ConfigError(
            "Names of columns must be unique texts without '/', since they name the inputs of a Keras model. "
            f"Received: {wrong or list(names)}."
        )


def _values(name: str, raw: Any) -> np.ndarray:
    # NumPy would make words of [1, "a"] and of ["a", nan].
    values = np.asarray(raw) if hasattr(raw, "dtype") else np.array(raw, dtype=object)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(f"The column '{name}' must have one value for each sample. Received: shape {values.shape}.")
    if values.dtype.kind == "S":
        return np.char.decode(values, "utf-8")
    if values.dtype.kind == "O":
        values = _uniform(name, values)
    if values.dtype.kind == "U":
        return values
    if values.dtype.kind not in "biuf":
        raise DataError(
            f"The column '{name}' must hold numbers or words. Received: dtype {values.dtype}. "
            "Turn dates and the like into numbers first."
        )
    # A model computes in float32, where larger numbers are infinite.
    with np.errstate(over="ignore"):
        unusable = ~np.isfinite(values.astype(np.float32))
    if np.any(unusable):
        missing = int(np.sum(np.isnan(values))) if values.dtype.kind == "f" else 0
        received = f"{missing} missing (NaN)" if missing else f"{int(unusable.sum())} infinite or beyond float32"
        raise _missing(name, f"{received} of {len(values)} values")
    return values.astype(np.float64)


def _uniform(name: str, values: np.ndarray) -> np.ndarray:
    """Python objects as text or as numbers."""
    items = [item.decode() if isinstance(item, bytes) else item for item in values.tolist()]
    missing = sum(item is None or (isinstance(item, float) and item != item) for item in items)
    if missing:
        raise _missing(name, f"{missing} missing (None or NaN) of {len(items)} values")
    if all(isinstance(item, str) for item in items):
        return np.array(items, dtype=np.str_)
    if all(isinstance(item, (int, float, np.number)) for item in items):
        return np.array(items, dtype=np.float64)
    kinds = sorted({type(item).__name__ for item in items})
    raise DataError(
        f"The column '{name}' must hold numbers or words throughout. Received: {', '.join(kinds)}. "
        "Give codes as words: [str(value) for value in column]."
    )


def _missing(name: str, received: str) -> DataError:
    return DataError(
        f"The column '{name}' must hold finite values. Received: {received}. Fill them (numbers by their median, words "
        "by one that says so, such as 'unknown'), or leave out those rows."
    )
