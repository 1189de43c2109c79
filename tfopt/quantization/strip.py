"""Out of a quantize-aware model: the float model within it, and the model with every grid made constant."""

from __future__ import annotations

from collections import Counter
from operator import attrgetter
from typing import Any

import keras
import numpy as np
from keras import ops

from tfopt.errors import ModelError
from tfopt.quantization.layers import (
    SCALE_ARGUMENTS,
    FakeQuantize,
    FixedFakeQuantize,
    KeptInFloat,
    LearnedFakeQuantize,
    NamedOutput,
    QuantizeAware,
)
from tfopt.quantization.rounded_offset import RoundedOffset
from tfopt.quantization.spec import activation_grid
from tfopt.recipe import QuantizationConfig
from tfopt.surgery.affine import affine_as_depthwise
from tfopt.surgery.graph import Call, Copier, Value, copy_call, read_graph, rebuild

__all__ = ["call_unwrapped", "freeze", "settings_of", "strip"]


def strip(model: keras.Model) -> keras.Model:
    """Returns the float model within a quantize-aware one, with its trained weights unrounded.

    Example:
        >>> from tfopt.quantization import quantize_aware
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden")])
        >>> [layer.name for layer in strip(quantize_aware(model)).layers][1:]
        ['hidden']
    """
    outputs = {layer.name for layer in model.layers if isinstance(layer, NamedOutput)}

    def unwrap(call: Call, copy: Copier, args: Any, kwargs: Any) -> Any:
        match call.operation:
            case FakeQuantize() | LearnedFakeQuantize() | FixedFakeQuantize():
                return args[0], None  # there is no scale
            case KeptInFloat() | NamedOutput():
                return args[0]
            case QuantizeAware() | RoundedOffset():
                return call_unwrapped(call, copy, args, kwargs)
        if call.name.removesuffix("_unrounded") in outputs:  # the name that the rounded output bore
            copy(call.operation, name=call.name.removesuffix("_unrounded"))
        return copy_call(call, copy, args, kwargs)

    return rebuild(read_graph(model), on_call=unwrap)


def freeze(model: keras.Model) -> keras.Model:
    """Returns a quantize-aware model with its weights rounded and its ranges constant: what the converter takes.

    From weights that lie on their grid already, the converter recovers just that grid; a fake-quantize
    node on the weights of a dense layer would make it fail. A batch norm that follows no convolution, and any
    other multiplication and addition per channel, becomes a depthwise one. The int16 ranges of int16x8 are
    left out: there the converter takes them from calibration samples.

    Raises:
        ModelError: if a range was never observed.

    Example:
        >>> from tfopt.quantization import quantize_aware
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden")])
        >>> frozen = freeze(quantize_aware(model, calibration=np.eye(4, dtype="float32")))
        >>> "hidden" in [layer.name for layer in frozen.layers]
        True
    """
    weights: list[tuple[keras.Variable, np.ndarray]] = []
    scales: dict[Value, float] = {}
    graph = read_graph(model)
    convolved = {call.output for call in graph.calls if isinstance(call.operation, QuantizeAware)}
    uses = Counter(id(call.operation) for call in graph.calls)

    def fix(call: Call, copy: Copier, args: Any, kwargs: Any) -> Any:
        match call.operation:
            case FakeQuantize() | LearnedFakeQuantize() | FixedFakeQuantize() as layer if layer.bits == 16:
                return args[0], None  # with ranges in the graph, the converter makes softmax and its kin int8
            case FixedFakeQuantize() as layer:
                scales[_scale_of(call)] = activation_grid(layer.minimum, layer.maximum).scale
            case FakeQuantize() | LearnedFakeQuantize() as layer:
                if not layer.is_known:
                    raise ModelError(
                        f"The range '{call.name}' of the model was never observed, so it has no int8 grid yet. "
                        "Pass calibration=... to quantize_aware, or train the model first."
                    )
                minimum, maximum = (float(end) for end in layer.range())
                grid = activation_grid(minimum, maximum, layer.bits)
                scales[_scale_of(call)] = grid.scale
                name = f"{call.name}_{kwargs['member']}"
                return FixedFakeQuantize(grid.minimum, grid.maximum, layer.bits, name=name)(args[0])
            case QuantizeAware() as wrapper:
                # The bias is rounded before a batch norm adds to it. A shared layer's lies on several grids.
                source = call.kwargs.get("input_scale")
                scale = scales.get(source) if source is not None and uses[id(wrapper)] == 1 else None
                rounded = wrapper.rounded_weights(scale)
                outputs, layer = call_unwrapped(call, copy, args, kwargs), copy(wrapper.layer)
                weights.extend((attrgetter(name)(layer), np.asarray(values)) for name, values in rounded.items())
                return outputs
            case RoundedOffset() as wrapper if not wrapper.folded:
                scale = scales.get(call.kwargs["sum_scale"], 0.0) if uses[id(wrapper)] == 1 else 0.0
                offset = wrapper.rounded_offset(args[0].shape[-1], scale)
                return affine_as_depthwise(wrapper.layer, args[0], offset=np.asarray(offset))
            case RoundedOffset():
                return call_unwrapped(call, copy, args, kwargs)
            case KeptInFloat():
                # The converter computes on integers whatever lies between two grids. It has no integer kernel for a
                # reversal, and does not see that two of them are none.
                return ops.flip(ops.flip(args[0], axis=1), axis=1)
            case NamedOutput():
                return args[0]
            case keras.layers.Rescaling() | keras.layers.Normalization() as layer:
                return affine_as_depthwise(layer, args[0])
            case keras.layers.BatchNormalization() as layer if call.inputs[0] not in convolved:
                return affine_as_depthwise(layer, args[0])
        return copy_call(call, copy, args, kwargs)

    frozen = rebuild(graph, on_call=fix)
    for variable, values in weights:
        variable.assign(values)
    return frozen


def call_unwrapped(call: Call, copy: Copier, args: Any, kwargs: Any) -> Any:
    """Calls what a wrapper runs, without the scales that only the wrapper takes and gives."""
    plain = {name: value for name, value in kwargs.items() if name not in SCALE_ARGUMENTS}
    outputs = copy(call.operation.layer)(*args, **plain)
    return (outputs, None) if "input_scale" in kwargs else outputs


def _scale_of(call: Call) -> Value:
    return keras.tree.flatten(call.outputs)[1]


def settings_of(model: keras.Model) -> tuple[QuantizationConfig, dict[str, QuantizationConfig]]:
    """How a quantize-aware model computes, and which of its layers otherwise; int8 for a float model.

    Example:
        >>> from tfopt.quantization import quantize_aware
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden")])
        >>> settings_of(quantize_aware(model, config="int16x8"))[0].mode
        'int16x8'
    """
    output = next((layer for layer in model.layers if isinstance(layer, NamedOutput)), NamedOutput())
    exceptions = {name: QuantizationConfig.of(fields) for name, fields in output.exceptions.items()}
    return QuantizationConfig.of(output.config), exceptions
