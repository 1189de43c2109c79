"""Where an optimized model may run: how it is exported there, and which techniques make a difference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfopt.errors import ConfigError
from tfopt.recipe import Preset, Recipe

if TYPE_CHECKING:
    import keras

    from tfopt.artifact import Artifact

__all__ = ["TARGETS", "Target", "target_of"]

Export = Callable[["keras.Model", Path, Recipe, Any, bool], "Artifact"]


@dataclass(frozen=True)
class Target:
    """A place to run.

    Args:
        export: writes a prepared model by its recipe, with calibration samples, verified or only to be timed.
        suffix: of the file; empty for a folder.
        presets: what costs no training, in the order in which it is tried; "none" is float32.
        keeps_layers_in_float: whether single layers may be left out of the quantization.
        trains_quantized: whether quantization-aware training makes a better file.
        is_timed: whether a latency is measured without the target's own device.
    """

    export: Export
    suffix: str
    presets: tuple[Preset, ...]
    keeps_layers_in_float: bool = False
    trains_quantized: bool = False
    is_timed: bool = True


def _tflite(model: keras.Model, path: Path, recipe: Recipe, calibration: Any, verify: bool) -> Artifact:
    from tfopt.export.tflite import export_tflite

    return export_tflite(model, path, recipe.quantization, calibration=calibration, recipe=recipe, verify=verify)


def _edge_tpu(model: keras.Model, path: Path, recipe: Recipe, calibration: Any, verify: bool) -> Artifact:
    if recipe.quantization == "none" or not verify:  # the compiler is not asked about files that are not kept
        return _tflite(model, path, recipe, calibration, verify)
    from tfopt.export.edge_tpu.exporter import export_edge_tpu

    return export_edge_tpu(model, path, calibration=calibration)


def _onnx(model: keras.Model, path: Path, recipe: Recipe, calibration: Any, verify: bool) -> Artifact:
    from tfopt.export.onnx import export_onnx

    return export_onnx(model, path, recipe.quantization, calibration=calibration, recipe=recipe, verify=verify)


def _serving(model: keras.Model, path: Path, recipe: Recipe, calibration: Any, verify: bool) -> Artifact:
    from tfopt.serving.folder import export_serving

    return export_serving(model, path, data=calibration)


TARGETS = {
    "tflite": Target(_tflite, ".tflite", ("int8", "float16"), keeps_layers_in_float=True, trains_quantized=True),
    "edge_tpu": Target(_edge_tpu, ".tflite", ("int8",), trains_quantized=True, is_timed=False),
    "onnx": Target(_onnx, ".onnx", ("int8", "none")),
    "serving": Target(_serving, "", ("none",)),
}


def target_of(name: str) -> Target:
    """The target of a name.

    Raises:
        ConfigError: if there is none.

    Example:
        >>> target_of("onnx").suffix
        '.onnx'
    """
    if name not in TARGETS:
        raise ConfigError(f"optimize: target must be one of {', '.join(TARGETS)}. Received: {name!r}.")
    return TARGETS[name]
