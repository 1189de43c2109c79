"""What tfopt's verbs do with a model of tf_keras: they hand it to tfmot, with arguments that mean the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tfopt.data import Samples
from tfopt.errors import ConfigError, ModelError, first_line
from tfopt.interop.legacy import import_tf_keras, import_tfmot, is_tf_keras
from tfopt.recipe import Quantization, QuantizationConfig

__all__ = ["prune_tf_keras", "quantize_tf_keras"]

TfKerasFilter = Callable[[Any], bool] | str | None


def quantize_tf_keras(
    model: Any,
    *,
    calibration: Samples | None,
    config: QuantizationConfig | Quantization | None,
    layers: Mapping[str, QuantizationConfig | Quantization] | None,
) -> Any:
    """Makes a tf_keras model quantize-aware with `tfmot.quantization.keras`; `tfopt.quantize_aware` says with what.

    tfmot knows int8 only, and layers may stay in float (mode "none"). It has no calibration.

    Raises:
        ConfigError: if an argument has no meaning in tfmot.
        ModelError: if tfmot refuses the model.
    """
    way_out = "Leave it out, or translate the model first: quantize_aware(tfopt.from_tf_keras(model), ...)."
    if calibration is not None:
        raise ConfigError(
            "quantize_aware: for a tf_keras model it calls tfmot, which has no calibration: its ranges start at ±6 and "
            f"follow the training. Received: calibration=. {way_out}"
        )
    if QuantizationConfig.of(config or "int8") != QuantizationConfig():
        raise ConfigError(
            "quantize_aware: for a tf_keras model it calls tfmot, which has int8 only. "
            f"Received: config={config!r}. {way_out}"
        )
    for pattern, mode in (layers or {}).items():
        if QuantizationConfig.of(mode).mode != "none":
            raise ConfigError(
                "quantize_aware: for a tf_keras model it calls tfmot, where a layer is int8 or stays in float "
                f"('none'). Received: layers={{{pattern!r}: {mode!r}}}. {way_out}"
            )
    names = [layer.name for layer in model.layers]
    for pattern in layers or {}:
        if not any(re.fullmatch(pattern, name) for name in names):
            raise ConfigError(
                f"quantize_aware: layers={pattern!r} matches no layer of '{model.name}'. "
                f"Its layers: {', '.join(names)}."
            )
    tf_keras, quantization = import_tf_keras(), import_tfmot().quantization.keras

    def annotate(layer: Any) -> Any:
        stays = any(re.fullmatch(pattern, layer.name) for pattern in layers or {})
        return layer if stays else quantization.quantize_annotate_layer(layer)

    try:
        if not layers:
            return quantization.quantize_model(model)
        return quantization.quantize_apply(tf_keras.models.clone_model(model, clone_function=annotate))
    except (ValueError, RuntimeError, AttributeError) as error:
        raise _refused("quantize_aware", model, error) from error


def prune_tf_keras(
    model: Any,
    final_sparsity: float = 0.8,
    *,
    initial_sparsity: float = 0.0,
    begin_step: int = 0,
    end_step: int | None = None,
    frequency: int = 100,
    schedule: Any = None,
    pattern: str | None = None,
    block: tuple[int, int] | None = None,
    block_pooling: str = "average",
    layers: TfKerasFilter = None,
) -> tuple[Any, list[Any]]:
    """Wraps a tf_keras model with `tfmot.sparsity.keras.prune_low_magnitude`, by the arguments of `MagnitudePruning`.

    `MagnitudePruning` itself is a callback of Keras 3: it holds masks as constraints that the optimizer of Keras 3
    applies, and tf_keras has wrappers instead. So this returns the wrapped model, which has to be compiled, and the
    callbacks that its `fit` needs. After it, `tfopt.from_tf_keras` takes the wrappers off.

    Args:
        model: a built Sequential or Functional model of tf_keras; it shares its weights with the result.
        final_sparsity: fraction of zeros at `end_step`, in [0, 1).
        initial_sparsity: fraction of zeros at `begin_step`.
        begin_step: optimizer updates before the first mask.
        end_step: optimizer updates before the last one.
        frequency: steps between two masks.
        schedule: a schedule of tfmot, in place of the ramp of power 3 that the arguments before it give.
        pattern: "N:M", such as "2:4".
        block: output and input channels of blocks, in the layout of TFLite.
        block_pooling: what represents a block: its "average" magnitude, or its "max".
        layers: a predicate on a layer, or a regular expression that its whole name matches; default: every Dense
            and Conv layer. (tfmot's own default wraps every layer that it knows.)

    Returns:
        The wrapped model, and the callbacks for its `fit`.

    Raises:
        ConfigError: if an argument is missing or matches nothing.
        ModelError: if the model is not of tf_keras, or tfmot refuses it or an argument.

    Example:
        >>> from tfopt.interop.legacy import import_tf_keras
        >>> tf_keras = import_tf_keras()
        >>> old = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(3, name="hidden")])
        >>> pruned, callbacks = prune_tf_keras(old, 0.5, end_step=100)
        >>> [type(layer).__name__ for layer in pruned.layers], len(callbacks)
        (['PruneLowMagnitude'], 1)
    """
    if not is_tf_keras(model):
        raise ModelError(
            f"prune_tf_keras: expected a tf_keras model. Received: {type(model).__name__}. "
            "Prune a model of Keras 3 with tfopt.callbacks.MagnitudePruning."
        )
    tf_keras, sparsity = import_tf_keras(), import_tfmot().sparsity.keras
    kernels = (tf_keras.layers.Dense, tf_keras.layers.Conv1D, tf_keras.layers.Conv2D, tf_keras.layers.Conv3D)

    def is_chosen(layer: Any) -> bool:
        if layers is None:
            return isinstance(layer, kernels) and not isinstance(layer, tf_keras.layers.DepthwiseConv2D)
        return bool(re.fullmatch(layers, layer.name)) if isinstance(layers, str) else layers(layer)

    if not any(is_chosen(layer) for layer in model.layers):
        raise ConfigError(
            f"prune_tf_keras: layers={layers!r} matches no layer of '{model.name}'. "
            f"Its layers: {', '.join(layer.name for layer in model.layers)}."
        )
    if schedule is None and end_step is None:
        raise ConfigError("prune_tf_keras: end_step is needed unless there is a schedule. Received: None.")
    options: dict[str, Any] = {"block_pooling_type": {"average": "AVG"}.get(block_pooling, block_pooling.upper())}
    if block is not None:
        options["block_size"] = (block[1], block[0])
    if pattern is not None:
        options["sparsity_m_by_n"] = tuple(int(number) for number in pattern.split(":"))

    def wrap(layer: Any) -> Any:
        if not is_chosen(layer):
            return layer
        return sparsity.prune_low_magnitude(layer, pruning_schedule=schedule, **options)

    try:
        if schedule is None:
            # tfmot's step t comes before batch t, after t - 1 updates; its last step is not masked unless due.
            first, last = begin_step + 1, (end_step or 0) + 1
            schedule = sparsity.PolynomialDecay(initial_sparsity, final_sparsity, first, last, frequency=frequency)
        return tf_keras.models.clone_model(model, clone_function=wrap), [sparsity.UpdatePruningStep()]
    except (ValueError, RuntimeError, AttributeError) as error:
        raise _refused("prune_tf_keras", model, error) from error


def _refused(verb: str, model: Any, error: Exception) -> ModelError:
    return ModelError(
        f"{verb}: tfmot refuses the tf_keras model '{model.name}': {first_line(error)}. "
        "tfopt itself may take it: translate it first with tfopt.from_tf_keras(model)."
    )
