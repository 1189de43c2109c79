"""The verbs: a model whose layers have fewer channels, down to a target or to a fraction of each layer's."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from tfopt.errors import ConfigError, ModelError
from tfopt.pruning.channel_coverage import chosen_groups
from tfopt.pruning.channel_groups import ChannelGroup, ChannelGroups, find_channel_groups
from tfopt.pruning.channel_removal import remove_channels
from tfopt.pruning.channel_scores import Importance, channel_scores
from tfopt.pruning.channel_selection import Candidates, RemovalOrder, smallest_count
from tfopt.resource_target import parse_resource_target
from tfopt.surgery.flops import call_flops
from tfopt.surgery.graph import read_graph
from tfopt.surgery.model import check_model
from tfopt.surgery.select import LayerFilter

__all__ = ["keep_channels", "prune_channels"]

Measure = Callable[[keras.Model], float]
_FLOORS = {"prune_channels": "floors", "keep_channels": "fractions"}
"""The argument of each verb that maps layers to what stays."""


def prune_channels(
    model: keras.Model,
    *,
    target: str,
    layers: LayerFilter | None = None,
    importance: Importance = "l1",
    data: tuple[Any, Any] | None = None,
    loss: Any = None,
    minimum_channels: float = 0.1,
    floors: Mapping[str, float] | None = None,
    multiple_of: int = 1,
    measure: Measure | None = None,
) -> keras.Model:
    """Returns a smaller model: without the least important channels, down to a target.

    Use it where a model must be faster on any hardware: the layers become smaller dense ones, unlike with zeros in
    kernels of the same size (`callbacks.MagnitudePruning`). Fine-tune the result; it has lost accuracy.

    It computes exactly what the given model computes with the removed channels set to zero wherever a layer reads
    them. Channels that a residual connection, a depthwise convolution or a squeeze-excite product ties go together;
    `channel_coverage(model)` lists them, and the layers that keep theirs with the reason. The inputs and outputs of the
    model stay. The given model is left as it is; the result is a Functional model with the same layer names, not
    compiled.

    Args:
        model: a built Functional or Sequential model with channels on the last axis; nested models are laid flat.
        target: what is to remain: "flops: 50%" of the operations (multiply-accumulates of kernels, see
            `surgery.flops.costs`), "params: 50%" of the parameters, or "latency: 60%" of what `measure` returns.
        layers: the layers that may lose channels: a predicate on a layer, or a regular expression that its whole name
            matches; by default all. Layers that are tied to one left out keep theirs too.
        importance: what ranks the channels of the whole model. "l1": mean magnitude of the weights that make a channel,
            by the mean of their layer. "batch_norm": magnitude of the gammas that scale it. "taylor": how much
            the loss changes, to first order, if the weights that read it become zero. Where several layers make a
            channel, their mean counts.
        data: for "taylor", a tuple `(x, y)` of samples and targets, as `fit` takes them; some hundreds do.
        loss: for "taylor", the loss, or a list of one for each output; by default the one the model is compiled with.
        minimum_channels: what stays of the channels of each layer at least, as a fraction in [0, 1] (a float) or a
            count (an int). One channel stays in any case.
        floors: the same for some layers: from a regular expression that a layer's whole name matches to a
            fraction or a count. Where several match, the first counts; of tied layers the highest.
        multiple_of: each layer that loses channels keeps a multiple of it, such as 8, which kernels run fastest on.
        measure: for "latency", a function from a model to a positive number such as its latency in ms. It is called
            about nine times.

    Raises:
        ConfigError: if the target is none of these or cannot be reached (the message says what can), an argument is out
            of its range, an expression matches no layer, or the importance cannot be computed.
        ModelError: if the model is not a built Keras 3 model, is subclassed, has NaN weights, or no channel may go.
        DataError: if the data does not fit the model.

    Example:
        >>> x = keras.Input((8, 8, 3))
        >>> y = keras.layers.Conv2D(16, 3, activation="relu", name="hidden")(x)
        >>> model = keras.Model(x, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(y)))
        >>> smaller = prune_channels(model, target="flops: 50%", multiple_of=4)
        >>> smaller.get_layer("hidden").filters
        8

    References:
        Li et al. 2017, arXiv:1608.08710 (L1); Liu et al. 2017, arXiv:1708.06519 (batch norm); Molchanov et al.
        2019, arXiv:1906.10771 (Taylor).
    """
    check_model(model)
    kind, fraction = parse_resource_target("prune_channels", target, ("flops", "params", "latency"))
    if (measure is None) == (kind == "latency"):
        raise ConfigError(
            "prune_channels: measure=... is what a target of latency is measured with, and nothing else uses it. "
            f"Received: target={target!r} and measure={measure!r}."
        )
    groups, order = _removal(
        "prune_channels",
        model,
        layers=layers,
        importance=importance,
        data=data,
        loss=loss,
        minimum=minimum_channels,
        floors=floors or {},
        multiple_of=multiple_of,
    )
    remaining = _remaining(model, groups, kind, measure)
    least = remaining(order.stays(order.limit))
    if least > fraction:
        raise ConfigError(
            f"prune_channels: the target {target!r} cannot be reached: {100 * least:.1f}% of {kind} remain when all "
            f"channels are removed that may go. Choose '{kind}: {math.ceil(100 * least)}%' or more, or lower "
            "minimum_channels=, floors= or multiple_of=. channel_coverage(model) names the layers that keep theirs."
        )
    count = smallest_count(
        lambda count: remaining(order.stays(count)) <= fraction,
        order.limit,
        resolution=max(1, order.limit // 128) if kind == "latency" else 1,
    )
    return remove_channels(groups, order.stays(count))


def keep_channels(
    model: keras.Model,
    fractions: Mapping[str, float],
    *,
    importance: Importance = "l1",
    data: tuple[Any, Any] | None = None,
    loss: Any = None,
    multiple_of: int = 1,
) -> keras.Model:
    """Returns a smaller model: of each named layer only a fraction of its channels, the most important ones.

    Use it where the width of each layer is chosen, as by a search; `prune_channels` chooses the widths itself. What it
    says of the result and of tied layers holds here too.

    Args:
        model: as of `prune_channels`.
        fractions: from a regular expression that a layer's whole name matches to what stays of its channels, a
            fraction in [0, 1] (a float) or a count (an int). Where several match, the first counts; of tied layers the
            highest. Layers that none matches keep all. One channel stays in any case.
        importance: as of `prune_channels`; channels are compared within their layer.
        data: likewise.
        loss: likewise.
        multiple_of: likewise.

    Raises:
        ConfigError: if a fraction is out of its range, an expression matches no layer that makes channels, or the
            importance cannot be computed.
        ModelError: if the model is not a built Keras 3 model, is subclassed, has NaN weights, or no channel may go.
        DataError: if the data does not fit the model.

    Example:
        >>> layers = [keras.Input((4,)), keras.layers.Dense(8, name="hidden"), keras.layers.Dense(2)]
        >>> keep_channels(keras.Sequential(layers), {"hidden": 0.25}).get_layer("hidden").units
        2

    References: He et al. 2018, arXiv:1802.03494 (AMC), where a search chooses the fraction of each layer.
    """
    check_model(model)
    groups, order = _removal(
        "keep_channels",
        model,
        layers=None,
        importance=importance,
        data=data,
        loss=loss,
        minimum=1.0,
        floors=fractions,
        multiple_of=multiple_of,
    )
    return remove_channels(groups, order.stays(order.limit))


def _removal(
    verb: str,
    model: keras.Model,
    *,
    layers: LayerFilter | None,
    importance: Importance,
    data: tuple[Any, Any] | None,
    loss: Any,
    minimum: float,
    floors: Mapping[str, float],
    multiple_of: int,
) -> tuple[ChannelGroups, RemovalOrder]:
    """The channels of a model, and the order in which those that may go do so."""
    if isinstance(multiple_of, bool) or not isinstance(multiple_of, int) or multiple_of < 1:
        raise ConfigError(f"{verb}: multiple_of must be an integer from 1 on. Received: {multiple_of!r}.")
    groups = find_channel_groups(read_graph(model))
    all_groups = chosen_groups(model, groups, layers)
    removable = [group for group in all_groups if not group.reason]
    if not removable:
        reasons = "; ".join(f"{' + '.join(group.layers)}: {group.reason}" for group in all_groups[:8])
        raise (ModelError if layers is None else ConfigError)(
            f"{verb}: no channel of the model '{model.name}' may go. {reasons or 'No layer makes channels'}. "
            "See channel_coverage(model)."
        )
    floor_of = _floors(verb, minimum, floors, all_groups)
    scores = channel_scores(model, groups, removable, importance=importance, data=data, loss=loss)
    return groups, RemovalOrder([_candidates(group, floor_of, multiple_of) for group in removable], scores)


def _floors(
    verb: str, minimum: float, floors: Mapping[str, float], groups: tuple[ChannelGroup, ...]
) -> Callable[[str], float]:
    """For the name of a layer, the fraction or count of channels that stay."""
    argument = _FLOORS[verb]
    names = sorted({name for group in groups for name in group.layers})
    found: dict[str, float] = {}
    for what, floor in (
        ("minimum_channels", minimum),
        *((f"{argument}[{key!r}]", value) for key, value in floors.items()),
    ):
        is_count = isinstance(floor, (int, np.integer)) and not isinstance(floor, bool) and floor >= 0
        if not is_count and not (isinstance(floor, (float, np.floating)) and 0 <= floor <= 1):
            raise ConfigError(
                f"{verb}: {what} must be a fraction in [0, 1] (a float) or a count (an int). Received: {floor!r}."
            )
    for pattern, floor in floors.items():
        try:
            matched = [name for name in names if re.fullmatch(pattern, name)]
        except re.error as error:
            raise ConfigError(
                f"{verb}: the keys of {argument}= must be regular expressions. Received: {pattern!r} ({error}). "
                "Escape special characters with re.escape."
            ) from None
        if not matched:
            raise ConfigError(
                f"{verb}: {argument}={pattern!r} matches no layer that makes channels. Those: {', '.join(names)}."
            )
        for name in matched:
            found.setdefault(name, floor)
    return lambda name: found.get(name, minimum)


def _candidates(group: ChannelGroup, floor_of: Callable[[str], float], multiple_of: int) -> Candidates:
    minima = [1]
    for name, width in zip(group.layers, group.widths, strict=True):
        floor = floor_of(name)
        minima.append(math.ceil(floor / width if isinstance(floor, (int, np.integer)) else floor * len(group.channels)))
    # A channel is `width` filters of a layer: so many channels make a multiple.
    steps = (multiple_of // math.gcd(multiple_of, width) for width in group.widths)
    return Candidates(group.channels, minimum=max(minima), step=math.lcm(*steps))


def _remaining(
    model: keras.Model, groups: ChannelGroups, kind: str, measure: Measure | None
) -> Callable[[np.ndarray], float]:
    """For the channels that stay, the fraction of the cost that remains."""
    cost: Callable[[np.ndarray], float]
    if measure is not None:

        def cost(stays: np.ndarray) -> float:
            measured = float(measure(remove_channels(groups, stays)))
            if not (math.isfinite(measured) and measured > 0):
                raise ConfigError(f"prune_channels: measure must return a positive number. Received: {measured!r}.")
            return measured

    elif kind == "params":
        weights = list({id(weight): weight for weight in model.weights}.values())

        def cost(stays: np.ndarray) -> float:
            return sum(groups.size(weight, stays) for weight in weights)

    else:
        counted = [call_flops(call) for call in groups.graph.calls]
        for call, part in zip(groups.graph.calls, counted, strict=True):
            if part.remark and any(groups.axes_of(weight) for weight in getattr(call.operation, "weights", ())):
                raise ConfigError(
                    f"prune_channels: the FLOPs of '{call.name}' are {part.remark}. Give the model a keras.Input of "
                    "fixed size, or take target='params: 50%'."
                )

        def cost(stays: np.ndarray) -> float:
            return sum(part.total(lambda kernel: groups.size(kernel, stays)) for part in counted)

    whole = cost(np.ones(groups.count, dtype=bool))
    if not whole:
        raise ConfigError(
            f"prune_channels: nothing in the model '{model.name}' counts as {kind}. Choose target='params: 50%'."
        )
    return lambda stays: cost(stays) / whole
