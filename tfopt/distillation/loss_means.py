"""The mean of each loss of a student over an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

__all__ = ["LossMeans"]


class LossMeans(keras.metrics.Metric):
    """Means of several losses that come together, as a metric with a result for each.

    One metric for all of them, since each metric of its own adds some twenty operations to a step, which a small
    student notices.

    Args:
        names: of the losses; a result is called "{name}_loss".

    Attributes:
        logged: the names of the results.

    Example:
        >>> means = LossMeans(["student", "logits"])
        >>> means.update_state({"student": 3.0, "logits": 1.0}, samples=1)
        >>> means.update_state({"student": 0.0, "logits": 1.0}, samples=2)
        >>> {name: float(mean) for name, mean in means.result().items()}
        {'student_loss': 1.0, 'logits_loss': 1.0}
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(name="loss_means", dtype="float32")
        self.names = tuple(names)
        self.logged = tuple(f"{name}_loss" for name in names)
        self.totals = self.add_variable((len(self.names),), "zeros", name="totals")
        self.samples = self.add_variable((), "zeros", name="samples")

    def update_state(self, values: Mapping[str, Any], samples: Any) -> None:
        """Adds a batch.

        Args:
            values: the mean of each loss over the batch, scalars, by the names.
            samples: how many the batch has.
        """
        samples = ops.cast(samples, self.dtype)
        self.totals.assign_add(samples * ops.stack([ops.cast(values[name], self.dtype) for name in self.names]))
        self.samples.assign_add(samples)

    def result(self) -> dict[str, Any]:
        """The means by their logged names; 0 before the first batch."""
        means = ops.divide_no_nan(self.totals, self.samples)
        return dict(zip(self.logged, ops.unstack(means), strict=True))
