"""Running TensorFlow's TFLite converter in a process of its own.

The converter can crash the process it runs in (a segmentation fault on some recurrent models) and leaks memory at
every conversion; out here neither reaches the user's program.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tfopt.errors import ExportError

__all__ = ["convert_saved_model"]

TIMEOUT_SECONDS = 1800.0


def convert_saved_model(
    saved_model: Path,
    path: Path,
    *,
    quantization: str,
    calibration: dict[str, np.ndarray] | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> None:
    """Converts a SavedModel with static shapes to a .tflite file.

    Args:
        saved_model: the folder, with one signature `serving_default`.
        path: the file to write.
        quantization: "int8", "float16", "dynamic" or "none".
        calibration: for post-training int8, samples by signature input name, of shape `(n, ...)`.
        timeout_seconds: when to give up.

    Raises:
        ExportError: with the converter's last words, if it fails, crashes or does not end in time.
    """
    with tempfile.TemporaryDirectory(prefix="tfopt-conversion-") as folder:
        command = [sys.executable, "-m", "tfopt.export.conversion", str(saved_model), str(path), quantization]
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


def _convert(saved_model: str, path: str, quantization: str, calibration: str | None = None) -> None:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model, signature_keys=["serving_default"])
    if quantization != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantization == "int8":
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
    if calibration is not None:
        with np.load(calibration) as file:
            samples = dict(file)

        def representative_dataset() -> Iterator[tuple[str, dict[str, np.ndarray]]]:
            for index in range(len(next(iter(samples.values())))):
                yield "serving_default", {name: array[index : index + 1] for name, array in samples.items()}

        converter.representative_dataset = representative_dataset
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    Path(path).write_bytes(converter.convert())


def _end_with_parent() -> None:
    # Unbuffered: a thread waiting inside sys.stdin's lock would make the interpreter abort at its end.
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _convert(*sys.argv[1:])
