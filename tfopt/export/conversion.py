"""Running TensorFlow's TFLite converter, and ai-edge-quantizer on what it gives, in a process of its own.

The converter can crash the process it runs in (a segmentation fault on some recurrent models) and leaks memory at
every conversion.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfopt.errors import ExportError
from tfopt.export.converter_process import TIMEOUT_SECONDS, end_with_parent, load_samples, run_converter
from tfopt.export.presets import PRESETS

__all__ = ["convert_saved_model"]


def convert_saved_model(
    saved_model: Path,
    path: Path,
    *,
    quantization: str,
    engine: str = "converter",
    calibration: dict[str, np.ndarray] | None = None,
    per_channel_dense: bool = True,
    allow_float: bool = False,
    sparse_weights: bool = False,
    io_dtype: str | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> None:
    """Converts a SavedModel with static shapes to a .tflite file.

    Args:
        saved_model: the folder, with one signature `serving_default`.
        path: the file to write.
        quantization: one of `presets.PRESETS`.
        engine: what quantizes, "converter" or "ai-edge-quantizer".
        calibration: for post-training int8 and int16x8, samples by signature input name, of shape `(n, ...)`.
        per_channel_dense: whether dense kernels have a scale per unit.
        allow_float: whether post-training int8 and int16x8 may leave operators in float.
        sparse_weights: whether weights with many zeros are stored without them.
        io_dtype: the type of inputs and outputs, where it is not the preset's; the converter's only.
        timeout_seconds: when to give up.

    Raises:
        ExportError: with the converter's last words, if it fails, crashes or does not end in time.
    """
    options = {
        "engine": engine,
        "per_channel_dense": per_channel_dense,
        "allow_float": allow_float,
        "sparse_weights": sparse_weights,
        "io_dtype": io_dtype,
    }
    run_converter(
        "tfopt.export.conversion",
        [str(saved_model), str(path), quantization, json.dumps(options)],
        name="The TFLite converter",
        samples=calibration,
        timeout_seconds=timeout_seconds,
    )


def _convert(saved_model: str, path: str, quantization: str, options: str, calibration: str | None = None) -> None:
    settings = json.loads(options)
    samples = None if calibration is None else load_samples(calibration)
    if settings["engine"] == "converter":
        converted = _run_tensorflow(saved_model, quantization, settings, samples)
    else:
        from tfopt.export.ai_edge import quantize

        converted = quantize(_run_tensorflow(saved_model, "none", settings, None), quantization, samples)
    Path(path).write_bytes(converted)


def _run_tensorflow(
    saved_model: str, quantization: str, settings: dict[str, Any], samples: dict[str, np.ndarray] | None
) -> bytes:
    import tensorflow as tf

    preset = PRESETS[quantization]
    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model, signature_keys=["serving_default"])
    if quantization != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if settings["sparse_weights"]:
        converter.optimizations = [*converter.optimizations, tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if preset.integer_tensors:
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(
            settings["io_dtype"] or preset.tensors
        )
    # TensorFlow has no other option for it.
    converter._experimental_disable_per_channel_quantization_for_dense_layers = not settings["per_channel_dense"]
    if samples is not None:

        def representative_dataset() -> Iterator[tuple[str, dict[str, np.ndarray]]]:
            for index in range(len(next(iter(samples.values())))):
                yield "serving_default", {name: array[index : index + 1] for name, array in samples.items()}

        converter.representative_dataset = representative_dataset
        integer_operators = {
            "int8": tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
            "int16x8": tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
        }[str(preset.mode)]
        converter.target_spec.supported_ops = [integer_operators]
        if settings["allow_float"]:
            converter.target_spec.supported_ops.append(tf.lite.OpsSet.TFLITE_BUILTINS)
    try:
        return converter.convert()
    except Exception as error:  # TensorFlow's own class for it is private
        if missing := _operators_without_kernel(str(error)):
            raise ExportError(
                f"TFLite has no operator for {'; '.join(missing)}. Build the layer of other operations."
            ) from error
        raise


def _operators_without_kernel(words: str) -> list[str]:
    """The operators that the converter stopped at, with their places in the model, which begin with a layer's name."""
    found = re.findall(r"""fused\["\w+:", "([^"@]+)@[^\n]*'tf\.(\w+)' op is neither a custom op nor a flex op""", words)
    return list(dict.fromkeys(f"{operator} ({place})" for place, operator in found))


if __name__ == "__main__":
    end_with_parent()
    try:
        _convert(*sys.argv[1:])
    except ExportError as error:
        sys.exit(str(error))
