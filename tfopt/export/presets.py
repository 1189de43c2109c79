"""The presets of `export_tflite`: what a name stands for, and how far its file may be from Keras."""

from __future__ import annotations

from dataclasses import dataclass

from tfopt.plain_table import aligned

__all__ = ["PRESETS", "Preset", "presets_table"]


@dataclass(frozen=True)
class Preset:
    """How a .tflite file stores and computes.

    Args:
        weights: the type of the weights.
        computes: the type that operators compute in.
        tensors: the type of inputs and outputs.
        minimum_sqnr_db: below this signal-to-noise ratio against Keras a file is refused. The bounds catch what is
            broken (a wrong conversion gives 0 dB and less); how good a quantization is, the accuracy on data tells.
        mode: of `tfopt.quantize_aware`, whose models have the ranges that this preset needs; None if it needs none.
        sparse: whether the runtime has sparse kernels for its weights.
        slowdown_on_cpu: how many times the latency of float32 was measured on an x86 CPU, where it is slower.
        purpose: what it is for.
    """

    weights: str
    computes: str
    tensors: str
    minimum_sqnr_db: float
    purpose: str
    mode: str | None = None
    sparse: bool = False
    slowdown_on_cpu: float | None = None

    @property
    def is_integer(self) -> bool:
        """Whether every operator computes on integers."""
        return self.mode is not None

    @property
    def integer_tensors(self) -> str | None:
        """The type of inputs and outputs ("INT8", "INT16"), or None where they are float."""
        return None if self.tensors == "float32" else self.tensors.upper()


PRESETS = {
    "int8": Preset(
        "int8", "int8", "int8", 8.0, "microcontrollers, NPUs, mobile CPUs and DSPs", mode="int8", sparse=True
    ),
    "int8_float_io": Preset(
        "int8", "int8", "float32", 8.0, "the same, for an application that knows float only", mode="int8"
    ),
    "int16x8": Preset(
        "int8", "int16", "int16", 12.0, "what int8 is too coarse for", mode="int16x8", slowdown_on_cpu=20.0
    ),
    "float16": Preset("float16", "float32", "float32", 40.0, "half the size, hardly any loss"),
    "dynamic": Preset("int8", "int8, float32", "float32", 12.0, "a quarter of the size without calibration data"),
    "weight_only_int8": Preset("int8", "float32", "float32", 12.0, "a quarter of the size, computed in float"),
    "weight_only_int4": Preset(
        "int4", "float32", "float32", 3.0, "an eighth of the size where it counts most", slowdown_on_cpu=3.9
    ),
    "none": Preset("float32", "float32", "float32", 60.0, "the baseline", sparse=True),
}
"""By name. The slowdowns are of MobileNetV2 at 96 × 96 on one thread of an x86 CPU (XNNPACK has no int16 kernels)."""


def presets_table() -> str:
    """All presets as a table, for people.

    Example:
        >>> print(presets_table().splitlines()[1])
        int8              int8     int8           int8     microcontrollers, NPUs, mobile CPUs and DSPs
    """
    rows = [(name, preset.weights, preset.computes, preset.tensors, preset.purpose) for name, preset in PRESETS.items()]
    return "\n".join(aligned([("preset", "weights", "computes in", "in, out", "for"), *rows], "<<<<<"))
