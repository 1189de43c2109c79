"""Out of a quantize-aware model: the float model within it, and the model with every grid made constant."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfopt.errors import ModelError
from tfopt.quantization.layers import FakeQuantize, FixedFakeQuantize, NamedOutput, QuantizeAware
from tfopt.quantization.spec import activation_grid
from tfopt.surgery.affine import affine_as_depthwise
from tfopt.surgery.graph import Call, Copier, copy_call, read_graph, rebuild

__all__ = ["freeze", "strip"]


def strip(model: keras.Model) -> keras.Model:
    """Returns the float model within a quantize-aware one, with its trained weights unrounded.

    Example:
        >>> from tfopt.quantization import quantize_aware
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden")])
        >>> [layer.name for layer in strip(quantize_aware(model)).layers][1:]
        ['hidden']
    """

    def unwrap(call: Call, copy: Copier, args: Any, kwargs: Any) -> Any:
        match call.operation:
            case FakeQuantize() | FixedFakeQuantize() | NamedOutput():
                return args[0]
            case QuantizeAware():
                return copy(call.operation.layer)(*args, **kwargs)
        return copy_call(call, copy, args, kwargs)

    return rebuild(read_graph(model), on_call=unwrap)


def freeze(model: keras.Model) -> keras.Model:
    """Returns a quantize-aware model with its weights rounded and its ranges constant: what the converter takes.

    From weights that lie on their grid already, the converter recovers just that grid; a fake-quantize
    node on the weights of a dense layer would make it fail. A batch norm that follows no convolution, and any
    other multiplication and addition per channel, becomes a depthwise one.

    Raises:
        ModelError: if a range was never observed.
    """
    kernels: list[tuple[keras.Layer, np.ndarray]] = []
    graph = read_graph(model)
    folded = {call.output for call in graph.calls if isinstance(call.operation, QuantizeAware)}

    def fix(call: Call, copy: Copier, args: Any, kwargs: Any) -> Any:
        match call.operation:
            case FakeQuantize() as layer:
                if not np.all(layer.batches):
                    raise ModelError(
                        f"The range '{call.name}' of the model was never observed, so it has no int8 grid yet. "
                        "Pass calibration=... to quantize_aware, or train the model first."
                    )
                grid = activation_grid(*(float(end) for end in layer.range()))
                return FixedFakeQuantize(grid.minimum, grid.maximum, name=f"{call.name}_{kwargs['member']}")(args[0])
            case QuantizeAware() as wrapper:
                layer = copy(wrapper.layer)
                outputs = layer(*args, **kwargs)
                kernels.append((layer, np.asarray(wrapper.rounded_kernel())))
                return outputs
            case NamedOutput():
                return args[0]
            case keras.layers.Rescaling() | keras.layers.Normalization() as layer:
                return affine_as_depthwise(layer, args[0])
            case keras.layers.BatchNormalization() as layer if call.inputs[0] not in folded:
                return affine_as_depthwise(layer, args[0])
        return copy_call(call, copy, args, kwargs)

    frozen = rebuild(graph, on_call=fix)
    for layer, kernel in kernels:
        layer.kernel.assign(kernel)
    return frozen
