"""Which layers of a model, and which of their weights, through nested models and wrappers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import keras

from tfopt.errors import ConfigError, ModelError

__all__ = ["LayerFilter", "input_axis", "iterate_layers", "select_kernels"]

LayerFilter = Callable[[keras.layers.Layer], bool] | str | re.Pattern[str]
"""A predicate on a layer, or a regular expression that its whole name matches."""

_DENSE_OR_CONV = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
_CELLS = (keras.layers.SimpleRNNCell, keras.layers.GRUCell, keras.layers.LSTMCell)


def iterate_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yields every layer of a model once, in the model's order.

    Nested models and wrappers (`keras.layers.Wrapper`, `Bidirectional`) are opened, not yielded. A composite
    layer, which holds layers as attributes, is yielded and then opened.

    Example:
        >>> nested = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="inner")])
        >>> model = keras.Sequential([nested, keras.layers.Dense(2, name="outer")])
        >>> [layer.name for layer in iterate_layers(model)]
        ['inner', 'outer']
    """
    seen: set[int] = set()

    def walk(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
        if id(layer) in seen:
            return
        seen.add(id(layer))
        if isinstance(layer, keras.Model):
            children = layer.layers
        else:
            if not isinstance(layer, (keras.layers.Wrapper, keras.layers.Bidirectional)):
                yield layer
            children = _layers_in(list(vars(layer).values()))
        for child in children:
            yield from walk(child)

    yield from walk(model)


def select_kernels(
    model: keras.Model, layers: LayerFilter | None = None, *, depthwise: bool = False
) -> list[tuple[keras.layers.Layer, keras.Variable]]:
    """Returns the kernels of a model, each with the layer that owns it.

    By default these are the kernels of every Dense and Conv layer (1-D to 3-D, transposed, and the pointwise
    kernel of the separable ones). Depthwise kernels are left out: they hold about one weight in a hundred of
    a mobile network, each channel has only 9 or 25 of them, and losing some costs more accuracy than size. So is the
    table of an Embedding, `(words, features)`, which counts as its kernel where `layers` chooses it.

    Args:
        model: a built model.
        depthwise: whether the default has the depthwise kernels too, and a chosen separable layer both of its own.
        layers: takes the place of the default among all layers that own a kernel (depthwise, EinsumDense and
            recurrent cells and Embedding too): a predicate on the layer, or a regular expression that the whole layer
            name must match, so that "dense_1" does not also mean "dense_10"; write "dense.*" for all.

    Raises:
        ConfigError: if `layers` is of another type, not a valid expression, or matches no layer.
        ModelError: if a chosen layer is not built, its kernel is not a float variable, or there is none.

    Example:
        >>> head = keras.layers.Dense(2, name="head")
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), head])
        >>> [tuple(kernel.shape) for _, kernel in select_kernels(model)]
        [(4, 3), (3, 2)]
        >>> [layer.name for layer, _ in select_kernels(model, "he.*")]
        ['head']
    """
    wanted = _predicate(layers, depthwise)
    owners = [layer for layer in iterate_layers(model) if _owns_kernel(layer)]
    chosen = [layer for layer in owners if wanted(layer)]
    if not chosen:
        names = ", ".join(layer.name for layer in owners) or "none"
        if layers is None:
            raise ModelError(
                f"The model '{model.name}' has no Dense or Conv layer. Layers with a kernel: {names}. "
                "Choose among them with layers=."
            )
        raise ConfigError(
            f"layers={layers!r} matches no layer of '{model.name}' that owns a kernel. Available: {names}."
        )
    # Two layers may share one variable; it counts once.
    kernels = {id(kernel): (layer, kernel) for layer in chosen for kernel in _kernels(layer, depthwise)}
    return list(kernels.values())


def input_axis(layer: keras.layers.Layer, kernel: keras.Variable) -> int | None:
    """Which axis of a kernel is that of its input channels, -2 or -1; the other of these two is that of its outputs.

    It is the axis that is summed over, and that TFLite stores innermost: the rows `(out, in)` of a dense kernel, and
    `(out, h, w, in)` of a convolution's.

    Returns:
        The axis; None for a depthwise kernel, which sums over no channels, and for layers of other kinds.

    Example:
        >>> dense = keras.layers.Dense(3)
        >>> dense.build((None, 4))
        >>> dense.kernel.shape[input_axis(dense, dense.kernel)]
        4
    """
    if isinstance(layer, _DEPTHWISE) or kernel is getattr(layer, "depthwise_kernel", None):
        return None
    if isinstance(layer, _TRANSPOSED):
        return -1
    return -2 if isinstance(layer, (*_DENSE_OR_CONV, *_CELLS)) else None


def _layers_in(value: Any) -> Iterator[keras.layers.Layer]:
    if isinstance(value, keras.layers.Layer):
        yield value
    elif isinstance(value, dict):
        yield from _layers_in(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _layers_in(item)


def _predicate(layers: LayerFilter | None, depthwise: bool) -> Callable[[keras.layers.Layer], bool]:
    if layers is None:
        kinds = (*_DENSE_OR_CONV, *_DEPTHWISE) if depthwise else _DENSE_OR_CONV
        return lambda layer: isinstance(layer, kinds)
    if isinstance(layers, (str, re.Pattern)):
        try:
            pattern = re.compile(layers)
        except re.error as error:
            raise ConfigError(
                f"layers must be a regular expression. Received: {layers!r} ({error}). "
                "Escape special characters with re.escape."
            ) from None
        return lambda layer: pattern.fullmatch(layer.name) is not None
    if callable(layers):
        return layers
    raise ConfigError(
        f"layers must be a predicate on a layer or a regular expression on its name. Received: {layers!r}."
    )


def _owns_kernel(layer: keras.layers.Layer) -> bool:
    # An unbuilt Dense or Conv has no kernel yet; it counts, so that it is refused rather than skipped.
    return isinstance(layer, (*_DENSE_OR_CONV, keras.layers.Embedding)) or hasattr(layer, "kernel")


def _kernels(layer: keras.layers.Layer, depthwise: bool) -> list[keras.Variable]:
    if not layer.built:
        raise ModelError(
            f"The layer '{layer.name}' is not built: its kernel does not exist yet. "
            "Give the model a keras.Input or call it once on data."
        )
    if isinstance(layer, keras.layers.Embedding):
        kernels = [layer.embeddings]
    else:
        kernels = [layer.kernel if hasattr(layer, "kernel") else layer.pointwise_kernel]
    if depthwise and hasattr(layer, "depthwise_kernel"):
        kernels.insert(0, layer.depthwise_kernel)
    for kernel in kernels:
        if not isinstance(kernel, keras.Variable) or "float" not in keras.backend.standardize_dtype(kernel.dtype):
            raise ModelError(
                f"The kernel of the layer '{layer.name}' is not a float variable (LoRA is enabled on it, or "
                "model.quantize() converted it). Give the plain float model."
            )
    return kernels
