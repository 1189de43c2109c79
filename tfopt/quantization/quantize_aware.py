"""The verb: a float model becomes one that trains as the int8 network it will be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import keras

from tfopt.data import Samples, check_samples
from tfopt.errors import ConfigError, ModelError
from tfopt.interop.delegation import quantize_tf_keras
from tfopt.interop.legacy import is_tf_keras
from tfopt.quantization.layers import (
    FakeQuantize,
    FixedFakeQuantize,
    KeptInFloat,
    LearnedFakeQuantize,
    NamedOutput,
    QuantizeAware,
)
from tfopt.quantization.plan import SharedRange, plan_quantization
from tfopt.quantization.ranges import calibrate
from tfopt.quantization.rounded_offset import RoundedOffset
from tfopt.recipe import Quantization, QuantizationConfig
from tfopt.surgery.elementary import as_elementary, origin_of
from tfopt.surgery.graph import Call, Copier, Graph, Value, copy_call, read_graph, rebuild, unique_name
from tfopt.surgery.model import check_model

__all__ = ["is_quantize_aware", "quantize_aware", "range_layer_name"]


def quantize_aware(
    model: keras.Model,
    *,
    calibration: Samples | None = None,
    calibration_samples: int = 256,
    config: QuantizationConfig | Quantization | None = None,
    layers: Mapping[str, QuantizationConfig | Quantization] | None = None,
    strict: bool = False,
) -> keras.Model:
    """Returns a model that computes as its int8 .tflite will, and that `fit` can train.

    Use it when post-training int8 loses too much accuracy: fine-tune the result for a few epochs, then give it to
    `export_tflite`. Its outputs and the file's differ by at most one step of the int8 grid per layer. It is
    a plain Functional model: compile, fit, save and load it as any other. The given model is left as it is.

    Weights are rounded to symmetric int8 with one scale per output channel, activations to asymmetric int8.
    Batch norm stays a layer of its own while training; the converter folds it exactly.

    Args:
        model: a Functional or Sequential model (nested ones are laid flat) of float32 layers. A model of tf_keras is
            given to `tfmot.quantization.keras` instead, which has neither calibration nor another mode than int8.
        calibration: samples that the activation ranges start from: an array of shape `(n, ...)`, a sequence
            or mapping of arrays for several inputs, or a tf.data.Dataset of batches. Without it the first
            training batch sets the ranges, and until then each batch is rounded to its own.
        calibration_samples: at most this many of them are used, evenly spaced.
        config: how the model computes, a `QuantizationConfig` or the name of its mode; "int8" by default.
        layers: the layers that compute otherwise: from a regular expression that a layer's whole name matches to a
            config or a mode. "none" keeps a layer in float. Where several match, the first counts.
        strict: whether a layer that must stay float is an error. Otherwise `coverage(model)` names it.

    Raises:
        ModelError: if the model is not a built Keras 3 model, is subclassed, already quantize-aware, has NaN
            weights, or under `strict` has a layer without an int8 rule.
        DataError: if the calibration data is empty, not finite, or does not fit the model's inputs.
        ConfigError: if a config is not one, an expression of `layers` matches no layer, int16x8 is
            mixed with others, or ranges are to be learned or searched without calibration.

    Example:
        >>> import numpy as np
        >>> from tfopt.quantization import coverage
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax", name="scores")])
        >>> aware = quantize_aware(model, calibration=np.ones((8, 4)))
        >>> aware.compile("sgd", "sparse_categorical_crossentropy")
        >>> history = aware.fit(np.ones((8, 4)), np.zeros(8), verbose=0)
        >>> print(coverage(aware))
        layer              kind     computes  remark
        scores             Dense    int8      int8 weights per output channel, int8 output
        scores_activation  Softmax  int8      int8; output has a range that TFLite fixes

    References:
        Jacob et al. 2018, arXiv:1712.05877; Krishnamoorthi 2018, arXiv:1806.08342.
    """
    if is_tf_keras(model):
        return quantize_tf_keras(model, calibration=calibration, config=config, layers=layers)
    check_model(model)
    if is_quantize_aware(model):
        raise ModelError(
            f"quantize_aware: the model '{model.name}' is already quantize-aware. Train it, or export it as it is."
        )
    settings = QuantizationConfig.of(config or "int8")
    samples = None
    if calibration is not None:
        samples = check_samples(calibration, model.inputs, limit=calibration_samples)
    elif settings.activation_bits and (settings.learn_ranges or settings.ranges != "min_max"):
        raise ConfigError(
            "quantize_aware: ranges that are learned, or searched by "
            f"'{settings.ranges}', start from calibration=..., a few hundred typical samples. Received: None."
        )
    graph = read_graph(as_elementary(model))
    exceptions = _exceptions(layers or {}, model, graph)
    plan = plan_quantization(graph, settings, exceptions)
    unsupported = [row for row in plan.coverage if row.unsupported]
    if strict and unsupported:
        reasons = "; ".join(f"'{row.layer}' ({row.kind}): {row.remark}" for row in unsupported)
        raise ModelError(f"quantize_aware: strict=True, and these layers must stay float: {reasons}.")
    names: dict[Value, str] = {}
    taken = {*graph.input_names}
    for value, name in zip(keras.tree.flatten(graph.outputs), _output_layer_names(model), strict=True):
        if value not in names:  # a layer may give several outputs, and an input may be one
            names[value] = unique_name(name, taken)
    roundings: dict[str, keras.Layer] = {}
    scales: dict[str, Any] = {}  # of each range, by its name
    sum_scales: dict[Value, Any] = {}  # of what layers with an integer bias give
    wrappers: dict[int, keras.Layer] = {}
    record = {
        "config": settings.model_dump(),
        "exceptions": {name: exception.model_dump() for name, exception in exceptions.items()},
    }

    def round_value(value: Value, tensor: Any) -> Any:
        shared = plan.ranges.get(value)
        if value in plan.kept_in_float:
            tensor = KeptInFloat(dtype=value.dtype)(tensor)
        if shared is not None:
            rounding = roundings.setdefault(shared.name, _rounding(shared, value.dtype, settings))
            fixed = isinstance(rounding, FixedFakeQuantize)
            member = {} if fixed else {"member": shared.members.index(value)}
            tensor, scales[shared.name] = rounding(tensor, **member)
        return NamedOutput(**record, name=names[value], dtype=value.dtype)(tensor) if value in names else tensor

    def wrap(call: Call, copy: Copier, args: Any, kwargs: Any) -> Any:
        layer = call.operation
        folded = id(layer) in plan.folded
        if folded or (id(layer) in plan.integer_affine and call.inputs[0] in plan.grids):
            source = call.inputs[0]
            if id(layer) not in wrappers:
                name = f"{call.name}_{'folded' if folded else 'int8'}"
                wrappers[id(layer)] = RoundedOffset(copy(layer), folded, name=name)
            sum_scale = sum_scales.get(source, 0.0) if folded else scales[plan.grids[source].name]
            return wrappers[id(layer)](args[0], sum_scale=sum_scale, **kwargs)
        if id(layer) not in plan.weights:
            if call.name in names.values():  # the rounded output bears the name
                copy(layer, name=f"{call.name}_unrounded")
            return copy_call(call, copy, args, kwargs)
        if id(layer) not in wrappers:
            rounded = plan.weights[id(layer)]
            wrappers[id(layer)] = QuantizeAware(
                copy(layer), rounded.scale_axes, rounded.attributes, name=f"{call.name}_int8", dtype=layer.dtype_policy
            )
        grid = plan.grids.get(call.inputs[0])
        if grid is None or not plan.weights[id(layer)].integer_sums or layer.compute_dtype != "float32":
            return wrappers[id(layer)](*args, **kwargs)
        outputs, sum_scales[call.output] = wrappers[id(layer)](*args, input_scale=scales[grid.name], **kwargs)
        return outputs

    aware = rebuild(graph, on_call=wrap, on_value=round_value)
    if samples is not None:
        calibrate(aware, samples, method=settings.ranges)
    return aware


def is_quantize_aware(model: keras.Model) -> bool:
    """Whether `quantize_aware` made the model.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> is_quantize_aware(model), is_quantize_aware(quantize_aware(model))
        (False, True)
    """
    return any(isinstance(layer, NamedOutput) for layer in model.layers)


def range_layer_name(shared: SharedRange) -> str:
    """The name of the layer that rounds to a planned range, in what `quantize_aware` returns."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", f"{shared.name}_range")  # an input may be called what TensorFlow refuses


def _exceptions(
    layers: Mapping[str, QuantizationConfig | Quantization], model: keras.Model, graph: Graph
) -> dict[str, QuantizationConfig]:
    """For each elementary layer that a pattern means, by the name of the layer it comes from, its config."""
    originals = {call.name for call in read_graph(model).calls}
    origins = {call.name: origin_of(call.name, originals) for call in graph.calls}
    exceptions: dict[str, QuantizationConfig] = {}
    for pattern, config in layers.items():
        try:
            matched = [name for name, origin in origins.items() if re.fullmatch(pattern, origin)]
        except re.error as error:
            raise ConfigError(
                f"quantize_aware: the keys of layers= must be regular expressions. Received: {pattern!r} ({error}). "
                "Escape special characters with re.escape."
            ) from None
        if not matched:
            raise ConfigError(
                f"quantize_aware: layers={pattern!r} matches no layer of '{model.name}'. "
                f"Its layers: {', '.join(sorted(originals))}."
            )
        for name in matched:
            exceptions.setdefault(name, QuantizationConfig.of(config))
    return exceptions


def _output_layer_names(model: keras.Model) -> list[str]:
    return [model.layers[-1].name] if isinstance(model, keras.Sequential) else model.output_names


def _rounding(shared: SharedRange, dtype: str, config: QuantizationConfig) -> keras.Layer:
    name = range_layer_name(shared)
    if shared.fixed is not None:
        return FixedFakeQuantize(*shared.fixed, bits=shared.bits, name=name, dtype=dtype)
    kind = LearnedFakeQuantize if config.learn_ranges else FakeQuantize
    return kind(len(shared.members), bits=shared.bits, name=name, dtype=dtype)
