"""The importance of the channels of a model, from its weights or from data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import keras
import numpy as np

from tfopt.data import check_samples
from tfopt.errors import ConfigError, DataError
from tfopt.pruning.channel_groups import ChannelGroup, ChannelGroups
from tfopt.pruning.importance import (
    first_order_change,
    magnitude_per_channel,
    mean_per_channel,
    relative,
    sum_per_channel,
)

__all__ = ["Importance", "channel_scores"]

Importance = Literal["l1", "batch_norm", "taylor"]

BATCH_SIZE = 32


def channel_scores(
    model: keras.Model,
    groups: ChannelGroups,
    chosen: list[ChannelGroup],
    *,
    importance: Importance,
    data: tuple[Any, Any] | None,
    loss: Any,
) -> np.ndarray:
    """Scores the channels of a model.

    Args:
        model: the model that the groups were found in.
        groups: its channels.
        chosen: the groups that need a score.
        importance: as of `prune_channels`.
        data: likewise.
        loss: likewise.

    Returns:
        An array of shape `(groups.count,)`.

    Raises:
        ConfigError: if the importance is none of those, needs data or a loss that is not given, or a chosen
            group has none.
        DataError: if the data does not fit the model.
    """
    if importance not in get_args(Importance):
        raise ConfigError(
            f"prune_channels: importance must be one of {', '.join(map(repr, get_args(Importance)))}. "
            f"Received: {importance!r}."
        )
    if (data is None) == (importance == "taylor"):
        raise ConfigError(
            "prune_channels: data=(x, y) is what importance='taylor' measures the loss on, and nothing else uses it. "
            f"Received: importance={importance!r} and data={'None' if data is None else '...'}."
        )
    if importance == "taylor":
        return _taylor(model, groups, data, loss)
    if importance == "l1":
        return mean_per_channel(
            (
                (axis.channels, relative(magnitude_per_channel(keras.ops.convert_to_numpy(axis.weight), axis.axis)))
                for axis in groups.axes
                if axis.role == "makes"
            ),
            groups.count,
        )
    scores = mean_per_channel(
        (
            (axis.channels, np.abs(keras.ops.convert_to_numpy(axis.weight)))
            for axis in groups.axes
            if axis.role == "scales"
        ),
        groups.count,
    )
    if without := [" + ".join(group.layers) for group in chosen if np.isnan(scores[group.channels]).any()]:
        raise ConfigError(
            "prune_channels: importance='batch_norm' needs a BatchNormalization with scale=True after each layer. "
            f"There is none after {', '.join(without)}. Leave these out with layers=..., or take importance='l1'."
        )
    return scores


def _taylor(model: keras.Model, groups: ChannelGroups, data: Any, loss: Any) -> np.ndarray:
    import tensorflow as tf

    reading = [axis for axis in groups.axes if axis.role == "reads"]
    weights = [axis.weight.value for axis in reading]
    loss_of = _loss_function(model, loss)

    @tf.function
    def gradients(x: Any, y: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            value = loss_of(x, y, model(x, training=False))
        return tape.gradient(value, weights)

    total, batches = np.zeros(groups.count), 0
    for x, y in _batches(model, data):
        parts = (
            (axis.channels, first_order_change(weight.numpy(), np.asarray(gradient), axis.axis))
            for axis, weight, gradient in zip(reading, weights, gradients(x, y), strict=True)
            if gradient is not None
        )
        total += np.abs(sum_per_channel(parts, groups.count))
        batches += 1
    if not np.isfinite(total).all():
        raise DataError(
            "prune_channels: data=(x, y) leads to a loss whose gradient is not finite. "
            "Check that samples and targets are scaled as in training."
        )
    return total / batches


def _loss_function(model: keras.Model, loss: Any) -> Callable[[Any, Any, Any], Any]:
    if loss is None:
        if not model.compiled or model.loss is None:
            raise ConfigError(
                "prune_channels: importance='taylor' needs a loss. Compile the model with one, or give loss=..., "
                "such as loss='sparse_categorical_crossentropy'."
            )
        return lambda x, y, outputs: model.compute_loss(x=x, y=y, y_pred=outputs)
    losses = [keras.losses.get(each) for each in keras.tree.flatten(loss)]
    if len(losses) != len(model.outputs):
        raise ConfigError(
            f"prune_channels: loss must be one loss for each of the model's {len(model.outputs)} outputs. "
            f"Received: {len(losses)}."
        )

    def added(_: Any, y: Any, outputs: Any) -> Any:
        pairs = zip(losses, keras.tree.flatten(y), keras.tree.flatten(outputs), strict=True)
        return sum(keras.ops.mean(one(target, output)) for one, target, output in pairs)

    return added


def _batches(model: keras.Model, data: Any) -> Iterator[tuple[Any, Any]]:
    if not isinstance(data, tuple) or len(data) != 2:
        raise DataError(
            f"prune_channels: data must be a tuple (x, y) of samples and targets. Received: {type(data).__name__}."
        )
    samples = check_samples(data[0], model.inputs, what="Taylor")
    targets = [np.asarray(target) for target in keras.tree.flatten(data[1])]
    if any(target.ndim == 0 or len(target) != len(samples[0]) for target in targets):
        raise DataError(
            f"prune_channels: data=(x, y) must hold a target for each of the {len(samples[0])} samples. "
            f"Received targets of shape {', '.join(str(target.shape) for target in targets[:3])}."
        )
    for start in range(0, len(samples[0]), BATCH_SIZE):
        x, y = (
            [keras.ops.convert_to_tensor(array[start : start + BATCH_SIZE]) for array in arrays]
            for arrays in (samples, targets)
        )
        structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
        yield keras.tree.pack_sequence_as(structure, x), keras.tree.pack_sequence_as(data[1], y)
