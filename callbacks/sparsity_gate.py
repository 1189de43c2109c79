"""Whether a model is sparse enough to be judged."""

from __future__ import annotations

import keras
import numpy as np

from tfopt.pruning.masks import kept_count, sparsity_of
from tfopt.surgery.select import LayerFilter, select_kernels

__all__ = ["SparsityGate"]


class SparsityGate:
    """Is open while the kernels of a model have a least fraction of zeros.

    Args:
        min_sparsity: that fraction, in [0, 1).
        layers: whose kernels; default: Dense and Conv.

    Attributes:
        sparsity: what was measured last; None before.
        was_open: whether it ever was.
    """

    def __init__(self, min_sparsity: float, layers: LayerFilter | None) -> None:
        self.min_sparsity, self.layers = min_sparsity, layers
        self.sparsity: float | None = None
        self.was_open = False

    def reset(self, model: keras.Model) -> None:
        """Forgets what was measured, before a model is trained.

        Raises:
            ConfigError: if `layers` matches nothing.
            ModelError: if the model has no kernel to measure.
        """
        select_kernels(model, self.layers)
        self.sparsity, self.was_open = None, False

    def is_open(self, model: keras.Model) -> bool:
        """Counts the zeros of a model."""
        kernels = [keras.ops.convert_to_numpy(kernel) for _, kernel in select_kernels(model, self.layers)]
        zeros = sum(kernel.size - int(np.count_nonzero(kernel)) for kernel in kernels)
        # Counted in weights, because 7 zeros of 9 are a fraction of 0.78 and yet all that 0.8 asks for.
        needed = sum(kernel.size - kept_count(kernel.size, self.min_sparsity) for kernel in kernels)
        self.sparsity = sparsity_of(*kernels)
        self.was_open = self.was_open or zeros >= needed
        return zeros >= needed
