"""How a trained model is compressed, as a space that keras-tuner searches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import keras_tuner
import numpy as np

from tfopt.budget import parse_budget
from tfopt.callbacks import MagnitudePruning, PreserveCompression
from tfopt.distillation import Distiller
from tfopt.distillation.losses import LogitsLoss
from tfopt.errors import ConfigError, ModelError
from tfopt.fine_tuning import are_classes, default_loss
from tfopt.pruning.channels import keep_channels
from tfopt.quantization import is_quantize_aware, quantize_aware
from tfopt.recipe import Quantization
from tfopt.surgery.graph import read_graph, rebuild
from tfopt.surgery.model import check_model
from tfopt.surgery.select import LayerFilter
from tfopt.tuning.budget_penalty import OBJECTIVE, BudgetPenalty
from tfopt.tuning.compression_cost import ESTIMATED, download_bytes, estimated_figures
from tfopt.tuning.layer_groups import LayerGroups
from tfopt.tuning.median_stopping import Direction
from tfopt.tuning.objectives import direction_of

__all__ = ["CompressionHyperModel", "Technique"]

Technique = Literal["channels", "sparsity", "quantization", "distillation"]
TECHNIQUES: tuple[str, ...] = get_args(Technique)
MODES = ("int8", "int16x8", "none")
USEFUL = {
    "flops": ("channels", "distillation"),
    "size": ("channels", "quantization", "distillation"),
    "download": TECHNIQUES,
}
"""By resource, what makes a model take less of it, and what helps training."""

FEWEST_CHANNELS, CHANNEL_STEP = 0.125, 0.125
MOST_ZEROS, ZEROS_STEP = 0.9, 0.1
LOWEST_RATE, HIGHEST_RATE = 1e-5, 1e-2
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 1.0, 16.0
MASK_UPDATES = 8


class CompressionHyperModel(keras_tuner.HyperModel):
    """Compresses a trained model as hyperparameters say, trains it on, and measures what it takes of a budget.

    Give it to any tuner of keras-tuner, with its `objective`; `tfopt.tuning.compress` does that in one line. A trial
    removes channels, makes the model quantize-aware, and is then trained with the given model as its teacher; the
    zeros come in the first epoch, so that each epoch's score is that of the model as it will be. Each epoch logs
    "budget_used", estimated from the weights without an export, and "val_objective", the score less a penalty for what
    exceeds the budget (`tfopt.tuning.budget_penalty`).

    The hyperparameters, the first three once for each group ("sparsity/head"): "channels", the fraction that stays;
    "sparsity", the fraction of zeros; "quantization", a mode of `quantize_aware`; and "temperature" and
    "learning_rate". Groups of which no layer can lose channels, or has a kernel, do not have that hyperparameter.

    Args:
        model: the trained float model, Functional or Sequential; it is left as it is.
        samples: `(x, y)`, some hundred training samples and their targets: the activation ranges start from them, and
            they tell the default loss.
        budget: what a model may take: "size: 20%" (of the given model's weights, as a .tflite stores them), "download:
            300 kB" (after gzip), "flops: 50%", or several with commas between them.
        groups: from a name to a regular expression that whole layer names match. Where several match, the first counts;
            layers of no group keep their channels and weights, and are int8 unless every group is float. The tables of
            embeddings lose weights where a group has them. By default the whole model is one group, which prunes no
            embedding, and its hyperparameters have no suffix.
        techniques: what is searched, of "channels", "sparsity", "quantization" and "distillation"; by default those
            that save what the budget is of and that the model allows. The learning rate is searched in any case.
        quantizations: the modes of a group: "int8", "none" (float) and, slow on CPUs, "int16x8", which TFLite has for
            whole models only, so that it is chosen for all groups or none.
        metric: the name of a Keras metric on validation data that is the score, such as "accuracy", or "loss"; by
            default the accuracy of a classifier, else the loss.
        direction: "min" or "max"; by default what is known of the metric.
        loss: of the training, as Keras's `compile` takes it; by default what fits the targets.
        penalty: how much score a model loses that is infinitely too large, above 0 (`budget_penalty`).
        cache: a folder for the teacher's answers, which trials then share; the training data must be arrays
            (`tfopt.Distiller`).

    Attributes:
        objective: what a tuner optimizes.
        budget: the budget, read.
        score_name: the logged value that is the score, such as "val_accuracy".
        penalty: as it was given; it may be set until the search begins.

    Raises:
        ConfigError: if an argument is not usable, or a technique that is asked for cannot be applied to the model.
        ModelError: if the model is not a built float Keras 3 model.

    Example:
        >>> import numpy as np
        >>> x, y = np.random.default_rng(0).normal(size=(64, 4)).astype("float32"), np.arange(64) % 3
        >>> hidden = keras.layers.Dense(16, "relu", name="hidden")
        >>> trained = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(3, "softmax")])
        >>> hyper_model = CompressionHyperModel(trained, (x, y), budget="size: 30%")
        >>> hp = keras_tuner.HyperParameters()
        >>> smaller = hyper_model.build(hp)
        >>> sorted(hp.values)
        ['channels', 'learning_rate', 'quantization', 'temperature']

    References: He et al. 2018, arXiv:1802.03494 (AMC: ratios by layer, searched); Wang et al. 2019, arXiv:1811.08886
        (HAQ: bits by layer, searched); Hinton et al. 2015, arXiv:1503.02531.
    """

    def __init__(
        self,
        model: keras.Model,
        samples: tuple[Any, Any],
        *,
        budget: str,
        groups: Mapping[str, str] | None = None,
        techniques: Sequence[Technique] | None = None,
        quantizations: Sequence[Quantization] = ("int8", "none"),
        metric: str | None = None,
        direction: Direction | None = None,
        loss: Any = None,
        penalty: float = 1.0,
        cache: str | Path | None = None,
    ) -> None:
        super().__init__()
        check_model(model)
        if is_quantize_aware(model):
            raise ModelError(
                f"CompressionHyperModel: the model '{model.name}' is quantize-aware already, and the search makes it "
                "so. Give the float model it was made from, or tfopt.quantization.strip(model)."
            )
        self.budget = parse_budget(budget, name="CompressionHyperModel", resources=ESTIMATED)
        if not 0 < penalty < float("inf"):
            raise ConfigError(f"CompressionHyperModel: penalty must be above 0 and finite. Received: {penalty!r}.")
        unknown = [mode for mode in quantizations if mode not in MODES]
        if unknown or not quantizations:
            raise ConfigError(
                f"CompressionHyperModel: quantizations must be some of {', '.join(MODES)}. Received: {quantizations!r}."
            )
        self._model, self._samples, self._cache, self.penalty = model, samples, cache, penalty
        self._quantizations = tuple(quantizations)
        x, y = samples
        y = np.asarray(y)
        self._loss = loss or default_loss(model, x, y)
        self._groups = LayerGroups(model, groups)
        self._techniques = self._applicable(
            techniques, distillable=len(model.outputs) == 1 and are_classes(model, x, y)
        )
        crossentropies = (
            keras.losses.SparseCategoricalCrossentropy,
            keras.losses.CategoricalCrossentropy,
            keras.losses.BinaryCrossentropy,
        )
        metric = metric or ("accuracy" if isinstance(self._loss, crossentropies) else "loss")
        self.score_name, self._metrics = f"val_{metric}", [] if metric == "loss" else [metric]
        self.direction = direction_of("CompressionHyperModel", self.score_name, direction)
        self.objective = keras_tuner.Objective(OBJECTIVE, "max")
        self._original = estimated_figures(model)
        if self.budget.used(self._original, self._original) is None:
            raise ConfigError(
                f"CompressionHyperModel: the operations of the model '{model.name}' are not counted, so that a budget "
                "of flops means nothing. Give one of size or download."
            )

    def build(self, hp: Any) -> keras.Model:
        """The compressed model, compiled: a `Distiller` around it where the teacher is followed."""
        smaller = self._narrowed(hp)
        if "quantization" in self._techniques:
            smaller = self._quantized(hp, smaller)
        if "sparsity" in self._techniques:
            for group in self._groups:
                if group.has_kernels:
                    hp.Float(group.label("sparsity"), 0.0, MOST_ZEROS, step=ZEROS_STEP, default=0.0)
        rate = hp.Float("learning_rate", LOWEST_RATE, HIGHEST_RATE, sampling="log", default=1e-3)
        trained = smaller
        if "distillation" in self._techniques:
            temperature = hp.Float("temperature", LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE, sampling="log", default=4.0)
            trained = Distiller(smaller, self._model, LogitsLoss(temperature), cache=self._cache)
        return self._compiled(trained, rate)

    def fit(
        self, hp: Any, model: keras.Model, *args: Any, callbacks: Sequence[keras.callbacks.Callback] = (), **kwargs: Any
    ) -> Any:
        """Trains the model, with zeros that stay and the two values logged."""
        student = plain_model(model)
        x = args[0] if args else kwargs.get("x")
        own = [PreserveCompression(), *self._pruning(hp, student, _steps(x, kwargs.get("batch_size") or 32))]
        penalty = BudgetPenalty(self.score_name, self.direction, self._used_by(student), penalty=self.penalty)
        return model.fit(*args, callbacks=[*own, penalty, *callbacks], **kwargs)

    def original_score(self, validation: Any, *, batch_size: int = 32) -> float:
        """The score of the given model.

        Args:
            validation: `(x, y)`, or a tf.data.Dataset of batches.
            batch_size: of arrays.
        """
        copy = self._compiled(_copy(self._model), LOWEST_RATE)
        if isinstance(validation, tuple):
            logs = copy.evaluate(*validation, batch_size=batch_size, return_dict=True, verbose=0)
        else:
            logs = copy.evaluate(validation, return_dict=True, verbose=0)
        return float(logs[self.score_name.removeprefix("val_")])

    def _applicable(self, techniques: Sequence[str] | None, *, distillable: bool) -> tuple[str, ...]:
        can = {
            "channels": any(group.loses_channels for group in self._groups),
            "sparsity": any(group.has_kernels for group in self._groups),
            "quantization": True,
            "distillation": distillable,
        }
        if techniques is None:
            useful = {name for limit in self.budget.limits for name in USEFUL[limit.resource]}
            return tuple(name for name in TECHNIQUES if name in useful and can[name])
        unknown = [name for name in techniques if name not in TECHNIQUES]
        if isinstance(techniques, str) or unknown:
            raise ConfigError(
                f"CompressionHyperModel: techniques must be some of {', '.join(TECHNIQUES)}. Received: {techniques!r}."
            )
        reasons = {
            "channels": "no layer of the groups may lose channels (see tfopt.channel_coverage)",
            "sparsity": "no layer of the groups has a Dense or Conv kernel",
            "distillation": "the model has not one output with a score for each class of the targets",
        }
        for name in techniques:
            if not can[name]:
                raise ConfigError(f"CompressionHyperModel: techniques has {name!r}, but {reasons[name]}. Leave it out.")
        return tuple(techniques)

    def _narrowed(self, hp: Any) -> keras.Model:
        """The model with fewer channels, or a copy."""
        fractions = {}
        if "channels" in self._techniques:
            for group in self._groups:
                if group.loses_channels:
                    label = group.label("channels")
                    fractions[group.pattern] = hp.Float(label, FEWEST_CHANNELS, 1.0, step=CHANNEL_STEP, default=1.0)
        return keep_channels(self._model, fractions) if fractions else _copy(self._model)

    def _quantized(self, hp: Any, model: keras.Model) -> keras.Model:
        groups = list(self._groups)
        mixable = [mode for mode in self._quantizations if mode != "int16x8"]
        if len(groups) == 1:
            modes = [hp.Choice(groups[0].label("quantization"), list(self._quantizations))]
        elif len(mixable) == len(self._quantizations):
            modes = [hp.Choice(group.label("quantization"), mixable) for group in groups]
        else:
            modes = ["int16x8"] * len(groups)
            if mixable:
                whole = hp.Boolean("int16x8")
                with hp.conditional_scope("int16x8", [False]):
                    by_group = [hp.Choice(group.label("quantization"), mixable) for group in groups]
                modes = modes if whole else by_group
        if set(modes) == {"none"}:
            return model
        config: Quantization = "int16x8" if "int16x8" in modes else "int8"
        exceptions = {group.pattern: mode for group, mode in zip(groups, modes, strict=True)}
        return quantize_aware(model, calibration=self._samples[0], config=config, layers=exceptions)

    def _compiled(self, model: keras.Model, rate: float) -> keras.Model:
        model.compile(keras.optimizers.Adam(rate), self._loss, metrics=self._metrics)
        return model

    def _pruning(self, hp: Any, student: keras.Model, steps: int) -> list[keras.callbacks.Callback]:
        if "sparsity" not in self._techniques:
            return []
        layers = self._groups.kernels_of(student)
        sparsities: dict[LayerFilter, float] = {
            partial(_is_among, frozenset(map(id, layers[group.name]))): hp.get(group.label("sparsity"))
            for group in self._groups
            if group.has_kernels and hp.get(group.label("sparsity"))
        }
        if not sparsities:
            return []
        # All zeros are there when the first epoch ends: a score is that of the sparsity asked for.
        end_step = steps * 3 // 4
        return [MagnitudePruning(layers=sparsities, end_step=end_step, frequency=max(1, end_step // MASK_UPDATES))]

    def _used_by(self, student: keras.Model) -> Callable[[], float]:
        now = estimated_figures(student)

        def used() -> float:
            changes = {"download": download_bytes(student)} if self.budget.names("download") else {}
            return self.budget.used(replace(now, **changes), self._original) or 0.0

        return used


def plain_model(model: keras.Model) -> keras.Model:
    """The compressed model of a trial, which may be inside a `Distiller`."""
    return model.student if isinstance(model, Distiller) else model


def _is_among(members: frozenset[int], layer: keras.layers.Layer) -> bool:
    return id(layer) in members


def _copy(model: keras.Model) -> keras.Model:
    return rebuild(read_graph(model))


def _steps(x: Any, batch_size: int) -> int:
    """The steps of an epoch; 0 where a dataset does not know."""
    if hasattr(x, "cardinality"):
        return max(0, int(x.cardinality()))
    return -(-len(keras.tree.flatten(x)[0]) // batch_size)
