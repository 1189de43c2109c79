"""A tf_keras model becomes one of Keras 3, with a report of what it brought along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfopt.compression.sharing import shared_values
from tfopt.data import Samples
from tfopt.errors import ConfigError, ModelError
from tfopt.interop.carried_ranges import quantize_as_tfmot
from tfopt.interop.layer_configs import CustomObjects
from tfopt.interop.legacy import is_tf_keras
from tfopt.interop.translation import TranslatedLayer, translate
from tfopt.plain_table import aligned
from tfopt.pruning.masks import pruned_mask
from tfopt.surgery.model import check_model
from tfopt.surgery.select import select_kernels

__all__ = ["LayerMigration", "Migration", "migrate"]

TOLERANCE = 1e-4
"""What outputs may differ by, as a part of the largest: float32 sums in another order."""


@dataclass(frozen=True)
class LayerMigration:
    """One layer of the report.

    Args:
        layer: its name.
        kind: its class in Keras 3.
        origin: how tfmot had wrapped it: "pruned", "clustered", "quantized" or "".
        carried: in words, what it brought along.
    """

    layer: str
    kind: str
    origin: str
    carried: str


@dataclass(frozen=True, eq=False)
class Migration:
    """A migrated model, and what carried over. Printing it gives a table.

    Args:
        model: the model of Keras 3; quantize-aware where the other one was.
        layers: what each layer brought along.
        largest_difference: between the outputs of the two on random inputs; None if they could not be compared.
        largest_output: among those outputs.
        quantize_aware: whether the model computes as an int8 network.
        ranges_missing: the layers whose outputs have an int8 range that tfmot has not.
    """

    model: keras.Model
    layers: Sequence[LayerMigration]
    largest_difference: float | None
    largest_output: float | None
    quantize_aware: bool = False
    ranges_missing: Sequence[str] = ()

    def __str__(self) -> str:
        """The table, and below it the comparison and what is still to be done."""
        rows = [("layer", "kind", "was", "carried over")]
        rows += [(row.layer, row.kind, row.origin or "plain", row.carried) for row in self.layers]
        lines = aligned(rows, "<<<<")
        if self.largest_difference is None:
            lines.append("Outputs: not compared; the tf_keras model does not run on random inputs.")
        else:
            lines.append(
                f"Outputs on random inputs differ by at most {self.largest_difference:.1e}; "
                f"the largest is {self.largest_output:.3g}."
            )
        if self.quantize_aware:
            lines.append(
                "Quantize-aware: train it on or export it. tfopt rounds as the file will (docs/from-tfmot.md)."
            )
        if self.ranges_missing:
            lines.append(
                f"Ranges that tfmot does not have: {', '.join(self.ranges_missing)}. "
                "The first training batch sets them, or calibration= does."
            )
        if any("kept by PreserveCompression" in row.carried for row in self.layers):
            lines.append(
                "Train it on with callbacks=[tfopt.callbacks.PreserveCompression()], or zeros and clusters are lost."
            )
        lines.append("Optimizer, loss and metrics do not carry over: compile the model before training.")
        return "\n".join(lines)


def migrate(
    model: Any, *, custom_objects: CustomObjects | None = None, calibration: Samples | None = None
) -> Migration:
    """Translates a tf_keras model, and compares the two; `from_tf_keras` says with what.

    Raises:
        ModelError: if the model is not of tf_keras, is subclassed or not built, has a layer without a translation, or
            the translation computes otherwise.
    """
    if not is_tf_keras(model):
        raise ModelError(
            f"from_tf_keras: expected a tf_keras model. Received: {type(model).__module__}.{type(model).__name__}. "
            "A model of Keras 3 needs no translation."
        )
    translated, translation = translate(model, custom_objects or {})
    check_model(translated)
    difference, largest = _compared(model, translated)
    layers = translation.layers
    quantized = any(pair.unwrapped.origin == "quantized" for pair in layers)
    exact = not quantized and all(pair.unwrapped.as_used for pair in layers)
    if exact and difference is not None and largest is not None and not difference <= TOLERANCE * max(1.0, largest):
        raise ModelError(
            f"from_tf_keras: the translation of '{model.name}' computes otherwise: outputs differ by {difference:.2g} "
            f"where the largest is {largest:.3g}. A layer of custom_objects may not be the same, or the tf_keras model "
            "is not deterministic. If neither is so, please report it with the model's config."
        )
    held = _held_kernels(translated)
    rows = [_row(pair, held) for pair in layers]
    missing: list[str] = []
    if quantized:
        translated, missing = quantize_as_tfmot(translated, translation, calibration=calibration)
        difference, largest = _compared(model, translated)
    return Migration(translated, rows, difference, largest, quantized, missing)


def _compared(model: Any, translated: keras.Model) -> tuple[float | None, float | None]:
    """The largest difference between the outputs of the two models, and the largest output."""
    samples = tf.nest.map_structure(_sample, model.input)
    try:
        expected = [np.asarray(values, np.float64) for values in tf.nest.flatten(model(samples, training=False))]
    except (tf.errors.OpError, ValueError, TypeError):
        return None, None  # shapes or values that only real data has
    received = [np.asarray(values, np.float64) for values in keras.tree.flatten(translated(samples, training=False))]
    difference = max(float(np.max(np.abs(a - b), initial=0)) for a, b in zip(expected, received, strict=True))
    return difference, max(float(np.max(np.abs(a), initial=0)) for a in expected)


def _sample(tensor: Any) -> np.ndarray:
    unknown = 32 if len(tensor.shape) > 3 else 8
    shape = tuple(2 if axis == 0 and size is None else size or unknown for axis, size in enumerate(tensor.shape))
    generator = np.random.default_rng(0)
    if tensor.dtype.is_floating:
        return generator.random(shape).astype(tensor.dtype.as_numpy_dtype)
    return generator.integers(0, 2, shape).astype(tensor.dtype.as_numpy_dtype)


def _held_kernels(model: keras.Model) -> set[int]:
    """The kernels that `PreserveCompression` looks at, by id."""
    try:
        return {id(kernel) for _, kernel in select_kernels(model, lambda layer: True)}
    except ConfigError:  # no layer owns a kernel
        return set()


def _row(pair: TranslatedLayer, held: set[int]) -> LayerMigration:
    weights = [(weight, keras.ops.convert_to_numpy(weight)) for weight in pair.layer.weights]
    carried = [f"{sum(array.size for _, array in weights):,} weights"] if weights else []
    for weight, array in weights:
        if array.ndim < 2:
            continue
        kept = "kept by PreserveCompression" if id(weight) in held else "lost where it is trained on"
        if (book := shared_values(array)) is not None:
            carried.append(f"{len(book[0])} shared values, {kept}")
        elif pruned_mask(array) is not None:
            carried.append(f"{np.mean(array == 0):.1%} zeros, {kept}")
        elif pair.unwrapped.origin == "clustered" and 2 * np.unique(array).size <= array.size:
            carried.append(f"{np.unique(array).size} shared values of too few weights, lost where it is trained on")
    ranges = pair.unwrapped.ranges
    named = (("before the activation", ranges.before_activation), ("of the output", ranges.output))
    carried += [f"int8 range {what} {ends[0]:.4g} … {ends[1]:.4g}" for what, ends in named if ends is not None]
    return LayerMigration(pair.layer.name, type(pair.layer).__name__, pair.unwrapped.origin, "; ".join(carried) or "–")
