"""Floating-point operations and parameters of each layer, for one sample."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import keras
from keras import layers

from tfopt.plain_table import aligned
from tfopt.surgery.graph import Call, read_graph

__all__ = ["CallFlops", "Costs", "LayerCost", "call_flops", "costs", "layer_cost"]

_KERNELS = {
    layers.Dense: ("kernel",),
    layers.Conv1D: ("kernel",),
    layers.Conv2D: ("kernel",),
    layers.Conv3D: ("kernel",),
    layers.SeparableConv1D: ("depthwise_kernel", "pointwise_kernel"),
    layers.SeparableConv2D: ("depthwise_kernel", "pointwise_kernel"),
}
_NOT_COUNTED = {"AdditiveAttention", "Attention", "Dot", "Einsum", "GroupQueryAttention", "Tensordot"}


@dataclass(frozen=True)
class CallFlops:
    """What one use of a layer computes for one sample.

    Args:
        kernels: each kernel and at how many positions its weights are used.
        products: multiply-accumulates of tensors with each other.
        remark: why nothing is counted, or empty.
    """

    kernels: tuple[tuple[keras.Variable, int], ...] = ()
    products: int = 0
    remark: str = ""

    def total(self, size: Callable[[keras.Variable], int] = lambda kernel: prod(kernel.shape)) -> int:
        """The floating-point operations: two for each multiply-accumulate.

        Args:
            size: gives how many weights a kernel has; other sizes than its own tell what a smaller one would cost.
        """
        return 2 * (self.products + sum(positions * size(kernel) for kernel, positions in self.kernels))


@dataclass(frozen=True)
class LayerCost:
    """A layer's share of its model.

    Args:
        name: of the layer.
        kind: its class.
        parameters: how many numbers it holds.
        flops: floating-point operations for one sample, in all uses of the layer; None where they are not counted.
        remark: why they are not, or empty.
    """

    name: str
    kind: str
    parameters: int
    flops: int | None
    remark: str


@dataclass(frozen=True)
class Costs:
    """What a model computes and holds; printing it gives a table.

    Args:
        layers: the layers that hold parameters or compute, in the order of the model.
        parameters: of the model.
    """

    layers: tuple[LayerCost, ...]
    parameters: int

    @property
    def flops(self) -> int:
        """Floating-point operations of one sample, without those that are not counted."""
        return sum(layer.flops or 0 for layer in self.layers)

    @property
    def not_counted(self) -> tuple[LayerCost, ...]:
        """The layers whose operations are not counted, each with the reason."""
        return tuple(layer for layer in self.layers if layer.flops is None)

    def __str__(self) -> str:
        cells = [("layer", "kind", "parameters", "FLOPs", "")]
        cells += [
            (row.name, row.kind, f"{row.parameters:,}", "?" if row.flops is None else f"{row.flops:,}", row.remark)
            for row in self.layers
        ]
        cells.append(("total", "", f"{self.parameters:,}", f"{self.flops:,}", ""))
        return "\n".join(aligned(cells, "<<>><"))


def costs(model: keras.Model) -> Costs:
    """Counts the parameters and the floating-point operations of a model's layers, for one sample.

    A multiply-accumulate counts as two operations. Those of dense, convolutional and recurrent kernels are counted and
    those of attention, as in the literature; not what is done once per element (biases, activations, normalization,
    pooling): it is small beside them and mostly fused.

    Args:
        model: a Functional or Sequential model; nested ones are laid flat.

    Raises:
        ModelError: if the model is subclassed.

    Example:
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="conv"), layers.ReLU()])
        >>> print(costs(model))
        layer  kind    parameters  FLOPs
        conv   Conv2D         112  7,776
        total                 112  7,776
    """
    uses: dict[str, list[Call]] = {}
    for call in read_graph(model).calls:
        uses.setdefault(call.name, []).append(call)
    rows = map(layer_cost, uses.values())
    unique = {id(weight): weight for weight in model.weights}
    return Costs(
        layers=tuple(row for row in rows if row.parameters or row.flops != 0),
        parameters=sum(prod(weight.shape) for weight in unique.values()),
    )


def layer_cost(calls: list[Call]) -> LayerCost:
    """A layer's share of its model, from all its uses."""
    layer = calls[0].operation
    counted = [call_flops(call) for call in calls]
    remark = next((part.remark for part in counted if part.remark), "")
    return LayerCost(
        name=calls[0].name,
        kind=type(layer).__name__,
        parameters=sum(prod(weight.shape) for weight in getattr(layer, "weights", ())),
        flops=None if remark else sum(part.total() for part in counted),
        remark=remark,
    )


def call_flops(call: Call) -> CallFlops:
    """Counts what one use of a layer computes for one sample; `remark` tells where that is not known.

    Example:
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3)])
        >>> call_flops(read_graph(model).calls[0]).total()  # 6 × 6 positions of a kernel of 108 weights
        7776
    """
    operation = call.operation
    if not call.inputs:
        return CallFlops()
    try:
        if type(operation).__name__ == "Matmul":
            return CallFlops(products=_size(call.output.shape[1:]) * _size(call.inputs[0].shape[-1:]))
        if isinstance(operation, layers.MultiHeadAttention):
            return _attention(call, operation)
        return _kernels(operation, call.inputs[0].shape, call.output.shape)
    except _SizeNotKnownError:
        return CallFlops(remark="not counted: a size of its input or output is known only when the model runs")


class _SizeNotKnownError(Exception):
    """An axis has the size None."""


def _size(shape: tuple[int | None, ...]) -> int:
    if None in shape:
        raise _SizeNotKnownError
    return prod(shape)  # type: ignore[arg-type]


def _kernels(layer: keras.Operation, taken: tuple[int | None, ...], given: tuple[int | None, ...]) -> CallFlops:
    """Counts a layer that takes a tensor of one shape and gives one of another."""

    def used(positions: int, *kernels: keras.Variable) -> CallFlops:
        return CallFlops(tuple((kernel, positions) for kernel in kernels))

    if type(layer) in _KERNELS:
        kernels = [getattr(layer, name) for name in _KERNELS[type(layer)]]
        return used(_size(given[1:]) // kernels[-1].shape[-1], *kernels)
    match layer:
        case layers.DepthwiseConv1D() | layers.DepthwiseConv2D():
            return used(_size(given[1:]) // prod(layer.kernel.shape[-2:]), layer.kernel)
        case layers.Conv1DTranspose() | layers.Conv2DTranspose() | layers.Conv3DTranspose():
            return used(_size(taken[1:]) // layer.kernel.shape[-1], layer.kernel)
        case layers.EinsumDense():
            taken_labels, kernel_labels = layer.equation.replace(" ", "").split("->")[0].split(",")
            sizes = zip(kernel_labels, layer.kernel.shape, strict=True)
            return used(_size(taken[1:]) // prod(size for label, size in sizes if label in taken_labels), layer.kernel)
        case layers.LSTM() | layers.GRU() | layers.SimpleRNN():
            return used(_size(taken[1:2]), layer.cell.kernel, layer.cell.recurrent_kernel)
        case layers.Wrapper():
            return _kernels(layer.layer, taken, given)
        case layers.Bidirectional():
            parts = [_kernels(part, taken, given) for part in (layer.forward_layer, layer.backward_layer)]
            return CallFlops(parts[0].kernels + parts[1].kernels, remark=parts[0].remark or parts[1].remark)
        case layers.Embedding() | layers.PReLU():
            return CallFlops()
    kind = type(layer).__name__
    if kind in _NOT_COUNTED or any(len(weight.shape) > 1 for weight in getattr(layer, "weights", ())):
        return CallFlops(remark=f"not counted: what a {kind} computes is not known")
    return CallFlops()


def _attention(call: Call, layer: layers.MultiHeadAttention) -> CallFlops:
    given = inspect.signature(layer.call).bind(*call.args, **call.kwargs).arguments
    query, value = given["query"], given["value"]
    key = value if given.get("key") is None else given["key"]
    if len(query.shape) != 3:
        return CallFlops(remark="not counted: attention over several axes")
    queries, keys = _size(query.shape[1:2]), _size(key.shape[1:2])
    positions = ((layer.query_dense, queries), (layer.key_dense, keys), (layer.value_dense, keys))
    value_size = layer.value_dense.kernel.shape[-1]
    return CallFlops(
        kernels=tuple((part.kernel, uses) for part, uses in (*positions, (layer.output_dense, queries))),
        products=layer.num_heads * queries * keys * (layer.key_dim + value_size),
    )
