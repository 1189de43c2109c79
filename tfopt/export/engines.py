"""What quantizes a trained model: TensorFlow's converter, ai-edge-quantizer, or whichever comes nearer to Keras."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfopt.errors import ConfigError, ExportError
from tfopt.export.ai_edge import RECIPES
from tfopt.export.tflite_file import TfliteFile

__all__ = ["ENGINES", "Candidate", "engines_for", "nearest"]

ENGINES = ("converter", "ai-edge-quantizer")


@dataclass(frozen=True)
class Candidate:
    """A converted file that passed the audit, and the verification where there is one.

    Args:
        path: where it lies.
        file: what is in it.
        layers: the Keras layers of each operator.
        verification: what is recorded of it.
    """

    path: Path
    file: TfliteFile
    layers: tuple[tuple[str, ...], ...]
    verification: dict[str, Any]

    @property
    def sqnr_db(self) -> float:
        """How near to Keras it is."""
        ratio = self.verification["sqnr_db"]
        return {"exact": np.inf, "no signal": -np.inf}[ratio] if isinstance(ratio, str) else ratio


def engines_for(engine: str, quantization: str, *, trained_for_it: bool, verify: bool) -> list[str]:
    """The engines to try.

    Args:
        engine: what the user asked for.
        quantization: the preset.
        trained_for_it: whether the model is quantize-aware for it.
        verify: whether files are compared with Keras.

    Raises:
        ConfigError: if the engine is unknown, or cannot do what is asked for.
    """
    if engine not in {*ENGINES, "best"}:
        raise ConfigError(f"export_tflite: engine must be one of {', '.join(ENGINES)}, best. Received: {engine!r}.")
    if quantization.startswith("weight_only"):
        return ["ai-edge-quantizer"]
    if engine == "converter" or (engine == "best" and (trained_for_it or quantization not in RECIPES)):
        return ["converter"]
    if trained_for_it:
        raise ConfigError(
            "export_tflite: a quantize-aware model keeps the ranges it learned, which only the converter takes over. "
            f"Received: engine={engine!r}. Leave it out, or give tfopt.quantization.strip(model)."
        )
    if quantization not in RECIPES:
        raise ConfigError(
            f"export_tflite: ai-edge-quantizer quantizes to {', '.join(RECIPES)}. Received: {quantization}. "
            "Leave engine= out."
        )
    if engine == "best" and not verify:
        raise ConfigError("export_tflite: engine='best' is decided by the verification. Received: verify=False.")
    return list(ENGINES) if engine == "best" else [engine]


def nearest(convert: Callable[[str], Candidate], engines: list[str]) -> Candidate:
    """The candidate nearest to Keras, with what all engines gave in its verification.

    Raises:
        ExportError: with every engine's reason, if none gives a usable file.
    """
    found: dict[str, Candidate] = {}
    failures: dict[str, str] = {}
    for engine in engines:
        try:
            found[engine] = convert(engine)
        except ExportError as error:
            failures[engine] = str(error)
    if not found:
        raise ExportError("No engine gave a usable file. " + " ".join(f"{key}: {why}" for key, why in failures.items()))
    best = max(found, key=lambda engine: found[engine].sqnr_db)
    ratios = {engine: candidate.verification["sqnr_db"] for engine, candidate in found.items()}
    verification = {**found[best].verification, "engine": best, "engines_sqnr_db": {**ratios, **failures}}
    return replace(found[best], verification=verification)
