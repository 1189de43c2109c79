"""How much each layer's rounding costs: the ranking that tells which layers to keep in float."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfopt.data import Samples, check_samples
from tfopt.errors import ConfigError, DataError
from tfopt.output_error import sqnr_db
from tfopt.plain_table import aligned
from tfopt.quantization.quantize_aware import is_quantize_aware, quantize_aware
from tfopt.quantization.roundings import MODEL_OUTPUT, RoundedLayer, SwitchableModel, rounded_layers
from tfopt.recipe import Quantization, QuantizationConfig
from tfopt.surgery.elementary import origin_of
from tfopt.surgery.graph import read_graph
from tfopt.surgery.model import check_model

__all__ = ["Sensitivity", "SensitivityRow", "sensitivity"]

Metric = Callable[[Any, Any], float]


@dataclass(frozen=True)
class SensitivityRow:
    """What the rounding of one layer alone does to the outputs of a model.

    Args:
        layer: the layer's name.
        kind: its class.
        sqnr_db: signal-to-quantization-noise ratio of the worst output, in decibels; infinite without error.
        metric_drop: the metric of the float model less the one with this layer rounded; None without a metric.
        layers: the layer and those that the converter fuses into it or that pass its output on: what has to stay
            in float for the layer to.
        read_by: the rows that read its output, "" for the model's output.
        weight_noise: error of the outputs by the layer's weights alone, Σ error² / Σ output².
        output_noise: by the rounding of the layer's output alone.
    """

    layer: str
    kind: str
    sqnr_db: float
    metric_drop: float | None
    layers: tuple[str, ...]
    read_by: frozenset[str]
    weight_noise: float
    output_noise: float


@dataclass(frozen=True)
class Sensitivity:
    """The layers of a model, worst first, with the error that quantizing each alone adds; printing gives the table.

    Args:
        rows: one per layer that rounds something.
        sqnr_db: of the model with all of them rounded, as measured.
    """

    rows: tuple[SensitivityRow, ...]
    sqnr_db: float

    def predicted_sqnr_db(self, in_float: Collection[str] = ()) -> float:
        """What the noise of the layers adds up to where some stay in float.

        The sum takes their errors as independent. A layer in float still reads and writes tensors that its integer
        neighbours have on a grid: an output counts unless all its readers are in float too, and the model's inputs
        and outputs always count.

        Args:
            in_float: names of layers.
        """
        kept = {row.layer for row in self.rows if set(row.layers) <= set(in_float) and row.kind != "InputLayer"}
        noise = sum(row.weight_noise for row in self.rows if row.layer not in kept)
        noise += sum(row.output_noise for row in self.rows if not {row.layer, *row.read_by} <= kept)
        return _decibels(noise)

    def suggest(self, *, minimum_sqnr_db: float | None = None, count: int | None = None) -> list[str]:
        """Names the layers to keep at higher precision, those that gain most first.

        Pass them on: `quantize_aware(model, layers={name: "none" for name in names})`.

        Args:
            minimum_sqnr_db: as many as it takes for `predicted_sqnr_db` to reach this.
            count: this many rows of the table, with the layers fused into them.

        Raises:
            ConfigError: if not just one of them is given, or it cannot be had.
        """
        left = [row for row in self.rows if row.kind != "InputLayer"]
        if (minimum_sqnr_db is None) == (count is None) or (count is not None and not 0 <= count <= len(left)):
            raise ConfigError(
                f"Sensitivity.suggest: give either minimum_sqnr_db or a count of at most {len(left)} layers. "
                f"Received: minimum_sqnr_db={minimum_sqnr_db}, count={count}."
            )
        fewest = len(left) - (count or 0)
        chosen: list[str] = []
        while len(left) > fewest if minimum_sqnr_db is None else self.predicted_sqnr_db(chosen) < minimum_sqnr_db:
            if not left:
                raise ConfigError(
                    f"Sensitivity.suggest: {minimum_sqnr_db:.1f} dB cannot be reached: with every layer in float the "
                    f"inputs and outputs are still rounded, which leaves {self.predicted_sqnr_db(chosen):.1f} dB."
                )
            # The first of equals is the worst: a layer may gain nothing until its neighbours are in float too.
            best = max(left, key=lambda row: self.predicted_sqnr_db([*chosen, *row.layers]))
            left.remove(best)
            chosen += [name for name in best.layers if name not in chosen]
        return chosen

    def __str__(self) -> str:
        measured = any(row.metric_drop is not None for row in self.rows)
        cells = [("layer", "kind", "SQNR dB", "metric drop")]
        cells += [(row.layer, row.kind, f"{row.sqnr_db:.1f}", f"{row.metric_drop or 0:+.4f}") for row in self.rows]
        lines = aligned(cells, "<<>>") if measured else aligned([row[:3] for row in cells], "<<>")
        return "\n".join([*lines, f"all: {self.sqnr_db:.1f} dB, as a sum {self.predicted_sqnr_db():.1f} dB"])


def sensitivity(
    model: keras.Model,
    data: Samples | tuple[Samples, Any],
    *,
    metric: Metric | None = None,
    samples: int = 64,
    config: QuantizationConfig | Quantization | None = None,
) -> Sensitivity:
    """Ranks the layers of a model by the error that quantizing each alone adds at the model's outputs.

    Use it when a quantized model lost too much: it tells where, and `suggest` names the layers to keep in float.
    For each layer, all but its weights and its output are left in float, and the outputs are compared with the float
    model's. That is one pass over the samples for each layer, and one more for its weights.

    Args:
        model: a built Functional or Sequential model, or one from `quantize_aware`.
        data: typical samples, which the activation ranges are measured on too, as `quantize_aware` takes them; or a
            tuple `(x, y)` with their targets. (Several inputs are a list or a mapping, never a tuple.)
        metric: `metric(y, predictions) -> float`, higher is better, with the array of the only output or the list of
            all. By default, with targets, the accuracy: class numbers of shape `(n,)` or `(n, 1)`, or one-hot rows.
        samples: at most this many are used, evenly spaced.
        config: how the model is to be quantized, int8 by default; a quantize-aware model has its own.

    Returns:
        The layers, worst first.

    Raises:
        ModelError: as `quantize_aware`.
        DataError: if the data is empty, not finite, or does not fit the model, or nothing is left of the outputs.
        ConfigError: if there is a metric without targets, targets that need one, a config for a model that has one,
            or `samples` is below 1.

    Example:
        >>> keras.utils.set_random_seed(0)
        >>> layers = [keras.Input((4,), name="x"), keras.layers.Dense(8, "relu", name="hidden")]
        >>> model = keras.Sequential([*layers, keras.layers.Dense(2, name="scores")])
        >>> result = sensitivity(model, np.random.default_rng(0).normal(size=(64, 4)))
        >>> sorted(row.layer for row in result.rows)
        ['hidden', 'scores', 'x']
        >>> result.sqnr_db < min(row.sqnr_db for row in result.rows)
        True
        >>> aware = quantize_aware(model, layers={name: "none" for name in result.suggest(count=1)})
    """
    check_model(model)
    if samples < 1:
        raise ConfigError(f"sensitivity: samples must be at least 1. Received: {samples}.")
    x, targets = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    arrays = check_samples(x, model.inputs, what="sensitivity")
    count = len(arrays[0])
    if targets is not None and len(np.asarray(targets)) != count:
        raise DataError(f"sensitivity: expected one target for each of the {count} samples. Received: {len(targets)}.")
    if metric is not None and targets is None:
        raise ConfigError("sensitivity: a metric needs targets. Give data=(x, y).")
    chosen = np.linspace(0, count - 1, min(count, samples)).round().astype(int)
    arrays = [array[chosen] for array in arrays]
    aware = model
    if not is_quantize_aware(model):
        inputs = dict(zip([tensor.name for tensor in model.inputs], arrays, strict=True))
        aware = quantize_aware(model, calibration=inputs, calibration_samples=samples, config=config)
    elif config is not None:
        raise ConfigError(f"sensitivity: the model '{model.name}' is quantize-aware already, so config must be None.")
    graph = read_graph(aware)
    layers = _by_original(rounded_layers(graph), {call.name: call.operation for call in read_graph(model).calls})
    switchable = SwitchableModel(graph)
    expected = switchable.predict(arrays)
    if not all(np.all(np.isfinite(output)) and np.any(output) for output in expected):
        raise DataError("sensitivity: the outputs of the float model on the samples are all zero or not finite.")
    score = None if targets is None else _scorer(metric, np.asarray(targets)[chosen])

    def noise(on: list[Any]) -> tuple[float, list[np.ndarray]]:
        received = switchable.predict(arrays, on)
        return max(10 ** (-sqnr_db(a, b - a) / 10) for a, b in zip(expected, received, strict=True)), received

    rows = []
    for layer in layers:
        both, received = noise([*layer.weights, *layer.roundings])
        by_weights = noise(layer.weights)[0] if layer.weights else 0.0
        rows.append(
            SensitivityRow(
                layer.names[0],
                layer.kind,
                _decibels(both),
                score(expected) - score(received) if score else None,
                tuple(layer.names),
                frozenset(reader.names[0] if reader else MODEL_OUTPUT for reader in layer.readers),
                by_weights,
                max(both - by_weights, 0.0),
            )
        )
    everything, _ = noise([rounding for layer in layers for rounding in (*layer.weights, *layer.roundings)])
    return Sensitivity(tuple(sorted(rows, key=lambda row: row.sqnr_db)), _decibels(everything))


def _decibels(noise: float) -> float:
    return -10 * float(np.log10(noise)) if noise else np.inf


def _by_original(layers: list[RoundedLayer], originals: dict[str, keras.Operation]) -> list[RoundedLayer]:
    """The layers as the model has them: what was split (a separable convolution, an activation) in one again."""
    merged: dict[str, RoundedLayer] = {}
    into: dict[RoundedLayer | None, RoundedLayer | None] = {None: None}
    for layer in layers:
        if not (layer.weights or layer.roundings):
            continue
        is_input = layer.kind == "InputLayer"
        names = layer.names if is_input else [origin_of(name, originals) for name in layer.names]
        kind = type(originals[names[0]]).__name__ if names[0] in originals and not is_input else layer.kind
        whole = into[layer] = merged.setdefault(names[0], RoundedLayer(kind))
        whole.names += [name for name in dict.fromkeys(names) if name not in whole.names]
        whole.weights += layer.weights
        whole.roundings += layer.roundings
        whole.readers |= layer.readers
    for whole in merged.values():
        whole.readers = {into[reader] for reader in whole.readers if reader in into} - {whole}
    return list(merged.values())


def _scorer(metric: Metric | None, targets: np.ndarray) -> Callable[[list[np.ndarray]], float]:
    if metric is not None:
        return lambda outputs: float(metric(targets, outputs[0] if len(outputs) == 1 else outputs))

    def accuracy(outputs: list[np.ndarray]) -> float:
        scores = outputs[0]
        classes = targets.argmax(-1) if targets.shape == scores.shape else targets
        whole = np.issubdtype(targets.dtype, np.integer) or np.all(np.isin(targets, (0, 1)))
        if len(outputs) > 1 or not whole or scores.shape[-1] < 2 or classes.size != scores[..., 0].size:
            raise ConfigError(
                "sensitivity: without a metric, targets must be class numbers or one-hot rows for one output with a "
                f"score for each class. Received: targets of shape {targets.shape} and dtype {targets.dtype}, outputs "
                f"of shapes {[output.shape for output in outputs]}. Give metric=callable(y, predictions) -> float."
            )
        return float(np.mean(classes.reshape(scores.shape[:-1]) == scores.argmax(-1)))

    return accuracy
