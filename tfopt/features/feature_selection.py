"""What `select` found: which columns are kept and why, their values for a model, and that model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tfopt.errors import DataError
from tfopt.features.columns import read_table
from tfopt.features.target import Task
from tfopt.plain_table import aligned

if TYPE_CHECKING:
    import keras

    from tfopt.features.preprocessing import Body, Preparation

__all__ = ["FeatureRow", "FeatureSelection"]


@dataclass(frozen=True)
class FeatureRow:
    """One column.

    Args:
        name: of the column.
        kind: "number" or "words".
        score: at least 0, higher is better; what it measures is the method's.
        kept: whether it is kept.
        reason: why, or why not.
    """

    name: str
    kind: str
    score: float
    kept: bool
    reason: str


@dataclass(frozen=True)
class FeatureSelection:
    """What `tfopt.features.select` found; printing it gives a table, the best columns first.

    Args:
        method: how columns were scored.
        score_name: what the score is.
        task: "classification" or "regression".
        classes: in the order of the model's outputs; None for a regression.
        rows: one for each column, in the order of the table.
        samples: how many the scores are of.
        one_input: whether the model takes one array of all kept columns, as the table was given.
    """

    method: str
    score_name: str
    task: Task
    classes: tuple[Any, ...] | None
    rows: tuple[FeatureRow, ...]
    samples: int
    one_input: bool
    _preparations: tuple[Preparation, ...] = field(repr=False)
    _value_scale: tuple[float, float] = field(repr=False)

    @property
    def kept(self) -> tuple[str, ...]:
        """The names of the columns that are kept, in the order of the table."""
        return tuple(row.name for row in self.rows if row.kept)

    def inputs(self, x: Any) -> Any:
        """A table as the model takes it: the kept columns alone.

        Args:
            x: a table of the form that was given to `select`, of any number of samples.

        Returns:
            An array of float32 of shape `(n, kept)`; or, of a mapping or data frame, a mapping from names to arrays
            of shape `(n, 1)`, those with words as TensorFlow's strings, since Keras takes no other.

        Raises:
            DataError: if a column is missing, has another kind, or misses values.

        Example:
            >>> from tfopt.features import select
            >>> x = np.random.default_rng(0).normal(size=(90, 3))
            >>> select(x, x[:, 1] > 0, keep=1).inputs(x[:2]).shape
            (2, 1)
        """
        if self.one_input:
            array = np.asarray(x)
            if array.ndim != 2 or array.shape[1] != len(self.rows):
                raise DataError(
                    f"inputs: expected an array of shape (n, {len(self.rows)}), all columns as select had them. "
                    f"Received: {array.shape}."
                )
            kept = np.flatnonzero([row.kept for row in self.rows])
            table = read_table(array[:, kept], self.kept)
            return np.stack([column.values for column in table.columns], axis=1).astype(np.float32)
        return self._inputs_by_name(x)

    def _inputs_by_name(self, x: Any) -> dict[str, Any]:
        import tensorflow as tf

        if isinstance(x, (list, tuple, np.ndarray)):  # of words and numbers: by place
            array = np.asarray(x)
            if array.ndim != 2 or array.shape[1] != len(self.rows):
                raise DataError(f"inputs: expected {len(self.rows)} columns. Received: shape {array.shape}.")
            x = {row.name: column for row, column in zip(self.rows, array.T, strict=True)}
        missing = [name for name in self.kept if name not in x]
        if missing:
            raise DataError(f"inputs: expected the columns {', '.join(self.kept)}. Missing: {', '.join(missing)}.")
        table = read_table({name: x[name] for name in self.kept})
        found: dict[str, Any] = {}
        for column, one in zip(table.columns, self._preparations, strict=True):
            wants_words = one.vocabulary is not None
            if column.holds_words != wants_words:
                kinds = ("words", "numbers") if wants_words else ("numbers", "words")
                raise DataError(f"inputs: the column '{column.name}' must hold {kinds[0]}. Received: {kinds[1]}.")
            values = column.values[:, np.newaxis]
            found[column.name] = tf.constant(values) if wants_words else values.astype(np.float32)
        return found

    def targets(self, y: Any) -> np.ndarray:
        """Classes as the numbers that the model is trained on; values as float32.

        Args:
            y: n targets as `select` takes them.

        Raises:
            DataError: if a class is not among those that `select` saw.

        Example:
            >>> from tfopt.features import select
            >>> x = np.random.default_rng(0).normal(size=(90, 3))
            >>> select(x, np.where(x[:, 1] > 0, "up", "down"), keep=1).targets(["up", "down"]).tolist()
            [1, 0]
        """
        values = np.asarray(y).reshape(-1)
        if self.classes is None:
            return values.astype(np.float32)
        classes = np.asarray(self.classes)
        unknown = values[~np.isin(values, classes)]
        if len(unknown):
            raise DataError(
                f"targets: expected the classes {', '.join(map(str, self.classes))}. Received: {unknown[0]}."
            )
        return np.searchsorted(classes, values)

    def model(self, body: Body | None = None) -> keras.Model:
        """Builds an untrained Keras model that takes the kept columns as they are.

        Numbers are standardized by `Normalization` and words become one-hot by `StringLookup`, within the graph: what
        is saved, loaded or served takes raw columns. A word that was rare or not seen is one further category.
        Compile it and fit it on `inputs(x)` and `targets(y)`. Of number columns alone, `tfopt.export_tflite` and all
        other exporters take it; for int8 give `select` a mapping, so that each column has an input and a scale of its
        own. With words `model.export(folder)` writes a SavedModel; TFLite has no strings.

        Args:
            body: a function from the prepared columns, a tensor of shape `(batch, features)`, to the output; by default
                Dense layers of 64 and 32 units and a softmax over the classes, or a value in the scale of y.

        Raises:
            ConfigError: if the body gives something else.

        Example:
            >>> from tfopt.features import select
            >>> x = np.random.default_rng(0).normal(size=(90, 3))
            >>> selection = select(x, x[:, 1] > 0, keep=1)
            >>> model = selection.model()
            >>> model.compile("adam", "sparse_categorical_crossentropy")
            >>> _ = model.fit(selection.inputs(x), selection.targets(x[:, 1] > 0), verbose=0)
            >>> model.input_shape, model.output_shape
            ((None, 1), (None, 2))
        """
        from tfopt.features.preprocessing import build_model

        return build_model(
            self._preparations,
            one_input=self.one_input,
            body=body,
            classes=None if self.classes is None else len(self.classes),
            value_scale=self._value_scale,
        )

    def __str__(self) -> str:
        cells = [("column", "kind", self.score_name, "", "why")]
        cells += [
            (row.name, row.kind, f"{row.score:.4g}", "kept" if row.kept else "", row.reason)
            for row in sorted(self.rows, key=lambda row: -row.score)
        ]
        kind = "regression" if self.classes is None else f"{len(self.classes)} classes"
        total = f"{len(self.kept)} of {len(self.rows)} columns kept by {self.method}: {kind}, {self.samples:,} samples"
        return "\n".join([*aligned(cells, "<<><<"), total])
