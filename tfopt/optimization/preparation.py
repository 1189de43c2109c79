"""The training-time part of a recipe: from the trained model to the one that is exported."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfopt.callbacks import MagnitudePruning
from tfopt.compression.clustering import cluster, is_large_enough
from tfopt.compression.factorize import factorize
from tfopt.fine_tuning import fine_tune, fine_tune_quantized, steps_of
from tfopt.pruning.allocation import erk_sparsities
from tfopt.pruning.channels import prune_channels
from tfopt.pruning.masks import kept_count, largest
from tfopt.quantization import quantize_aware
from tfopt.recipe import ChannelPruning, Factorization, FineTuning, Recipe, WeightPruning
from tfopt.surgery.graph import read_graph, rebuild
from tfopt.surgery.select import select_kernels

__all__ = ["quantize", "reduce", "untrained"]

MASK_UPDATES = 16
LAST_EPOCHS, LAST_RATE = 1 / 3, 0.1
"""Of the training of shared values, as parts of the training before."""

Train = Callable[[keras.Model, FineTuning, list[keras.callbacks.Callback]], None]


def untrained(model: keras.Model, recipe: Recipe) -> keras.Model:
    """What `reduce` makes of a model, without any training: as large and as fast.

    Raises:
        ConfigError: if so few operations cannot be had.
        ModelError: if no channel of the model may go, or it has no kernel.
    """
    if recipe.channel_pruning:
        model = _without_channels(model, recipe.channel_pruning)
    if recipe.factorization:
        model = _factorized(model, recipe.factorization)
    if recipe.weight_pruning:
        model = _without_smallest(model, recipe.weight_pruning.sparsity)
        if recipe.weight_pruning.values:
            model = _with_shared_values(model, recipe.weight_pruning.values)
    return model


def reduce(
    model: keras.Model, recipe: Recipe, x: np.ndarray, y: np.ndarray, *, loss: Any = None, verbose: int = 0
) -> keras.Model:
    """The recipe's smaller float model, trained on; the model itself where the recipe makes nothing smaller.

    Args:
        model: the trained model, which is the teacher.
        recipe: what is to be done.
        x: training samples of shape `(n, ...)`.
        y: their targets.
        loss: as `fine_tune` takes it.
        verbose: as in Keras's `fit`.

    Raises:
        ConfigError: if so few operations cannot be had, or no loss can be told.
        ModelError: if no channel of the model may go, or it has no kernel.
    """

    def train(smaller: keras.Model, settings: FineTuning, callbacks: list[keras.callbacks.Callback]) -> None:
        keras.utils.set_random_seed(recipe.seed)
        fine_tune(smaller, x, y, settings=settings, teacher=model, loss=loss, callbacks=callbacks, verbose=verbose)

    smaller = model
    if recipe.channel_pruning:
        smaller = _without_channels(smaller, recipe.channel_pruning)
        train(smaller, recipe.channel_pruning.fine_tuning, [])
    if recipe.factorization:
        smaller = _factorized(smaller, recipe.factorization)
        train(smaller, recipe.factorization.fine_tuning, [])
    if recipe.weight_pruning:
        smaller = _with_zeros(smaller, recipe.weight_pruning, train, steps_of(recipe.weight_pruning.fine_tuning, x))
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
        smaller: what `reduce` gave.
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


def _without_channels(model: keras.Model, settings: ChannelPruning) -> keras.Model:
    return prune_channels(
        model,
        target=f"flops: {100 * settings.flops:g}%",
        importance=settings.importance,
        multiple_of=settings.multiple_of,
    )


def _factorized(model: keras.Model, settings: Factorization) -> keras.Model:
    return factorize(model, target=f"flops: {100 * settings.flops:g}%")


def _without_smallest(model: keras.Model, sparsity: float) -> keras.Model:
    """The model with as many zeros in each kernel as `_with_zeros` trains."""
    smaller = rebuild(read_graph(model))
    kernels = [kernel for _, kernel in select_kernels(smaller)]
    fractions = erk_sparsities([tuple(kernel.shape) for kernel in kernels], sparsity)
    for kernel, fraction in zip(kernels, fractions, strict=True):
        weights = keras.ops.convert_to_numpy(kernel)
        stays, _ = largest(weights, kept_count(weights.size, fraction))
        kernel.assign(weights * stays)
    return smaller


def _with_zeros(model: keras.Model, settings: WeightPruning, train: Train, steps: int) -> keras.Model:
    smaller = rebuild(read_graph(model))
    end_step = max(1, steps // 2)
    ramp = MagnitudePruning(
        settings.sparsity, end_step=end_step, frequency=max(1, end_step // MASK_UPDATES), allocation="erk"
    )
    train(smaller, settings.fine_tuning, [ramp])
    if settings.values is None:
        return smaller
    smaller = _with_shared_values(smaller, settings.values)
    last = {
        "epochs": max(1, round(LAST_EPOCHS * settings.fine_tuning.epochs)),
        "learning_rate": LAST_RATE * settings.fine_tuning.learning_rate,
    }
    train(smaller, settings.fine_tuning.model_copy(update=last), [])
    return smaller


def _with_shared_values(model: keras.Model, values: int) -> keras.Model:
    """The model with few values in each kernel that is large enough for that to pay."""
    large = {id(layer) for layer, kernel in select_kernels(model) if is_large_enough(math.prod(kernel.shape), values)}
    return cluster(model, values, layers=lambda layer: id(layer) in large) if large else model
