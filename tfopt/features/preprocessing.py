"""A Keras model that takes columns as they are: numbers standardized and words looked up inside the graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from tfopt.errors import ConfigError
from tfopt.features.columns import Column

__all__ = ["Preparation", "build_model", "prepare"]

Body = Callable[[keras.KerasTensor], keras.KerasTensor]


@dataclass(frozen=True)
class Preparation:
    """What a model does to one column first.

    Args:
        name: of the column.
        mean: of its numbers.
        variance: of its numbers.
        vocabulary: its words, the commonest first; None for a column of numbers.
    """

    name: str
    mean: float = 0.0
    variance: float = 1.0
    vocabulary: tuple[str, ...] | None = None


def prepare(column: Column, vocabulary_size: int) -> Preparation:
    """What to do to a column, from its values.

    Example:
        >>> prepare(Column("work", np.array(["state", "private", "private"])), 10).vocabulary
        ('private', 'state')
    """
    if not column.holds_words:
        return Preparation(column.name, float(column.values.mean()), float(column.values.var()))
    words, counts = np.unique(column.values, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:vocabulary_size]
    return Preparation(column.name, vocabulary=tuple(words[order].tolist()))


def build_model(
    preparations: Sequence[Preparation],
    *,
    one_input: bool,
    body: Body | None,
    classes: int | None,
    value_scale: tuple[float, float],
) -> keras.Model:
    """Builds the model.

    Args:
        preparations: of the columns, in the order in which the model sees them.
        one_input: whether the columns are one input of shape `(n, columns)`, called "features"; else each is one, of
            shape `(n, 1)`, with the column's name.
        body: what makes the output of the prepared columns; by default two hidden layers and an answer.
        classes: how many the default body answers with; None for a value.
        value_scale: mean and standard deviation of the values that the default body answers with.

    Raises:
        ConfigError: if the body gives no symbolic tensor.
    """
    if one_input:
        inputs: Any = keras.Input((len(preparations),), name="features")
        mean, variance = [one.mean for one in preparations], [one.variance for one in preparations]
        prepared = layers.Normalization(mean=mean, variance=variance, name="standardized")(inputs)
    else:
        inputs = {
            one.name: keras.Input((1,), name=one.name, dtype="float32" if one.vocabulary is None else "string")
            for one in preparations
        }
        # Standardized before they are put together: an int8 tensor has one scale for all its columns.
        parts = [_layer(number, one)(inputs[one.name]) for number, one in enumerate(preparations)]
        prepared = parts[0] if len(parts) == 1 else layers.Concatenate(name="prepared")(parts)
    output = _default_body(prepared, classes, value_scale) if body is None else body(prepared)
    if not isinstance(output, keras.KerasTensor):
        raise ConfigError(
            f"The body must give a tensor made of the one it is given. Received: {type(output).__name__}."
        )
    return keras.Model(inputs, output, name="selected_features")


def _layer(number: int, preparation: Preparation) -> keras.Layer:
    if preparation.vocabulary is not None:
        words = list(preparation.vocabulary)
        return layers.StringLookup(vocabulary=words, output_mode="one_hot", name=f"words_{number}")
    return layers.Normalization(mean=[preparation.mean], variance=[preparation.variance], name=f"standardized_{number}")


def _default_body(prepared: Any, classes: int | None, value_scale: tuple[float, float]) -> Any:
    for units in (64, 32):
        prepared = layers.Dense(units, activation="relu")(prepared)
    if classes is not None:
        return layers.Dense(classes, activation="softmax", name="classes")(prepared)
    mean, deviation = value_scale
    return layers.Rescaling(deviation, offset=mean, name="value")(layers.Dense(1)(prepared))
