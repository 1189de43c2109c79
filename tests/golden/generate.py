"""Writes the golden files: `python tests/golden/generate.py`, then look at what changed before committing it.

networks.tflite holds three tiny networks; golden.npz an int8 sample for each (`x_NAME`) and what the independent
reference makes of it (`y_NAME`).
"""

import tempfile
from pathlib import Path

import keras
import numpy as np
from keras import layers
from reference import run_reference

from tfopt.export.tflite import export_tflite
from tfopt.export.tflite_file import read_tflite
from tfopt.quantization import quantize_aware

FOLDER = Path(__file__).parent
NAMES = ("classifier", "residual", "joined")


def waves(shape, frequency):
    """Numbers in [-1, 1] that are the same on every machine."""
    return np.sin(frequency * np.arange(np.prod(shape), dtype=np.float64) ** 1.5).reshape(shape).astype(np.float32)


def build_networks():
    """Returns the three networks as one quantize-aware model: one conversion serves them all."""
    inputs = {name: keras.Input((8, 8, 3), name=f"x_{name}") for name in NAMES}

    x = layers.Conv2D(6, 3, use_bias=False)(inputs["classifier"])
    x = layers.MaxPooling2D(2)(layers.ReLU()(layers.BatchNormalization()(x)))
    classifier = layers.Dense(5, activation="softmax", name="y_classifier")(layers.Flatten()(x))

    x = layers.DepthwiseConv2D(3, padding="same")(inputs["residual"])
    residual = layers.Add(name="y_residual")([inputs["residual"], x])

    x = layers.Conv2D(4, 3, padding="same")(inputs["joined"])
    x = layers.Concatenate()([x, layers.Conv2D(2, 1)(inputs["joined"])])
    joined = layers.Conv2D(3, 2, name="y_joined")(x)

    model = keras.Model(list(inputs.values()), [classifier, residual, joined])
    for index, weight in enumerate(model.weights):
        values = waves(weight.shape, 1 + index / 7)
        if weight.name in {"gamma", "moving_variance"}:
            values = values + 1.5
        weight.assign(values / 64 if len(weight.shape) == 2 else values)  # no saturated softmax
    samples = [3 * waves((32, 8, 8, 3), 2 + index) for index in range(len(NAMES))]
    return quantize_aware(model, calibration=samples, strict=True), samples


def export_networks(path):
    model, samples = build_networks()
    export_tflite(model, path, calibration=samples)
    return read_tflite(path)


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "networks.tflite")
        file = export_networks(path)
        (FOLDER / path.name).write_bytes(path.read_bytes())
    inputs = {
        name: np.round(127 * waves((1, 8, 8, 3), 5 + index)).astype(np.int8) for index, name in enumerate(file.inputs)
    }
    np.savez(FOLDER / "golden.npz", **inputs, **run_reference(file, inputs))


if __name__ == "__main__":
    main()
