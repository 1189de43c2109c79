"""Weights put back as they were, although a callback may hold their kernels to a mask."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from .kernel_constraint import KernelMask, constraints_on

__all__ = ["restore_weights"]


def restore_weights(variables: Sequence[keras.Variable], values: Sequence[np.ndarray]) -> None:
    """Assigns values to variables, and opens the masks on them to just these values.

    A mask of now would otherwise zero some of the weights of then, if its callback applies it once more. So the result
    does not depend on which callback ends first.

    Args:
        variables: those of a model.
        values: one of the same shape for each.
    """
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
        for constraint in constraints_on(variable):
            if isinstance(constraint, KernelMask):
                constraint.mask.assign(value != 0)
