"""What a .tflite file tells the application that runs it: class labels, and how images are normalized."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfopt.errors import ConfigError
from tfopt.export.task_metadata_schema import ModelDescription, TensorDescription

__all__ = ["ModelMetadata", "describe", "reader_limits"]

PixelStatistic = float | Sequence[float]
"""One number for all channels of an image, or one for each."""


@dataclass(frozen=True)
class ModelMetadata:
    """What a .tflite file tells the application that runs it; see `export_tflite(metadata=)`.

    TensorFlow Lite's Task Library and MediaPipe read it: their ImageClassifier gives labels, and feeds the model
    `(pixel - mean) / standard_deviation`, with pixels from 0 to 255. A model that normalizes by itself has 0 and 1.
    Both take RGB images and float input only (quantization "int8_float_io", not "int8"), and MediaPipe one mean for
    all channels; export warns of what they refuse.

    Args:
        labels: a text for each position of the output's last axis: for a classifier, the classes in their order. For
            a model of several outputs, labels by the output's name.
        mean: what is subtracted from the pixels of an image, an input of shape `(height, width, 3)` for RGB or
            `(height, width, 1)` for greyscale: a number, or one for each channel. For a model of several such inputs,
            by the input's name.
        standard_deviation: what the difference is divided by, likewise.
        name: of the model.
        description: what it is for.
        version: of the model.
        author: who made it.
        license: under which it may be used.

    Raises:
        ConfigError: if a value is not of these kinds, or only one of mean and standard deviation is given.

    Example:
        >>> ModelMetadata(labels=["cat", "dog"], mean=127.5, standard_deviation=127.5).labels
        ('cat', 'dog')

    References: "Adding metadata to LiteRT models"; metadata_schema.fbs.
    """

    labels: Sequence[str] | Mapping[str, Sequence[str]] = ()
    mean: PixelStatistic | Mapping[str, PixelStatistic] | None = None
    standard_deviation: PixelStatistic | Mapping[str, PixelStatistic] | None = None
    name: str = ""
    description: str = ""
    version: str = ""
    author: str = ""
    license: str = ""

    def __post_init__(self) -> None:
        for field in _TEXTS:
            if not isinstance(text := getattr(self, field), str):
                raise ConfigError(f"ModelMetadata: {field} must be a text. Received: {text!r}.")
        object.__setattr__(self, "labels", _each(self.labels, _checked_labels))
        for field in ("mean", "standard_deviation"):
            if getattr(self, field) is not None:
                object.__setattr__(self, field, _each(getattr(self, field), _checked_numbers, field))
        if _keys(self.mean) != _keys(self.standard_deviation):
            raise ConfigError(
                "ModelMetadata: mean and standard_deviation go together: the model gets (pixel - mean) / "
                f"standard_deviation. Received: mean={self.mean!r}, standard_deviation={self.standard_deviation!r}."
            )


_LARGEST = float(np.finfo(np.float32).max)
"""The file has the numbers in float32."""
_TEXTS = ("name", "description", "version", "author", "license")


def _each(given: Any, check: Any, *arguments: str) -> Any:
    if isinstance(given, Mapping):
        return {str(key): check(value, *arguments) for key, value in given.items()}
    return check(given, *arguments)


def _checked_labels(labels: Any) -> tuple[str, ...]:
    given = labels if isinstance(labels, str) or not isinstance(labels, Iterable) else tuple(labels)
    if not isinstance(given, tuple) or not all(isinstance(one, str) for one in given):
        raise ConfigError(
            "ModelMetadata: labels must be a text for each class, such as Path('labels.txt').read_text().splitlines(), "
            f"or a mapping of such by output. Received: {given!r}."
        )
    for position, label in enumerate(given):
        if not label.strip() or len(label.splitlines()) > 1:
            raise ConfigError(
                "ModelMetadata: a label must be one line that is not empty: a reader tells them by their lines. "
                f"Received: {label!r}, for position {position}."
            )
    return given


def _checked_numbers(given: Any, field: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(one) for one in (given if isinstance(given, Iterable) else (given,)))
    except (TypeError, ValueError):
        numbers = ()
    positive = field != "standard_deviation" or all(number > 0 for number in numbers)
    finite = all(abs(number) <= _LARGEST for number in numbers)
    if isinstance(given, str) or not numbers or not finite or not positive:
        raise ConfigError(
            f"ModelMetadata: {field} must be a finite {'positive ' * (field != 'mean')}number, or one for each "
            f"channel. Received: {given!r}."
        )
    return numbers


def _keys(given: Any) -> Any:
    return set(given) if isinstance(given, Mapping) else given is None


def describe(
    metadata: ModelMetadata,
    inputs: Mapping[str, tuple[int | None, ...]],
    outputs: Mapping[str, tuple[int | None, ...]],
) -> tuple[ModelDescription, dict[str, bytes]]:
    """What is written for a model, and the files behind it.

    Args:
        metadata: what the user gave.
        inputs: the shape of each input, with the batch, by its name in the signature.
        outputs: likewise for the outputs.

    Returns:
        The description of its tensors, in the order given, and the content of each label file by its name.

    Raises:
        ConfigError: if the labels or numbers do not fit the model, or a classifier of images has no normalization.
    """
    labels = _by_name(metadata.labels or None, outputs, what="labels", whose="output")
    for name, texts in labels.items():
        if len(texts) != outputs[name][-1]:
            raise ConfigError(
                f"export_tflite: the output '{name}' needs a label for each of its {outputs[name][-1]} values. "
                f"Received: {len(texts)} labels."
            )
    label_files = {name: "labels.txt" if len(outputs) == 1 else f"{name}_labels.txt" for name in labels}
    images = {name: shape for name, shape in inputs.items() if len(shape) == 4 and shape[-1] in {1, 3}}
    mean = _by_name(metadata.mean, images, what="mean", whose="image")
    standard_deviation = _by_name(metadata.standard_deviation, images, what="standard_deviation", whose="image")
    for name, numbers in (*mean.items(), *standard_deviation.items()):
        if len(numbers) not in {1, images[name][-1]}:
            raise ConfigError(
                f"export_tflite: mean and standard_deviation of '{name}' must be one number, or one for each of its "
                f"{images[name][-1]} channels. Received: {len(numbers)}."
            )
    # One channel may as well be a spectrogram; who gives a mean of pixels says that it is an image.
    channels = {name: shape[-1] or 0 for name, shape in images.items() if shape[-1] == 3 or name in mean}
    if labels and len(inputs) == 1 and channels and not mean:
        raise ConfigError(
            "export_tflite: metadata with labels of images needs mean and standard_deviation: without them "
            "ImageClassifier refuses the file. Received: none. Give those that the model was trained with, or 0 and 1 "
            "where it takes pixels from 0 to 255."
        )
    description = ModelDescription(
        {field: text for field in _TEXTS if (text := getattr(metadata, field))},
        tuple(
            TensorDescription(name, channels.get(name, 0), mean.get(name, ()), standard_deviation.get(name, ()))
            for name in inputs
        ),
        tuple(TensorDescription(name, label_file=label_files.get(name, "")) for name in outputs),
    )
    return description, {label_files[name]: "\n".join(texts).encode() for name, texts in labels.items()}


def reader_limits(description: ModelDescription, *, integer_input: bool) -> str:
    """What the Task Library or MediaPipe will not take of a model of images, as a warning; empty if they take it.

    Args:
        description: what the file tells.
        integer_input: whether the file takes integers.

    References: measured with tflite-support 0.4.4 and mediapipe 1.2.2.
    """
    images = [tensor for tensor in description.inputs if tensor.image_channels]
    per_channel = any(len({*tensor.mean}) > 1 or len({*tensor.standard_deviation}) > 1 for tensor in images)
    limits = {
        "both take images as float32 (quantization 'int8_float_io')": images and integer_input,
        "both take RGB images only": any(tensor.image_channels == 1 for tensor in images),
        "MediaPipe takes one mean and standard_deviation for all channels": per_channel,
    }
    told = "; ".join(limit for limit, applies in limits.items() if applies)
    return f"export_tflite: TensorFlow Lite's Task Library or MediaPipe will refuse the file: {told}." if told else ""


def _by_name(given: Any, names: Mapping[str, Any], *, what: str, whose: str) -> dict[str, Any]:
    if given is None:
        return {}
    if isinstance(given, Mapping):
        if unknown := sorted(set(given) - set(names)):
            raise ConfigError(
                f"export_tflite: {what} must be given for {', '.join(names) or f'an {whose}'}. "
                f"Received: {', '.join(unknown)}."
            )
        return dict(given)
    if len(names) != 1:
        raise ConfigError(
            f"export_tflite: {what} without a name is for a model of one {whose}. Received: a model of {len(names)}"
            + (f" ({', '.join(names)}). Give a mapping by their names." if names else ".")
        )
    return {next(iter(names)): given}
