"""A CSV file with one row for each epoch of a training."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from tfopt.artifact import write_whole
from tfopt.errors import ConfigError

__all__ = ["EpochTable"]


class EpochTable:
    """Figures of a training, written after each epoch: the file is whole at any moment, and so are its rows.

    Args:
        path: the file, which is written at once. If it exists, its rows of epochs before `first_epoch` stay.
        columns: what follows the column "epoch".
        first_epoch: the first epoch that will be added.

    Raises:
        ConfigError: if the file has other columns, is no such table, or cannot be written; it is left as it was.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "log.csv")
        ...     EpochTable(path, ["sparsity"], first_epoch=0).add(0, {"sparsity": 0.5})
        ...     EpochTable(path, ["sparsity"], first_epoch=1).add(1, {"sparsity": None})
        ...     path.read_text().split()
        ['epoch,sparsity', '0,0.5', '1,']
    """

    def __init__(self, path: Path, columns: Sequence[str], *, first_epoch: int) -> None:
        self._path = path
        self._columns = ["epoch", *columns]
        self._rows = [row for row in self._read() if int(row[0]) < first_epoch]
        self._write()

    def add(self, epoch: int, values: Mapping[str, float | None]) -> None:
        """Adds a row; a value of None leaves its field empty."""
        fields = [epoch, *(values[column] for column in self._columns[1:])]
        self._rows.append(["" if field is None else str(field) for field in fields])
        self._write()

    def _read(self) -> list[list[str]]:
        try:
            with self._path.open(newline="", encoding="utf-8") as file:
                header, *rows = list(csv.reader(file, strict=True)) or [self._columns]
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(
                f"CompressionLogger: csv={str(self._path)!r} cannot be read as a table ({error}). Name another file."
            ) from None
        if header != self._columns:
            raise ConfigError(
                f"CompressionLogger: csv={str(self._path)!r} has other columns than this fit writes: "
                f"{_difference(header, self._columns)}. Name another file, or move this one away. A layer without a "
                "name of its own gets a new one each time it is made: give the layers names to go on with the file."
            )
        for number, row in enumerate(rows, start=2):
            if len(row) != len(header) or not row[0].isdecimal():
                raise ConfigError(
                    f"CompressionLogger: row {number} of csv={str(self._path)!r} must be an epoch and "
                    f"{len(header) - 1} values. Received: {','.join(row)!r:.80}. Mend the file, or name another."
                )
        return rows

    def _write(self) -> None:
        with write_whole(self._path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([self._columns, *self._rows])


def _difference(found: list[str], expected: list[str]) -> str:
    parts = [
        f"{what} {', '.join(map(repr, names[:4]))}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"
        for what, names in (
            ("it lacks", [name for name in expected if name not in found]),
            ("only it has", [name for name in found if name not in expected]),
        )
        if names
    ]
    return " and ".join(parts) or "they are in another order"
