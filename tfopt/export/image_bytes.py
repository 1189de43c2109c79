"""Encoded images as a model's input: decoded, resized and normalised in the exported graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import keras
import numpy as np
import tensorflow as tf

from tfopt.artifact import TensorSpec
from tfopt.errors import ConfigError, ModelError
from tfopt.export.signature import input_names

__all__ = ["BYTES_SIGNATURE", "ImageBytes"]

BYTES_SIGNATURE = "serving_bytes"
Fit = Literal["stretch", "crop", "pad"]
Interpolation = Literal["bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5", "gaussian", "mitchellcubic"]


@dataclass(frozen=True, kw_only=True)
class ImageBytes:
    """A signature `serving_bytes` that takes JPEG, PNG, BMP or GIF files instead of pixels.

    Use it for clients that hold files: a request is some 10 times smaller than the pixels as numbers, and every client
    prepares images as the training did. The pixels, in [0, 255], become `(pixel - mean) / std`; give the values that
    the model was trained with. Of an animation the first picture counts; a picture is not turned by its EXIF record.

    Args:
        input: the name of the model's input that is an image; default: the only one of shape `(height, width, 1)` or
            `(height, width, 3)`. The signature takes it as `NAME_bytes`, of shape `(n,)`; other inputs stay.
        mean: what is taken off each pixel, or each channel.
        std: what it is divided by, or each channel. The default, 255, gives values in [0, 1]; a model that rescales
            itself takes 1.
        fit: "stretch" resizes to the model's size whatever the proportions, "crop" cuts the middle of the right
            proportions out first (Keras's `crop_to_aspect_ratio`), "pad" keeps all and fills up with black.
        interpolation: how `tf.image.resize` finds a pixel's value.
        antialias: whether it smooths when it makes an image smaller.

    Raises:
        ConfigError: if a value is not usable.

    Example:
        >>> import numpy as np
        >>> image = tf.io.encode_png(np.full((4, 6, 3), 51, np.uint8))
        >>> ImageBytes().decode(image, (2, 2, 3), "float32").numpy()[0]
        array([[0.2, 0.2, 0.2],
               [0.2, 0.2, 0.2]], dtype=float32)

    References: tensorflow.org/api_docs/python/tf/io/decode_image, tf/image/resize.
    """

    input: str | None = None
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 255.0
    fit: Fit = "stretch"
    interpolation: Interpolation = "bilinear"
    antialias: bool = False

    def __post_init__(self) -> None:
        for name, choices in (("fit", get_args(Fit)), ("interpolation", get_args(Interpolation))):
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"ImageBytes: {name} must be one of {', '.join(choices)}. Received: {getattr(self, name)!r}."
                )
        for name in ("mean", "std"):
            values = getattr(self, name)
            each = values if isinstance(values, (tuple, list)) else (values,)
            numbers = all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in each)
            if len(each) not in (1, 3) or not numbers or not np.all(np.isfinite(each)) or (name == "std" and 0 in each):
                raise ConfigError(
                    f"ImageBytes: {name} must be a finite number, or three for the channels"
                    f"{', none of them 0' if name == 'std' else ''}. Received: {values!r}."
                )
            object.__setattr__(self, name, tuple(each) if len(each) == 3 else each[0])

    def image_input(self, model: keras.Model) -> int:
        """Which of the model's inputs is the image.

        Raises:
            ConfigError: if there is no input of the name, or several images and no name.
            ModelError: if it is no image of known size with one or three channels.
        """
        names = input_names(model)
        images = [name for name, tensor in zip(names, model.inputs, strict=True) if _is_image(tensor.shape)]
        if self.input is None and len(images) > 1:
            raise ConfigError(f"ImageBytes: input must name one of the images {', '.join(images)}. Received: None.")
        if self.input is not None and self.input not in names:
            raise ConfigError(f"ImageBytes: input must be one of {', '.join(names)}. Received: {self.input!r}.")
        name = self.input or (images[0] if images else names[0])
        index = names.index(name)
        shape = model.inputs[index].shape
        per_channel = isinstance(self.mean, tuple) or isinstance(self.std, tuple)
        if name not in images or (per_channel and shape[-1] != 3):
            channels = "3 channels, as mean or std has" if name in images else "1 or 3 channels"
            raise ModelError(
                f"ImageBytes: the input '{name}' must have shape (height, width, channels), all known, with "
                f"{channels}. Received: {tuple(shape[1:])}."
            )
        return index

    def inputs(self, model: keras.Model, inputs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        """The inputs of the signature, for those of `serving_default`."""
        index = self.image_input(model)
        encoded = TensorSpec(name=f"{inputs[index].name}_bytes", shape=(None,), dtype="string")
        return (*inputs[:index], encoded, *inputs[index + 1 :])

    def examples(self, spec: TensorSpec, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Made-up files of the model's size, and the pixels in them as the model takes them, computed by NumPy.

        Args:
            spec: the model's image input, of shape `(None, height, width, channels)`.
            count: how many.

        Returns:
            Bytes of shape `(count,)`, and an array of shape `(count, height, width, channels)`.
        """
        pixels = np.random.default_rng(0).integers(0, 256, (count, *spec.shape[1:]), np.uint8)  # type: ignore[arg-type]
        values = (pixels.astype(np.float32) - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        dtype = tf.as_dtype(spec.dtype)
        if dtype.is_integer:
            limits = np.iinfo(dtype.as_numpy_dtype)
            values = np.clip(np.round(values), limits.min, limits.max)
        files = np.array([tf.io.encode_png(one).numpy() for one in pixels], object)
        return files, values.astype(dtype.as_numpy_dtype)

    def decode(self, encoded: Any, shape: tuple[int, int, int], dtype: str) -> Any:
        """One image of a file: a tensor of the given shape `(height, width, channels)` and dtype."""
        height, width, channels = shape
        image = tf.io.decode_image(encoded, channels=channels, expand_animations=False)
        image.set_shape((None, None, channels))
        if self.fit == "pad":
            image = tf.image.resize_with_pad(image, height, width, self.interpolation, antialias=self.antialias)
        else:
            image = _cropped(image, height, width) if self.fit == "crop" else image
            image = tf.image.resize(image, (height, width), self.interpolation, antialias=self.antialias)
        return self.normalise(tf.cast(image, tf.float32), dtype)

    def decode_batch(self, encoded: Any, shape: tuple[int, int, int], dtype: str) -> Any:
        """The images of files: of shape `(n,)` to `(n, height, width, channels)`."""
        spec = tf.TensorSpec(shape, dtype)
        return tf.map_fn(lambda one: self.decode(one, shape, dtype), encoded, fn_output_signature=spec)

    def normalise(self, pixels: Any, dtype: str) -> Any:
        """Pixels in [0, 255] as the model takes them; rounded where that are integers."""
        mean, std = (tf.constant(values, tf.float32) for values in (self.mean, self.std))
        values = (pixels - mean) / std
        wanted = tf.as_dtype(dtype)
        return tf.cast(values, wanted) if wanted.is_floating else tf.saturate_cast(tf.round(values), wanted)


def _is_image(shape: Sequence[int | None]) -> bool:
    return len(shape) == 4 and None not in shape[1:] and shape[-1] in (1, 3)


def _cropped(image: Any, height: int, width: int) -> Any:
    """The middle of an image, of the proportions of height and width."""
    size = tf.shape(image)[:2]
    wanted = tf.cast((size[1] * height / width, size[0] * width / height), tf.int32)
    kept = tf.maximum(tf.minimum(size, wanted), 1)
    top, left = tf.unstack((size - kept) // 2)
    return image[top : top + kept[0], left : left + kept[1]]
