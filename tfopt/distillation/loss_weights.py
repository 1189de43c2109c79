"""How much each loss of a student counts, readable within a compiled step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
from keras import ops

from tfopt.errors import ConfigError
from tfopt.schedules.arguments import check_positive

__all__ = ["COMPILED_LOSS", "LossWeights"]

COMPILED_LOSS = "student"
"""The name of the loss that a Distiller is compiled with, beside those of the distillation losses."""


class LossWeights:
    """The weight of each loss by its name. No Keras layer: weights that a callback restores leave it alone.

    Args:
        given: weights by name, 1 where none is given.
        names: of the distillation losses.

    Attributes:
        variables: a scalar for each name.

    Raises:
        ConfigError: if there is no loss of a name, or a weight is not a finite number of at least 0.

    Example:
        >>> weights = LossWeights({"logits": 2.0}, ["logits"])
        >>> weights.set("student", 0.5)
        >>> weights.as_numbers()
        {'student': 0.5, 'logits': 2.0}
    """

    def __init__(self, given: Mapping[str, float] | None, names: Sequence[str]) -> None:
        values = dict.fromkeys([COMPILED_LOSS, *names], 1.0) | dict(given or {})
        self.variables: dict[str, keras.Variable] = {}
        for name in (COMPILED_LOSS, *names):
            self.variables[name] = keras.Variable(1.0, dtype="float32", trainable=False, autocast=False)
        for name, value in values.items():
            self.set(name, value)

    def set(self, name: str, value: float) -> None:
        """Gives a loss another weight."""
        if name not in self.variables:
            raise ConfigError(
                f"Distiller: there are losses of the names {', '.join(self.variables)}. Received: {name}."
            )
        self.variables[name].assign(check_positive(f"Distiller: the weight of '{name}'", value, or_zero=True))

    def as_numbers(self) -> dict[str, float]:
        """The weights now."""
        return {name: float(ops.convert_to_numpy(variable)) for name, variable in self.variables.items()}
