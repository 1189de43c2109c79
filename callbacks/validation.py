"""Validation in the midst of an epoch, which leaves the epoch's own metrics as they are."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["evaluate_inside_epoch"]


def evaluate_inside_epoch(model: keras.Model, data: Any) -> dict[str, float]:
    """Evaluates a model while `fit` trains it.

    Args:
        model: the model that is trained.
        data: a tf.data.Dataset of batches, or a tuple `(x, y)` or `(x, y, sample_weight)`.

    Returns:
        The loss and the metrics, each by its name with "val_" before it.
    """
    # evaluate() resets the metrics that the epoch goes on adding to.
    training = [keras.ops.convert_to_numpy(variable) for variable in model.metrics_variables]
    if isinstance(data, (tuple, list)):
        x, y, sample_weight = (*data, None, None)[:3]
        logs = model.evaluate(x, y, sample_weight=sample_weight, verbose=0, return_dict=True)
    else:
        logs = model.evaluate(data, verbose=0, return_dict=True)
    for variable, value in zip(model.metrics_variables, training, strict=True):
        variable.assign(value)
    return {f"val_{name}": float(value) for name, value in logs.items()}
