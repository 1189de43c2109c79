"""Whether mixed precision is faster here, and whether the numbers survive it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfopt.benchmark.protocol import measure
from tfopt.errors import ConfigError, ModelError
from tfopt.profiling.mixed_precision_report import MixedPrecisionReport, PrecisionTrial
from tfopt.profiling.training_trial import check_compiled, training_arrays
from tfopt.schedules.arguments import check_positive, check_steps

__all__ = ["mixed_precision_check"]

POLICIES = ("mixed_bfloat16", "mixed_float16")
_FIRST_LOSS_SCALE = 2.0**15  # that of keras.optimizers.LossScaleOptimizer
_REPEATS = 10


def mixed_precision_check(
    model: keras.Model,
    data: Any,
    *,
    policies: Sequence[str] = POLICIES,
    batch_size: int = 32,
    steps: int = 20,
    seconds: float = 1.0,
) -> MixedPrecisionReport:
    """Measures whether training in mixed precision pays on this machine, and whether it is numerically safe.

    Copies of the model, in float32 and under each policy, have the same weights and batches. They are trained for
    some steps, whose losses are compared; their first gradients are looked at for values that are not finite, and for
    zeros where float32 has none. Dropout is off in these copies, since its masks are others in each precision. Copies
    with dropout are timed, in turns. float16 is trained with `keras.optimizers.LossScaleOptimizer`, as it should be.
    Layers whose output is an output of the model stay in float32, as Keras's guide advises. The model itself is only
    read.

    A few steps tell what goes wrong at once; watch the loss of the real training too.

    Args:
        model: built, and compiled as for the training.
        data: `(x, y)` or `(x, y, sample_weight)` of arrays of shape `(n, ...)`, or a tf.data.Dataset of batches of
            these; `batch_size * steps` samples at most are used.
        policies: of "mixed_bfloat16" and "mixed_float16", those to try.
        batch_size: samples in a step. What pays at one size may not at another.
        steps: that are trained to compare losses.
        seconds: steps of each precision are timed for so long.

    Returns:
        The report: print it, or read `recommended` and `trials`.

    Raises:
        ConfigError: if an argument is out of range.
        ModelError: if the model is not built or not compiled, is no functional or sequential model, or has a training
            step of its own, which a copy would lack.
        DataError: if the data does not fit the model.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> data = np.ones((32, 8), "float32"), np.ones(32, "float32")
        >>> report = mixed_precision_check(model, data, policies=["mixed_bfloat16"], steps=2, seconds=0.01)
        >>> [trial.policy for trial in report.trials]
        ['float32', 'mixed_bfloat16']

    References: Micikevicius et al. 2018, arXiv:1710.03740; Kalamkar et al. 2019, arXiv:1905.12322.
    """
    check_compiled(model, verb="mixed_precision_check")
    check_steps("mixed_precision_check: batch_size", batch_size, minimum=1)
    check_steps("mixed_precision_check: steps", steps, minimum=1)
    check_positive("mixed_precision_check: seconds", seconds)
    unknown = [policy for policy in policies if policy not in POLICIES]
    if unknown or not policies or isinstance(policies, str):
        raise ConfigError(
            f"mixed_precision_check: policies must be some of {', '.join(POLICIES)}. Received: {policies!r}."
        )
    arrays = training_arrays(data, model, limit=batch_size * steps)
    batches = _batches(arrays, batch_size, steps)
    precisions = ("float32", *policies)
    still = {policy: _copy(model, policy, dropout=False) for policy in precisions}
    gradients = {policy: _first_gradients(copy, batches[0], policy) for policy, copy in still.items()}
    losses = {policy: [_train(copy, batch) for batch in batches] for policy, copy in still.items()}
    copies = {policy: _copy(model, policy) for policy in precisions}
    memory = {policy: _peak_of_a_step(copy, batches[0]) for policy, copy in copies.items()}
    calls = {policy: partial(_train, copy, batches[0]) for policy, copy in copies.items()}
    timings = measure(calls, repeats=_REPEATS, seconds=seconds, warmup_seconds=seconds)
    return MixedPrecisionReport(
        tuple(
            PrecisionTrial(
                policy=policy,
                step_ms=timings[policy].p50_ms,
                memory_bytes=memory[policy],
                loss_is_finite=bool(np.all(np.isfinite(losses[policy]))),
                loss_scale=gradients[policy][0],
                underflow=_underflow(gradients["float32"][1], gradients[policy][1]),
                loss_difference=_difference(losses["float32"], losses[policy]),
            )
            for policy in precisions
        ),
        batch_size=len(keras.tree.flatten(batches[0])[0]),
        steps=steps,
    )


def _batches(arrays: tuple[Any, ...], batch_size: int, steps: int) -> list[tuple[Any, ...]]:
    """As many batches as steps, from the beginning again where the samples do not suffice."""
    samples = len(keras.tree.flatten(arrays)[0])
    rows = np.arange(min(batch_size, samples))
    starts = [step * batch_size for step in range(steps)]
    return [
        keras.tree.map_structure(lambda array, start=start: array[(start + rows) % samples], arrays) for start in starts
    ]


_DROPOUT_ARGUMENTS = ("rate", "dropout", "recurrent_dropout")


def _copy(model: keras.Model, policy: str, *, dropout: bool = True) -> keras.Model:
    """A compiled copy under a policy, with the weights of the model, and with its dropout or without."""
    if type(model).train_step is not keras.Model.train_step:
        raise ModelError(
            "mixed_precision_check: expected a model that Keras's own training step trains. "
            f"Received: {type(model).__name__}, which has one of its own. Check the model within, such as the student."
        )
    outputs = {id(tensor) for tensor in model.outputs}
    ends = {layer.name for layer in model.layers if any(id(one) in outputs for one in keras.tree.flatten(layer.output))}

    def under_policy(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        if not isinstance(layer, keras.layers.InputLayer):
            config["dtype"] = "float32" if layer.name in ends else policy
        if not dropout:
            config |= {name: 0.0 for name in _DROPOUT_ARGUMENTS if name in config}
        return type(layer).from_config(config)

    try:
        copy = keras.models.clone_model(model, clone_function=under_policy)
    except ValueError as error:
        raise ModelError(
            f"mixed_precision_check: expected a functional or sequential model. Received: '{model.name}' ({error})."
        ) from None
    copy.set_weights(model.get_weights())
    optimizer = model.optimizer
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    optimizer = type(optimizer).from_config(optimizer.get_config())
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=_FIRST_LOSS_SCALE)
    copy.compile(
        optimizer,
        loss=model.loss,
        loss_weights=model.get_compile_config().get("loss_weights"),
        jit_compile=model.jit_compile,
        auto_scale_loss=False,
    )
    return copy


def _train(model: keras.Model, batch: tuple[Any, ...]) -> float:
    x, y, *weight = batch
    model.reset_metrics()  # the loss of this batch, not the mean so far
    return float(model.train_on_batch(x, y, *weight, return_dict=True)["loss"])


def _first_gradients(model: keras.Model, batch: tuple[Any, ...], policy: str) -> tuple[float, list[np.ndarray]]:
    """The gradients of one batch, and the loss scale: the largest from Keras's first down at which all are finite."""
    x, y, *weight = keras.tree.map_structure(tf.convert_to_tensor, batch)

    @tf.function(jit_compile=model.jit_compile)
    def gradients(scale: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True), *weight, training=True)
            scaled = loss * tf.cast(scale, loss.dtype)
        found = tape.gradient(scaled, model.trainable_variables, unconnected_gradients="zero")
        return [tf.cast(tf.convert_to_tensor(gradient), tf.float32) for gradient in found]

    scale = _FIRST_LOSS_SCALE if policy == "mixed_float16" else 1.0
    while True:
        found = [gradient.numpy() for gradient in gradients(tf.constant(scale))]
        if scale <= 1.0 or all(np.all(np.isfinite(gradient)) for gradient in found):
            return scale, found
        scale /= 2


def _underflow(expected: Sequence[np.ndarray], received: Sequence[np.ndarray]) -> float | None:
    """The share of gradients that are zero although they are none in float32; None if some are not finite."""
    if not all(np.all(np.isfinite(gradient)) for gradient in received):
        return None
    nonzero = sum(np.count_nonzero(gradient) for gradient in expected)
    lost = sum(np.count_nonzero((one != 0) & (other == 0)) for one, other in zip(expected, received, strict=True))
    return float(lost / nonzero) if nonzero else 0.0


def _difference(expected: Sequence[float], received: Sequence[float]) -> float:
    """How far the losses of the last quarter of the steps are apart, as a part of float32's."""
    last = -(-len(expected) // 4)
    reference = float(np.mean(expected[-last:]))
    apart = float(np.mean(received[-last:])) - reference
    return apart / abs(reference) if reference else apart


def _peak_of_a_step(model: keras.Model, batch: tuple[Any, ...]) -> int | None:
    """TensorFlow's peak on a GPU; within one process the memory of a CPU cannot be told apart."""
    if not tf.config.list_logical_devices("GPU"):
        return None
    _train(model, batch)
    before = tf.config.experimental.get_memory_info("GPU:0")["current"]
    tf.config.experimental.reset_memory_stats("GPU:0")
    _train(model, batch)
    return int(tf.config.experimental.get_memory_info("GPU:0")["peak"]) - int(before)
