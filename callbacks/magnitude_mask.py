"""The constraint of magnitude pruning: a mask, and what the last update made of the weights at zero."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfopt.schedules import Schedule
from tfopt.surgery.select import input_axis

from .kernel_constraint import KernelMask, constraints_on

__all__ = ["MagnitudeMask", "MaskUpdates"]


class MagnitudeMask(KernelMask):
    """Keeps some weights of a kernel at zero, and remembers where the last update would have carried them.

    Args:
        layer: the layer that owns the kernel.
        kernel: what is held.
        params: those of the callback.
        schedule: a sparsity of the kernel's own for each step; None: it has that of the whole model.

    Attributes:
        threshold: the smallest score that the last selection kept.
        input_axis: see `tfopt.surgery.select.input_axis`.
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        kernel: keras.Variable,
        params: dict[str, Any],
        schedule: Schedule | None,
    ) -> None:
        super().__init__(layer, kernel, params, np.ones(kernel.shape, bool))
        self.schedule = schedule
        self.threshold = 0.0
        self.input_axis = input_axis(layer, kernel)
        # Every replica computes the same update, so any of them will do.
        self.updated = keras.Variable(
            np.zeros(kernel.shape),
            dtype=kernel.dtype,
            trainable=False,
            aggregation="only_first_replica",
            name="updated",
        )

    def __call__(self, weights: Any) -> Any:
        """What the optimizer assigns after an update."""
        weights = weights if self.inner is None else self.inner(weights)
        self.updated.assign(weights)
        return self.held(weights)

    def candidates(self) -> Any:
        """What a new mask is chosen among: the weights, and for those at zero what the last update made of them."""
        updated = self.updated
        outer = takewhile(lambda constraint: constraint is not self, constraints_on(self.kernel))
        for constraint in reversed(list(outer)):
            updated = constraint.held(updated)
        # Not the whole of the last update: a callback may have set the kernel since.
        return keras.ops.where(self.mask, self.kernel, updated)

    def keep(self, mask: Any, candidates: Any) -> None:
        """Takes a new mask, and the candidates that it keeps."""
        self.mask.assign(mask)
        self.kernel.assign(self.held(candidates))


class MaskUpdates:
    """Reads and writes the masks of all kernels in one compiled call each: there may be a hundred of them.

    Args:
        masks: those of one callback.
    """

    def __init__(self, masks: Sequence[MagnitudeMask]) -> None:
        self._masks = masks
        self._updated = False
        self._candidates = tf.function(lambda: [mask.candidates() for mask in masks], autograph=False)
        self._keep = tf.function(self._keep_all, autograph=False)

    def candidates(self) -> list[Any]:
        """The candidates of each kernel, as tensors."""
        # Callbacks may put constraints over the masks until the first epoch has begun, so nothing is traced before.
        # As long as the masks keep everything, the candidates are the weights.
        return self._candidates() if self._updated else [keras.ops.convert_to_tensor(m.kernel) for m in self._masks]

    def keep(self, masks: list[np.ndarray], candidates: list[Any]) -> None:
        """Gives each kernel its new mask."""
        self._keep(masks, candidates)
        self._updated = True

    def _keep_all(self, masks: list[Any], candidates: list[Any]) -> None:
        for constraint, mask, weights in zip(self._masks, masks, candidates, strict=True):
            constraint.keep(mask, weights)
