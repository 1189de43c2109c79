"""ImageBytes: files of images as the model's input, prepared in the graph as the training did it."""

import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfopt.artifact import TensorSpec
from tfopt.errors import ConfigError, ExportError, ModelError
from tfopt.export.image_bytes import ImageBytes
from tfopt.export.saved_model import write_saved_model

IMAGENET = ImageBytes(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))


def pixels(height: int = 9, width: int = 14, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def png(image: np.ndarray) -> bytes:
    return tf.io.encode_png(image).numpy()


def classifier(channels: int = 3) -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 8, channels), name="photo")
    return keras.Model(image, layers.Dense(2, name="scores")(layers.Flatten()(image)))


def test_pixels_of_the_right_size_are_only_normalised() -> None:
    image = pixels(6, 8)
    decoded = IMAGENET.decode(png(image), (6, 8, 3), "float32")
    np.testing.assert_allclose(
        decoded, (image - np.array(IMAGENET.mean)) / np.array(IMAGENET.std), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("size", [(9, 14), (14, 9), (3, 40), (40, 3), (6, 8), (1, 1)])
@pytest.mark.parametrize("crop", [False, True])
def test_resizing_is_that_of_keras(size: tuple[int, int], crop: bool) -> None:
    image = pixels(*size)
    fit = "crop" if crop else "stretch"
    decoded = ImageBytes(std=1, fit=fit).decode(png(image), (6, 8, 3), "float32")
    resize = keras.preprocessing.image.smart_resize if crop else tf.image.resize
    np.testing.assert_allclose(decoded, resize(image.astype(np.float32), (6, 8)), atol=1e-3)


def test_padding_keeps_the_whole_picture_between_black_bars() -> None:
    white = np.full((4, 8, 3), 255, np.uint8)
    decoded = np.asarray(ImageBytes(fit="pad").decode(png(white), (8, 8, 3), "float32"))
    np.testing.assert_allclose(decoded[2:6], 1)
    np.testing.assert_allclose(decoded[[0, 1, 6, 7]], 0)


@pytest.mark.parametrize("encode", [tf.io.encode_jpeg, tf.io.encode_png])
def test_formats_and_channels(encode: object) -> None:
    grey = np.full((6, 8, 1), 100, np.uint8)
    for channels in (1, 3):
        decoded = ImageBytes(std=1).decode(encode(grey), (6, 8, channels), "float32")
        np.testing.assert_allclose(decoded, np.full((6, 8, channels), 100), atol=1)


def test_integer_inputs_are_rounded_and_kept_within_their_range() -> None:
    image = pixels(6, 8)
    decoded = ImageBytes(mean=128, std=0.5).decode(png(image), (6, 8, 3), "int8")
    np.testing.assert_array_equal(decoded, np.clip((image - 128.0) / 0.5, -128, 127).astype(np.int8))
    files, values = ImageBytes(std=1).examples(TensorSpec(name="x", shape=(None, 6, 8, 3), dtype="uint8"), 2)
    assert values.dtype == np.uint8
    np.testing.assert_array_equal(tf.io.decode_image(files[1]), values[1])


@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_the_signature_answers_as_keras_on_prepared_pixels(tmp_path: Path, batch_size: int) -> None:
    model = classifier()
    written = write_saved_model(model, tmp_path / "1", image_bytes=IMAGENET)
    assert [(spec.name, spec.shape, spec.dtype) for spec in written.bytes_inputs] == [
        ("photo_bytes", (None,), "string")
    ]
    images = [pixels(seed=seed, height=5 + seed) for seed in range(batch_size)]
    signature = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_bytes"]
    answer = signature(photo_bytes=tf.constant([png(image) for image in images]))["scores"]
    resized = np.stack([tf.image.resize(image, (6, 8)) for image in images])
    expected = model((resized - np.float32(IMAGENET.mean)) / np.float32(IMAGENET.std))
    np.testing.assert_allclose(answer, expected, atol=1e-4)


def test_other_inputs_stay_as_they_are(tmp_path: Path) -> None:
    age, image = keras.Input((1,), name="age"), keras.Input((6, 8, 1), name="scan", dtype="uint8")
    features = layers.Concatenate()([layers.Flatten()(layers.Rescaling(1 / 255)(image)), age])
    model = keras.Model([age, image], layers.Dense(1, name="risk")(features))
    written = write_saved_model(model, tmp_path / "1", image_bytes=ImageBytes(std=1))
    assert [spec.name for spec in written.bytes_inputs] == ["age", "scan_bytes"]
    scan = pixels(6, 8, 1)
    signature = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_bytes"]
    answer = signature(age=tf.constant([[7.0]]), scan_bytes=tf.constant([png(scan)]))["risk"]
    np.testing.assert_allclose(answer, model([np.array([[7.0]]), scan[None]]), atol=1e-5)


def test_a_signature_that_prepares_otherwise_than_it_says_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageBytes, "normalise", lambda self, values, dtype: tf.cast(values, dtype))
    with pytest.raises(ExportError, match="'scores' at batch size 1 must agree"):
        write_saved_model(classifier(), tmp_path / "1", image_bytes=ImageBytes())


def test_what_is_no_image_is_an_error_of_the_request(tmp_path: Path) -> None:
    write_saved_model(classifier(), tmp_path / "1", image_bytes=ImageBytes())
    signature = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_bytes"]
    with warnings.catch_warnings(), pytest.raises(tf.errors.InvalidArgumentError, match="Unknown image file format"):
        signature(photo_bytes=tf.constant([b"this is text"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fit": "zoom"}, r"fit must be one of stretch, crop, pad\. Received: 'zoom'"),
        ({"interpolation": "linear"}, "interpolation must be one of bilinear, .* Received: 'linear'"),
        ({"std": 0}, r"std must be a finite number, .* none of them 0\. Received: 0"),
        ({"std": (1, 2)}, r"or three for the channels.* Received: \(1, 2\)"),
        ({"mean": "127"}, "mean must be a finite number"),
        ({"mean": float("nan")}, "mean must be a finite number"),
    ],
)
def test_bad_values_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ImageBytes(**options)


def test_models_that_it_does_not_suit_are_refused(tmp_path: Path) -> None:
    vector, unknown = keras.Input((4,), name="vector"), keras.Input((None, 8, 3), name="unknown")
    two = [keras.Input((4, 4, 3), name="left"), keras.Input((4, 4, 3), name="right")]
    for image_bytes, model, error, message in (
        (ImageBytes(), keras.Model(vector, vector * 2), ModelError, r"'vector' must have shape .* Received: \(4,\)"),
        (ImageBytes(), keras.Model(unknown, unknown * 2), ModelError, r"all known, .* Received: \(None, 8, 3\)"),
        (IMAGENET, classifier(channels=1), ModelError, "3 channels, as mean or std has"),
        (ImageBytes(), keras.Model(two, two[0] + two[1]), ConfigError, "must name one of the images left, right"),
        (ImageBytes(input="top"), classifier(), ConfigError, r"input must be one of photo\. Received: 'top'"),
    ):
        with pytest.raises(error, match=message):
            write_saved_model(model, tmp_path / "1", image_bytes=image_bytes)
    assert list(tmp_path.iterdir()) == []
