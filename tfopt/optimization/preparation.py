"""The training-time part of a recipe: from the trained model to the one that is exported."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfopt.fine_tuning import fine_tune, fine_tune_quantized
from tfopt.pruning.channels import prune_channels
from tfopt.quantization import quantize_aware
from tfopt.recipe import ChannelPruning, Recipe

__all__ = ["prune", "quantize", "remove_channels"]


def remove_channels(model: keras.Model, settings: ChannelPruning) -> keras.Model:
    """The model without its least important channels, not yet trained on.

    Raises:
        ConfigError: if so few operations cannot be had.
        ModelError: if no channel of the model may go.
    """
    return prune_channels(
        model,
        target=f"flops: {100 * settings.flops:g}%",
        importance=settings.importance,
        multiple_of=settings.multiple_of,
    )


def prune(
    model: keras.Model, recipe: Recipe, x: np.ndarray, y: np.ndarray, *, loss: Any = None, verbose: int = 0
) -> keras.Model:
    """The recipe's smaller float model, trained on; the model itself where the recipe removes nothing.

    Args:
        model: the trained model.
        recipe: what is to be done.
        x: training samples of shape `(n, ...)`.
        y: their targets.
        loss: as `fine_tune` takes it.
        verbose: as in Keras's `fit`.

    Raises:
        ConfigError: if so few operations cannot be had, or no loss can be told.
        ModelError: if no channel of the model may go.
    """
    settings = recipe.channel_pruning
    if settings is None:
        return model
    smaller = remove_channels(model, settings)
    keras.utils.set_random_seed(recipe.seed)
    fine_tune(smaller, x, y, settings=settings.fine_tuning, teacher=model, loss=loss, verbose=verbose)
    return smaller


def quantize(
    smaller: keras.Model,
    recipe: Recipe,
    x: np.ndarray,
    y: np.ndarray,
    *,
    teacher: keras.Model,
    loss: Any = None,
    verbose: int = 0,
) -> keras.Model:
    """The model to export: quantize-aware where the recipe trains it so or keeps layers in float.

    Args:
        smaller: what `prune` gave.
        recipe: what is to be done.
        x: training samples of shape `(n, ...)`.
        y: their targets.
        teacher: the model before any change.
        loss: as `fine_tune` takes it.
        verbose: as in Keras's `fit`.

    Raises:
        ConfigError: if a layer is not the model's, or no loss can be told.
        ModelError: if the model cannot be made quantize-aware.
    """
    if recipe.fine_tuning is not None:
        keras.utils.set_random_seed(recipe.seed)
        return fine_tune_quantized(
            smaller,
            x,
            y,
            settings=recipe.fine_tuning,
            calibration_samples=recipe.calibration_samples,
            layers=recipe.layers,
            teacher=teacher,
            loss=loss,
            verbose=verbose,
        )
    if recipe.layers:
        return quantize_aware(
            smaller, calibration=x, calibration_samples=recipe.calibration_samples, layers=recipe.layers
        )
    return smaller
