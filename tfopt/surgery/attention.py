"""Multi-head attention as its projections, two matrix products and a softmax.

References: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.
"""

from __future__ import annotations

import inspect
from typing import Any

import keras
from keras import layers, ops

from tfopt.surgery.graph import Call, Copier
from tfopt.surgery.rewriting import Rewriting

__all__ = ["split_attention"]

_UNSUPPORTED_ARGUMENTS = (
    "attention_mask",
    "key_mask",
    "query_mask",
    "value_mask",
    "return_attention_scores",
    "use_causal_mask",
)
_UNSUPPORTED_OPTIONS = ("sliding_window", "use_gate")


def split_attention(
    call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any], rewriting: Rewriting
) -> Any:
    """Makes a MultiHeadAttention over one axis, without masks, of elementary layers."""
    layer = call.operation
    given = inspect.signature(layer.call).bind(*args, **kwargs).arguments
    query, value, key = given["query"], given["value"], given.get("key")
    config = layer.get_config()
    unsupported = [given.get(argument) for argument in _UNSUPPORTED_ARGUMENTS]
    unsupported += [config.get(option) for option in _UNSUPPORTED_OPTIONS]
    if any(option is not None and option is not False for option in unsupported) or len(query.shape) != 3:
        return None
    name = rewriting.name(call)

    def part(suffix: str) -> dict[str, Any]:
        return {"name": rewriting.unique(f"{name}_{suffix}"), "dtype": layer.dtype_policy}

    def project(dense: keras.Layer, x: Any, suffix: str, shape_name: str) -> Any:
        dense_name = rewriting.once(dense, lambda: rewriting.unique(f"{call.name}_{suffix}"))
        outputs = copy(dense, name=dense_name)(x)
        # Keras's projections do not tell how many steps they return.
        steps = -1 if x.shape[1] is None else x.shape[1]
        return layers.Reshape((steps, *outputs.shape[2:]), name=shape_name, dtype=layer.dtype_policy)(outputs)

    # (n, steps, heads, size); the heads become the axis of the batch for the products
    query = project(layer.query_dense, query, "query", part("query_steps")["name"])
    key = project(layer.key_dense, value if key is None else key, "key", part("key_steps")["name"])
    value = project(layer.value_dense, value, "value", part("value_steps")["name"])
    query = layers.Rescaling(layer.key_dim**-0.5, **part("scaled"))(query)
    query = layers.Permute((2, 1, 3), **part("query_heads"))(query)
    key = layers.Permute((2, 3, 1), **part("key_heads"))(key)
    value = layers.Permute((2, 1, 3), **part("value_heads"))(value)
    scores = rewriting.apply(ops.matmul, query, key, name=part("scores")["name"])
    weights = layers.Softmax(**part("softmax"))(scores)
    if layer.dropout:
        weights = layers.Dropout(layer.dropout, seed=layer.seed, **part("dropout"))(weights)
    context = rewriting.apply(ops.matmul, weights, value, name=part("context")["name"])
    context = layers.Permute((2, 1, 3), **part("context_steps"))(context)
    return project(layer.output_dense, context, "output", name)
