"""A small classifier as float and int8 .tflite, as SavedModel and as TF Serving folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

FEATURES, CLASSES = 16, 4


@dataclass(frozen=True)
class Files:
    float32: Path
    int8: Path
    saved_model: Path
    two_inputs: Path
    x: np.ndarray
    y: np.ndarray
    probabilities: np.ndarray


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    import keras
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("benchmark")
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (64, FEATURES)).astype(np.float32)
    dense = keras.layers.Dense(CLASSES, "softmax")
    model = keras.Sequential([keras.Input((FEATURES,), name="features"), dense])
    dense.set_weights([rng.normal(0, 2, (FEATURES, CLASSES)), np.zeros(CLASSES)])
    probabilities = keras.ops.convert_to_numpy(model(x))

    def saved_model(name: str, batch: int | None, of: keras.Model, **widths: int) -> Path:
        def infer(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"output": of(tensors if len(tensors) > 1 else tensors[0])}

        archive = keras.export.ExportArchive()
        archive.track(of)
        signature = [tf.TensorSpec((batch, width), tf.float32, name=key) for key, width in widths.items()]
        archive.add_endpoint("serving_default", infer, input_signature=signature)
        archive.write_out(str(folder / name), verbose=False)
        return folder / name

    def convert(source: Path, name: str, *, int8: bool = False) -> Path:
        converter = tf.lite.TFLiteConverter.from_saved_model(str(source))
        if int8:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([row[None]] for row in x)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        (folder / name).write_bytes(converter.convert())
        return folder / name

    # The order of the arguments, z before a, is neither the alphabet's nor necessarily the file's.
    z, a = keras.Input((2,), name="z"), keras.Input((2,), name="a")
    minus = keras.Model([z, a], keras.layers.Subtract()([z, a]))
    static = saved_model("static", 1, model, features=FEATURES)
    return Files(
        float32=convert(static, "float32.tflite"),
        int8=convert(static, "int8.tflite", int8=True),
        saved_model=saved_model("dynamic", None, model, features=FEATURES),
        two_inputs=convert(saved_model("minus", 1, minus, z=2, a=2), "two_inputs.tflite"),
        x=x,
        y=probabilities.argmax(-1),
        probabilities=probabilities,
    )
