"""What weights take in a file, told without writing one."""

from pathlib import Path

import keras
import numpy as np
import pytest

from tfopt.export.tflite import export_tflite
from tfopt.quantization import quantize_aware
from tfopt.quantization.stored_weights import stored_weights

layers = keras.layers


def model() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.Conv2D(64, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dropout(0.1),
            layers.Flatten(),
            layers.Dense(16, "softmax", name="scores"),
        ]
    )


def size_bytes(model: keras.Model) -> int:
    return sum(array.nbytes for array in stored_weights(model))


def test_a_weight_takes_its_bits() -> None:
    kernels, channels = 3 * 3 * 4 * 64 + 36 * 64 * 16, 64 + 16
    samples = np.random.default_rng(0).normal(size=(8, 8, 8, 4)).astype("float32")
    assert size_bytes(model()) == 4 * (kernels + channels)  # the batch norm's offset, and a bias
    assert size_bytes(quantize_aware(model(), calibration=samples)) == kernels + 8 * channels  # offsets and scales
    half = quantize_aware(model(), config="float16")
    assert size_bytes(half) == 2 * kernels + 4 * channels
    mixed = quantize_aware(model(), calibration=samples, layers={"scores": "none"})
    assert size_bytes(mixed) == 3 * 3 * 4 * 64 + 8 * 64 + 4 * (36 * 64 * 16 + 16)


def test_the_integers_are_those_of_the_grid() -> None:
    dense = keras.Sequential([keras.Input((2,)), layers.Dense(2, use_bias=False)])
    dense.layers[0].kernel.assign([[1.27, 0.0], [-0.5, 0.0]])
    codes, scale = stored_weights(quantize_aware(dense, calibration=np.ones((2, 2))))
    np.testing.assert_array_equal(codes, [[127, 0], [-50, 0]])
    np.testing.assert_allclose(scale, [[0.01, 0.0]], rtol=1e-6)
    assert codes.dtype == np.int8


def words(count: int = 50) -> keras.Model:
    tokens = keras.Input((4,), dtype="int32")
    x = layers.Flatten()(layers.Embedding(count, 8, name="words")(tokens))
    return keras.Model(tokens, layers.Dense(3, name="scores")(x))


def test_a_table_has_the_grid_of_what_is_looked_up() -> None:
    tokens = np.arange(48).reshape(-1, 4) % 50
    aware = quantize_aware(words(), calibration=tokens)
    assert size_bytes(aware) == 50 * 8 + 4 + 4 * 8 * 3 + 3 * 8
    stored = stored_weights(aware)
    place = [array.shape for array in stored].index((50, 8))
    codes, scale = stored[place : place + 2]
    table = np.array(aware.get_layer("words").embeddings)
    steps = codes.astype(float) - codes[tuple(np.argwhere(np.abs(table) == np.abs(table).min())[0])]
    np.testing.assert_allclose(steps * scale, table, atol=float(scale))
    wide = quantize_aware(words(), calibration=tokens, config="int16x8")
    assert size_bytes(wide) == 2 * 50 * 8 + 4 + 4 * 8 * 3 + 3 * 8
    mixed = quantize_aware(words(), calibration=tokens, layers={"words": "none"})
    assert size_bytes(mixed) == 4 * 50 * 8 + 4 * 8 * 3 + 3 * 8
    assert size_bytes(words()) == 4 * (50 * 8 + 4 * 8 * 3 + 3)


def test_shared_layers_count_once() -> None:
    shared = layers.Dense(4)
    x = keras.Input((4,))
    assert size_bytes(keras.Model(x, shared(shared(x)))) == 4 * (16 + 4)
    table = layers.Embedding(50, 8, name="words")
    pair = [keras.Input((4,), dtype="int32", name=name) for name in ("question", "answer")]
    both = layers.Flatten()(layers.Concatenate()([table(tokens) for tokens in pair]))
    model = keras.Model(pair, layers.Dense(2, name="scores")(both))
    tokens = np.arange(48).reshape(-1, 4) % 50
    aware = quantize_aware(model, calibration={"question": tokens, "answer": tokens})
    assert [array.shape for array in stored_weights(aware)].count((50, 8)) == 1


SAMPLES = {
    "images": (model, np.random.default_rng(0).normal(size=(16, 8, 8, 4)).astype("float32")),
    "text": (lambda: words(count=4000), np.random.default_rng(0).integers(4000, size=(500, 4))),
}


@pytest.mark.slow
@pytest.mark.usefixtures("conversion_in_this_process")
@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_is_as_large(name: str, tmp_path: Path) -> None:
    build, samples = SAMPLES[name]
    aware = quantize_aware(build(), calibration=samples)
    artifact = export_tflite(aware, tmp_path / "aware.tflite")
    assert size_bytes(aware) == pytest.approx(artifact.size_bytes, rel=0.15)
