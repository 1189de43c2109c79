"""Batching within the graph of a SavedModel: whoever calls it, at once with others, shares their batch."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tfopt.errors import ConfigError
from tfopt.export.saved_model_check import CHECKED_BATCH_SIZES
from tfopt.serving.batching import BatchingParameters

__all__ = ["batched_call", "check_in_graph"]

NOT_IN_GRAPH = {"thread_pool_name": None, "pad_variable_length_inputs": False, "max_execution_batch_size": None}
"""What `tf.raw_ops.BatchFunction` does not know, and the values that mean nothing."""
LEAST_BATCH_SIZE = max(CHECKED_BATCH_SIZES)


def check_in_graph(parameters: BatchingParameters, *, largest: int) -> None:
    """Refuses parameters that mean nothing within a graph, or under which the export's own requests do not run.

    Args:
        parameters: of the graph.
        largest: the largest batch of the warm-up requests.

    Raises:
        ConfigError: with what is wrong.
    """
    given = {name: getattr(parameters, name) for name in NOT_IN_GRAPH}
    wrong = [f"{name}={value!r}" for name, value in given.items() if value != NOT_IN_GRAPH[name]]
    if wrong:
        raise ConfigError(
            "export_serving: within a graph only sizes, threads, time-out, queue and splitting can be set. "
            f"Received: in_graph_batching with {', '.join(wrong)}. Leave it out."
        )
    least = max(LEAST_BATCH_SIZE, largest)
    if parameters.max_batch_size < least:
        raise ConfigError(
            f"export_serving: in_graph_batching must take batches of {least}, which the check of the file or the "
            f"warm-up requests of batching= have. Received: max_batch_size={parameters.max_batch_size}. Raise it, or "
            "lower that of batching=."
        )


def batched_call(
    call: Callable[[Sequence[Any]], list[Any]], specs: Sequence[tf.TensorSpec], parameters: BatchingParameters
) -> Callable[[Sequence[Any]], list[Any]]:
    """Makes calls that run at the same time one call.

    Each graph in which the result is called has a scheduler of its own: one that several functions share, by its name,
    gives answers of one to callers of another.

    Args:
        call: from a list of tensors to the list of outputs, each with the batch in front.
        specs: the inputs, of open batch size.
        parameters: how large batches are, and how long a call waits for others.

    Returns:
        A function of the same inputs and outputs, to be traced.

    Example:
        >>> rules = BatchingParameters(max_batch_size=2, batch_timeout_micros=0, allowed_batch_sizes=(1, 2))
        >>> double = batched_call(lambda tensors: [2 * tensors[0]], [tf.TensorSpec((None,), tf.float32)], rules)
        >>> tf.function(double)([tf.constant([1.0, 2.0])])[0].numpy().tolist()
        [2.0, 4.0]

    References: tensorflow.org/api_docs/python/tf/raw_ops/BatchFunction.
    """

    @tf.function(input_signature=list(specs))
    def run(*tensors: Any) -> list[Any]:
        return call(tensors)

    def batched(tensors: Sequence[Any]) -> list[Any]:
        traced = run.get_concrete_function()
        unique = uuid.uuid4().hex
        found = tf.raw_ops.BatchFunction(
            in_tensors=list(tensors),
            captured_tensors=traced.captured_inputs,
            f=traced,
            num_batch_threads=parameters.num_batch_threads,
            max_batch_size=parameters.max_batch_size,
            batch_timeout_micros=parameters.batch_timeout_micros,
            Tout=[output.dtype for output in traced.outputs],
            max_enqueued_batches=parameters.max_enqueued_batches,
            allowed_batch_sizes=list(parameters.allowed_batch_sizes),
            enable_large_batch_splitting=parameters.enable_large_batch_splitting,
            shared_name=unique,
            batching_queue=unique,
        )
        for tensor, output in zip(found, traced.outputs, strict=True):
            tensor.set_shape(output.shape)
        return list(found)

    return batched
