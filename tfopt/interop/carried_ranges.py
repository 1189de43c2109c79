"""The ranges that tfmot trained, in a model that tfopt made quantize-aware."""

from __future__ import annotations

import re

import keras
from keras import ops

from tfopt.data import Samples
from tfopt.interop.tfmot_wrappers import LayerRanges, Range
from tfopt.interop.translation import Translation
from tfopt.quantization.layers import FakeQuantize
from tfopt.quantization.plan import SharedRange, plan_quantization
from tfopt.quantization.quantize_aware import quantize_aware, range_layer_name
from tfopt.quantization.strip import settings_of
from tfopt.recipe import QuantizationConfig
from tfopt.surgery.elementary import as_elementary, origin_of
from tfopt.surgery.graph import Call, Graph, Value, read_graph

__all__ = ["quantize_as_tfmot"]


def quantize_as_tfmot(
    model: keras.Model, translation: Translation, *, calibration: Samples | None = None
) -> tuple[keras.Model, list[str]]:
    """Makes the float model within a model of tfmot's quantize-aware again, with the ranges that it has there.

    What tfmot leaves in float stays so, and dense weights have one scale where they have one in tfmot. tfopt rounds
    some tensors that tfmot does not, since TFLite does; their ranges come from the calibration samples, or from the
    first training batch.

    Args:
        model: the translated model.
        translation: what its layers were.
        calibration: samples for the ranges that tfmot has not.

    Returns:
        The quantize-aware model, and the names of layers whose outputs have a range that tfmot has not.
    """
    quantized = {
        pair.layer.name: pair.unwrapped.ranges for pair in translation.layers if pair.unwrapped.origin == "quantized"
    }
    in_float = [
        pair.layer.name
        for pair in translation.layers
        if pair.unwrapped.ranges.in_float or pair.layer.name not in quantized
    ]
    config = QuantizationConfig(
        per_channel_dense=all(
            pair.unwrapped.ranges.weights_per_channel
            for pair in translation.layers
            if isinstance(pair.layer, keras.layers.Dense)
        )
    )
    aware = quantize_aware(
        model, calibration=calibration, config=config, layers={re.escape(name): "none" for name in in_float}
    )
    graph = read_graph(as_elementary(model))
    plan = plan_quantization(graph, *settings_of(aware))
    known = _known_ranges(graph, {call.name for call in read_graph(model).calls}, quantized, translation.tensor_ranges)
    groups: dict[SharedRange, list[Value]] = {}
    for value, shared in plan.grids.items():
        groups.setdefault(shared, []).append(value)
    missing = []
    for shared, values in groups.items():
        if shared.fixed is not None:
            continue
        found = [known[value] for value in values if value in known]
        if not found:
            missing.append(shared.name)
            continue
        whole = min(low for low, _ in found), max(high for _, high in found)
        rounding = aware.get_layer(range_layer_name(shared))
        for member, value in enumerate(shared.members):
            _start(rounding, known.get(value, whole), member)
    return aware, missing


def _start(rounding: FakeQuantize, found: Range, member: int) -> None:
    rounding.start_at(*found, member=member)
    # As if that many batches had been observed, so that the next one moves the range no further than any later one.
    rounding.batches.assign(
        ops.where(ops.one_hot(member, rounding.members) > 0, 1 / (1 - rounding.momentum), rounding.batches)
    )


def _known_ranges(
    graph: Graph, names: set[str], layers: dict[str, LayerRanges], tensors: dict[str, Range]
) -> dict[Value, Range]:
    """For each tensor that tfmot rounds, its range there."""
    inputs = zip(keras.tree.flatten(graph.inputs), graph.input_names, strict=True)
    known = {value: tensors[name] for value, name in inputs if name in tensors}
    origins = {call: origin_of(call.name, names) for call in graph.calls}
    for call in graph.calls:
        ranges = layers.get(origins[call], LayerRanges())
        if _has_a_part_behind(call, graph, origins):
            found = ranges.before_activation
        else:
            found = ranges.output or tensors.get(origins[call])
        if found is not None:
            known[call.output] = found
    return known


def _has_a_part_behind(call: Call, graph: Graph, origins: dict[Call, str]) -> bool:
    """Whether a layer that was taken apart goes on behind this part of it."""
    return any(
        origins[consumer] == origins[call] and consumer.operation is not call.operation
        for consumer in graph.consumers.get(call.output, [])
    )
