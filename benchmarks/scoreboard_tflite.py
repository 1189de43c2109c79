"""TensorFlow's converter as its documentation shows it, for Keras 3 and tf_keras alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["write_tflite"]


def write_tflite(model: Any, path: Path, *, int8: bool = False, calibration: np.ndarray | None = None) -> None:
    """Converts a model.

    Args:
        model: of Keras 3, or of tf_keras where TensorFlow has been told to take that.
        path: the file to write.
        int8: whether weights, activations, inputs and outputs become int8.
        calibration: samples for the ranges; a quantization-aware model knows them.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    if calibration is not None:

        def representative_dataset() -> Iterator[list[np.ndarray]]:
            for row in range(len(calibration)):
                yield [calibration[row : row + 1]]

        converter.representative_dataset = representative_dataset
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    path.write_bytes(converter.convert())
