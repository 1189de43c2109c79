"""Running TensorFlow's TFLite converter, and ai-edge-quantizer on what it gives, in a process of its own.

The converter can crash the process it runs in (a segmentation fault on some recurrent models) and leaks memory at
every conversion; out here neither reaches the user's program.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfopt.errors import ExportError
from tfopt.export.presets import PRESETS

__all__ = ["convert_saved_model"]

TIMEOUT_SECONDS = 1800.0


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
        timeout_seconds: when to give up.

    Raises:
        ExportError: with the converter's last words, if it fails, crashes or does not end in time.
    """
    with tempfile.TemporaryDirectory(prefix="tfopt-conversion-") as folder:
        options = {
            "engine": engine,
            "per_channel_dense": per_channel_dense,
            "allow_float": allow_float,
            "sparse_weights": sparse_weights,
        }
        command = [sys.executable, "-m", "tfopt.export.conversion", str(saved_model), str(path), quantization]
        command.append(json.dumps(options))
        if calibration is not None:
            samples = Path(folder, "calibration.npz")
            np.savez(samples, **calibration)  # type: ignore[arg-type]
            command.append(str(samples))
        log = Path(folder, "log.txt")
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # held open: when this process dies, the converter sees it and ends
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "1", "CUDA_VISIBLE_DEVICES": "-1"},
            )
            try:
                code = process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                raise ExportError(
                    f"The TFLite converter did not end within {timeout_seconds:.0f} s and was stopped. "
                    f"Its last words: {_last_words(log)}"
                ) from None
            finally:
                process.kill()
                process.wait()
                if process.stdin is not None:
                    process.stdin.close()
        if code != 0:
            how = f"was ended by signal {-code}" if code < 0 else f"failed with code {code}"
            raise ExportError(f"The TFLite converter {how}. Its last words: {_last_words(log)}")


def _last_words(log: Path, lines: int = 6) -> str:
    text = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return "\n  " + "\n  ".join(text[-lines:]) if text else "(none)"


def _convert(saved_model: str, path: str, quantization: str, options: str, calibration: str | None = None) -> None:
    settings = json.loads(options)
    samples = None
    if calibration is not None:
        with np.load(calibration) as file:
            samples = dict(file)
    if settings["engine"] == "converter":
        converted = _run_converter(saved_model, quantization, settings, samples)
    else:
        from tfopt.export.ai_edge import quantize

        converted = quantize(_run_converter(saved_model, "none", settings, None), quantization, samples)
    Path(path).write_bytes(converted)


def _run_converter(
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
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(preset.tensors)
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
    return converter.convert()


def _end_with_parent() -> None:
    # Unbuffered: a thread waiting inside sys.stdin's lock would make the interpreter abort at its end.
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _convert(*sys.argv[1:])
