"""Quantization-aware training: Keras computes what the int8 .tflite will."""

from tfopt.quantization.coverage import Coverage, coverage
from tfopt.quantization.plan import CoverageRow
from tfopt.quantization.quantize_aware import is_quantize_aware, quantize_aware
from tfopt.quantization.sensitivity import Sensitivity, SensitivityRow, sensitivity
from tfopt.quantization.strip import freeze, settings_of, strip

__all__ = [
    "Coverage",
    "CoverageRow",
    "Sensitivity",
    "SensitivityRow",
    "coverage",
    "freeze",
    "is_quantize_aware",
    "quantize_aware",
    "sensitivity",
    "settings_of",
    "strip",
]
