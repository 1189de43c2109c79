"""What tfmot's wrappers hold: the layer within, its weights as they are used, and the ranges of its activations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfopt.errors import ModelError

__all__ = ["LayerRanges", "Range", "Unwrapped", "input_range", "is_quantize_layer", "unwrap"]

Range = tuple[float, float]
_MODULE = "tensorflow_model_optimization."
_BEFORE = {"softmax", "sigmoid", "tanh", "gelu"}
_AFTER = {"linear", "relu", "swish", "gelu"}
"""The activations that tfmot rounds before they are computed, and those after."""


@dataclass(frozen=True)
class LayerRanges:
    """The ranges that tfmot keeps of one layer.

    Args:
        before_activation: of what is computed before the activation, if it is rounded there.
        output: of the layer's output, if it is rounded there.
        weights_per_channel: whether each output channel of the weights has a scale of its own.
        in_float: whether only the output is rounded, and the layer computes in float.
    """

    before_activation: Range | None = None
    output: Range | None = None
    weights_per_channel: bool = True
    in_float: bool = False


@dataclass(frozen=True)
class Unwrapped:
    """A layer of tf_keras, taken out of its wrapper.

    Args:
        layer: the layer.
        weights: its weights, in the order of its `get_weights()`, pruned and clustered as the wrapper uses them.
        origin: "pruned", "clustered", "quantized", or "" for a layer without a wrapper.
        ranges: of a quantized layer.
        as_used: whether the layer computes with these weights now; not where a mask is still to be applied.
    """

    layer: Any
    weights: list[np.ndarray] | None
    origin: str = ""
    ranges: LayerRanges = field(default_factory=LayerRanges)
    as_used: bool = True


def is_quantize_layer(layer: Any) -> bool:
    """Whether a layer only rounds what flows through it: `tfmot.quantization.keras.QuantizeLayer`."""
    return _tfmot_class(layer) == "QuantizeLayer"


def input_range(layer: Any) -> Range | None:
    """The range of a QuantizeLayer."""
    if layer.quantizer is None:
        return None
    _check_bits(layer.quantizer, layer.name)
    variables = layer.quantizer_vars
    if variables is None:  # a FixedQuantizer
        return float(layer.quantizer.init_min), float(layer.quantizer.init_max)
    return float(variables["min_var"].numpy()), float(variables["max_var"].numpy())


def unwrap(layer: Any) -> Unwrapped:
    """Takes a layer out of tfmot's wrapper, if it is in one.

    Raises:
        ModelError: if the wrapper is one that is not known here.
    """
    kind = _tfmot_class(layer)
    match kind:
        case "":
            return Unwrapped(layer, None)
        case "PruneLowMagnitude":
            return _pruned(layer)
        case "ClusterWeights" | "ClusterWeightsRNN":
            return Unwrapped(layer.layer, _clustered_weights(layer), "clustered")
        case "ClusterWeightsMHA":
            layer.update_clustered_weights_associations()
            inner = layer.strip_clustering()
            return Unwrapped(inner, inner.get_weights(), "clustered")
        case "QuantizeWrapper" | "QuantizeWrapperV2":
            return _quantized(layer, kind)
    raise ModelError(
        f"from_tf_keras: the layer '{layer.name}' is in a wrapper {kind} of tfmot. Known are those of "
        "prune_low_magnitude, cluster_weights and quantize_model. Strip it with tfmot first."
    )


def _tfmot_class(layer: Any) -> str:
    return type(layer).__name__ if type(layer).__module__.startswith(_MODULE) else ""


def _pruned(wrapper: Any) -> Unwrapped:
    masks = {id(weight): mask.numpy() for weight, mask, _ in wrapper.pruning_vars}
    weights = [weight.numpy() for weight in wrapper.layer.weights]
    masked = [values * masks.get(id(weight), 1) for values, weight in zip(weights, wrapper.layer.weights, strict=True)]
    as_used = all(np.array_equal(*pair) for pair in zip(weights, masked, strict=True))
    return Unwrapped(wrapper.layer, masked, "pruned", as_used=as_used)


def _clustered_weights(wrapper: Any) -> list[np.ndarray]:
    wrapper.update_clustered_weights_associations()  # as each call of the layer does
    weights = wrapper.layer.get_weights()
    for position, name in wrapper.position_original_weights.items():
        weights.insert(position, np.asarray(wrapper.get_weight_from_layer(name)))
    return weights


def _quantized(wrapper: Any, kind: str) -> Unwrapped:
    config, layer = wrapper.quantize_config, wrapper.layer
    weight_quantizers = [quantizer for _, quantizer in config.get_weights_and_quantizers(layer)]
    clusters = any(type(quantizer).__name__.startswith("ClusterPreserve") for quantizer in weight_quantizers)
    if clusters and len(wrapper.trainable_weights) > len(weight_quantizers) + bool(layer.use_bias):
        raise ModelError(
            f"from_tf_keras: the layer '{layer.name}' was trained quantize-aware with clusters preserved, and its "
            "weights are known to tfmot alone. Call tfmot.experimental.combine.strip_clustering_cqat(model) first: it "
            "puts the clustered weights into the layers."
        )
    activations = config.get_activations_and_quantizers(layer)
    outputs = config.get_output_quantizers(layer)[:1]
    for quantizer in (*weight_quantizers, *(quantizer for _, quantizer in activations), *outputs):
        _check_bits(quantizer, layer.name)
    inner = {id(variable) for variable in layer.non_trainable_weights}
    own = [variable for variable in wrapper.non_trainable_weights if id(variable) not in inner]
    # The wrapper makes its variables in this order: the step, those of weights, of activations, of the output.
    ends = [variable.numpy() for variable in own]
    output = _take_range(ends, outputs[0]) if outputs else None
    before = None
    for activation, quantizer in reversed(activations):
        name = _name_of(activation)
        if name in _AFTER:
            output = _take_range(ends, quantizer)
        if name in _BEFORE:
            before = _take_range(ends, quantizer)
    weights = [variable.numpy() for variable in (*wrapper.trainable_weights, *layer.non_trainable_weights)]
    if kind == "QuantizeWrapper" and weight_quantizers:
        # The first version lists the weights that it rounds last; a layer has them first.
        trainable, count = len(wrapper.trainable_weights), len(weight_quantizers)
        weights = weights[trainable - count : trainable] + weights[: trainable - count] + weights[trainable:]
    if any(type(quantizer).__name__.startswith("PrunePreserve") for quantizer in weight_quantizers):
        masks = {mask.shape: mask for mask in ends if mask.ndim > 1}
        weights = [weight * masks.get(weight.shape, 1) for weight in weights]
    per_channel = all(getattr(quantizer, "per_axis", True) for quantizer in weight_quantizers)
    in_float = type(config).__name__ == "OutputOnlyConfig"
    return Unwrapped(layer, weights, "quantized", LayerRanges(before, output, per_channel, in_float))


def _take_range(ends: list[np.ndarray], quantizer: Any) -> Range:
    if type(quantizer).__name__ == "FixedQuantizer":
        return float(quantizer.init_min), float(quantizer.init_max)
    maximum, minimum = ends.pop(), ends.pop()
    return float(minimum), float(maximum)


def _name_of(activation: Any) -> str:
    while type(activation).__name__ == "QuantizeAwareActivation":
        activation = activation.activation
    return str(getattr(activation, "__name__", type(activation).__name__))


def _check_bits(quantizer: Any, layer: str) -> None:
    bits = getattr(quantizer, "num_bits", 8)
    if bits != 8:
        raise ModelError(
            f"from_tf_keras: the layer '{layer}' is quantized to {bits} bits; tfopt trains for int8. "
            "Take the float model, and quantize it with tfopt.quantize_aware."
        )
