"""Stages of quantization-aware training: whether a training step rounds, and what stands still in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras

from tfopt.quantization.layers import FakeQuantize, FixedFakeQuantize, LearnedFakeQuantize, QuantizeAware
from tfopt.surgery.select import iterate_layers

__all__ = ["QuantizationStage", "ScheduledTrainStep", "layers_that_round"]


class QuantizationStage(NamedTuple):
    """What a training step does; by default what it does without a schedule.

    Args:
        rounds: whether weights and activations are rounded.
        ranges_frozen: whether activation ranges are constant.
        batch_norm_frozen: whether batch norms use and keep their moving statistics.
    """

    rounds: bool = True
    ranges_frozen: bool = False
    batch_norm_frozen: bool = False


class ScheduledTrainStep:
    """Stands in for a model's train step, and changes the model while it runs.

    Keras runs it when it traces (at each step with `run_eagerly=True`). So nothing else ever sees the changes: neither
    evaluate, nor a checkpoint, nor another callback.

    Args:
        model: the model whose train step it takes the place of.
        params: those of the callback. Callbacks of one fit share them, so they tell the fit.
    """

    def __init__(self, model: keras.Model, params: dict[str, Any]) -> None:
        self.params = params
        self.stage = QuantizationStage()
        self._model = model
        self._settings: list[_Setting] = []
        self._is_overridden = "train_step" in vars(model)
        self._inner = model.train_step
        model.train_step = self

    def __call__(self, data: Any) -> Any:
        """Runs the model's own train step at the stage entered last."""
        for setting in self._settings:
            setattr(setting.owner, setting.attribute, setting.scheduled)
        try:
            return self._inner(data)
        finally:
            for setting in self._settings:
                setattr(setting.owner, setting.attribute, setting.usual)

    def enter(self, stage: QuantizationStage) -> None:
        """Has the train step traced anew for a stage, if it is another one."""
        if stage != self.stage:
            self.stage, self._settings = stage, list(_settings(self._model, stage))
            self._model.make_train_function(force=True)

    def leave(self) -> None:
        """Gives the model its own train step back."""
        if self._is_overridden:
            self._model.train_step = self._inner
        else:
            del self._model.train_step
        if self.stage != QuantizationStage():
            self._model.make_train_function(force=True)


def layers_that_round(model: keras.Model) -> list[keras.Layer]:
    """The layers of a quantize-aware model, or of models nested in it, that round activations or weights."""
    activations = (FakeQuantize, LearnedFakeQuantize, FixedFakeQuantize)
    return [*(layer for layer in iterate_layers(model) if isinstance(layer, activations)), *_wrappers(model)]


def _wrappers(model: keras.Model) -> Iterator[QuantizeAware]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _wrappers(layer)
        elif isinstance(layer, QuantizeAware):
            yield layer


class _Setting(NamedTuple):
    """An attribute that has another value while a train step runs."""

    owner: Any
    attribute: str
    scheduled: bool
    usual: bool


def _settings(model: keras.Model, stage: QuantizationStage) -> Iterator[_Setting]:
    for layer in layers_that_round(model):
        if not stage.rounds:
            yield _Setting(layer, "rounding", False, layer.rounding)
        match layer:
            case LearnedFakeQuantize() if stage.ranges_frozen or not stage.rounds:
                for end in (layer.minimum, layer.maximum):
                    yield _Setting(end, "trainable", False, end.trainable)
            case FakeQuantize() if stage.ranges_frozen:
                yield _Setting(layer, "trainable", False, layer.trainable)
    for layer in iterate_layers(model) if stage.batch_norm_frozen else ():
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            # The layer's own flag stops the statistics; it takes gamma and beta along, which are to go on.
            yield _Setting(layer, "trainable", False, True)
            for weight in (layer.gamma, layer.beta):
                if weight is not None:
                    yield _Setting(weight, "trainable", weight.trainable, weight.trainable)
