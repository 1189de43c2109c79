"""The verb: layers become products of smaller ones."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from tfopt.compression.factorization_plan import plan_factorization
from tfopt.compression.low_rank import truncated_svd, tucker2
from tfopt.surgery.graph import Call, Copier, copy_call, read_graph, rebuild
from tfopt.surgery.rewriting import Rewriting
from tfopt.surgery.select import LayerFilter

__all__ = ["factorize"]


def factorize(
    model: keras.Model, *, energy: float | None = None, target: str | None = None, layers: LayerFilter | None = None
) -> keras.Model:
    """Returns a model whose Dense and Conv2D layers are products of smaller ones.

    Use it on wide layers, whose weights are nearly of low rank; then fine-tune for a few epochs, since the error of
    the kernels becomes one of the outputs. It saves parameters and FLOPs in any runtime. More and thinner layers are
    not always faster: measure with `tfopt.benchmark`. The given model is left as it is; nested models are laid flat.
    Zeros and shared values of a compressed kernel are lost, so prune and cluster after it.

    - `Dense` becomes two (truncated SVD, the nearest of its rank), a 1×1 convolution likewise.
    - Any other `Conv2D` becomes 1×1, k×k and 1×1 (Tucker-2), the first or the last left out where all its channels are
      needed. Strides, dilation and padding go to the k×k one.

    The last one bears the layer's name, bias and activation; the others are called `NAME_reduce` and `NAME_core`.
    Kernel constraints do not carry over. A layer that would not take both fewer parameters and fewer FLOPs stays, as do
    grouped convolutions and layers within others (`TimeDistributed`); `tfopt.compression.plan_factorization`, with the
    same arguments, tells what becomes of each layer and why.

    Args:
        model: a built Functional or Sequential model.
        energy: the share of each kernel's sum of squares to keep at least, in (0, 1]; the kernel's relative error is
            then at most `sqrt(1 - energy)`. Useful values lie between 0.8 and 0.99.
        target: in place of `energy`: what is to remain of the whole model, "flops: 60%" (of its Dense and convolution
            layers) or "params: 60%"; the energy is the largest, the same for each layer, that reaches it.
        layers: a predicate on a layer, or a regular expression that its whole name matches; default: every Dense and
            Conv layer (see `tfopt.surgery.select.select_kernels`). Leaving out the last one is often worth it.

    Raises:
        ConfigError: if not just one of `energy` and `target` is given, it is out of range or out of reach (the message
            says what can be reached), `layers` matches nothing, or no layer would be smaller.
        ModelError: if the model is not a built Keras 3 model, is subclassed, has NaN weights, or FLOPs are asked for of
            inputs of unknown size.

    Example:
        >>> hidden = keras.layers.Dense(48, "relu", name="hidden")
        >>> model = keras.Sequential([keras.Input((64,)), hidden, keras.layers.Dense(10, name="head")])
        >>> smaller = factorize(model, target="params: 60%", layers="hidden")
        >>> [layer.name for layer in smaller.layers[1:]], model.count_params(), smaller.count_params()
        (['hidden_reduce', 'hidden', 'head'], 3610, 2106)

    References: Denton et al. 2014, arXiv:1404.0736; Kim et al. 2016, arXiv:1511.06530.
    """
    plan = plan_factorization(model, energy=energy, target=target, layers=layers)
    ranks = {row.layer: row.ranks for row in plan.rows if row.ranks is not None}
    graph = read_graph(model)
    rewriting = Rewriting(graph)

    def replace(call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if call.name not in ranks:
            return copy_call(call, copy, args, kwargs)
        layer = call.operation
        parts = rewriting.once(layer, lambda: _factors(layer, call.name, ranks[call.name], rewriting))
        outputs = args[0]
        for part, kernel in parts:
            outputs = part(outputs)
            part.kernel.assign(kernel)
        if layer.use_bias:
            parts[-1][0].bias.assign(layer.bias)
        return outputs

    return rebuild(graph, on_call=replace)


def _factors(
    layer: keras.layers.Layer, name: str, ranks: tuple[int, ...], rewriting: Rewriting
) -> list[tuple[keras.layers.Layer, np.ndarray]]:
    """The smaller layers in the order they are called, each with its kernel."""
    kernels = _factor_kernels(keras.ops.convert_to_numpy(layer.kernel), ranks)
    is_dense = isinstance(layer, keras.layers.Dense)
    # A 1×1 convolution leaves positions out as early as it can.
    widest = max(range(len(kernels)), key=lambda index: math.prod(kernels[index].shape[:-2]))
    parts = []
    for index, kernel in enumerate(kernels):
        config = {**layer.get_config(), "units" if is_dense else "filters": kernel.shape[-1], "kernel_constraint": None}
        if not is_dense and index != widest:
            config.update(kernel_size=(1, 1), strides=(1, 1), dilation_rate=(1, 1), padding="valid")
        if index < len(kernels) - 1:
            role = "core" if math.prod(kernel.shape[:-2]) > 1 else "reduce"
            config.update(use_bias=False, activation=None, activity_regularizer=None, bias_constraint=None)
            config["name"] = rewriting.unique(f"{name}_{role}")
        else:
            config["name"] = name
        parts.append((type(layer).from_config(config), kernel))
    return parts


def _factor_kernels(kernel: np.ndarray, ranks: tuple[int, ...]) -> list[np.ndarray]:
    if len(ranks) == 1:
        factors = truncated_svd(kernel.reshape(kernel.shape[-2:]), *ranks)
        return [factor.reshape(*kernel.shape[:-2], *factor.shape) for factor in factors]
    first, core, last = tucker2(kernel, *ranks)
    # Of full rank the outer ones are identities.
    before = [first[np.newaxis, np.newaxis]] if ranks[0] < kernel.shape[-2] else []
    after = [last[np.newaxis, np.newaxis]] if ranks[1] < kernel.shape[-1] else []
    return [*before, core, *after]
