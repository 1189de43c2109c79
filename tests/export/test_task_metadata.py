"""What users say of a model, held against the model."""

from typing import Any

import numpy as np
import pytest

from tfopt.errors import ConfigError
from tfopt.export.task_metadata import ModelMetadata, describe, reader_limits
from tfopt.export.task_metadata_schema import TensorDescription

IMAGE = {"image": (None, 8, 8, 3)}
SCORES = {"scores": (None, 2)}


def test_a_classifier_of_images() -> None:
    metadata = ModelMetadata(labels=["cat", "dög"], mean=127.5, standard_deviation=[1, 2, 3], name="pets", version="1")
    description, files = describe(metadata, IMAGE, SCORES)
    assert description.texts == {"name": "pets", "version": "1"}
    assert description.inputs == (TensorDescription("image", 3, (127.5,), (1.0, 2.0, 3.0)),)
    assert description.outputs == (TensorDescription("scores", label_file="labels.txt"),)
    assert files == {"labels.txt": "cat\ndög".encode()}


def test_several_inputs_and_outputs_by_name() -> None:
    metadata = ModelMetadata(
        labels={"kind": ("a", "b"), "map": ("x", "y", "z")}, mean={"left": 0}, standard_deviation={"left": 255}
    )
    inputs = {"left": (None, 4, 4, 1), "right": (None, 4, 4, 1), "scale": (None, 3)}
    outputs = {"height": (None, 1), "map": (None, 4, 4, 3), "kind": (None, 2)}
    description, files = describe(metadata, inputs, outputs)
    left, right, scale = description.inputs
    assert left == TensorDescription("left", 1, (0.0,), (255.0,))
    assert (right, scale) == (TensorDescription("right"), TensorDescription("scale"))
    assert [one.label_file for one in description.outputs] == ["", "map_labels.txt", "kind_labels.txt"]
    assert files == {"kind_labels.txt": b"a\nb", "map_labels.txt": b"x\ny\nz"}


def test_labels_of_what_is_no_image_need_no_normalization() -> None:
    for shape in ((None, 49, 10, 1), (None, 16), (None, 128, 3)):
        description, _ = describe(ModelMetadata(labels=["yes", "no"]), {"x": shape}, SCORES)
        assert description.inputs == (TensorDescription("x"),)


def test_numbers_of_numpy_are_taken() -> None:
    metadata = ModelMetadata(mean=np.float32([1, 2, 3]), standard_deviation=np.float64(2))
    assert (metadata.mean, metadata.standard_deviation) == ((1.0, 2.0, 3.0), (2.0,))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": "labels.txt"}, r"labels must be a text for each class.*Received: 'labels\.txt'"),
        ({"labels": [1, 2]}, r"labels must be a text for each class.*Received: \(1, 2\)"),
        ({"labels": 3}, r"labels must be a text for each class.*Received: 3"),
        ({"labels": ["a", " "]}, "one line that is not empty.*Received: ' ', for position 1"),
        ({"labels": {"scores": ["a\nb"]}}, r"one line.*Received: 'a\\nb', for position 0"),
        ({"mean": 0}, r"go together.*Received: mean=\(0\.0,\), standard_deviation=None"),
        ({"mean": {"a": 0}, "standard_deviation": {"b": 1}}, "go together"),
        ({"mean": 0, "standard_deviation": 0}, "must be a finite positive number.*Received: 0"),
        ({"mean": float("nan"), "standard_deviation": 1}, "mean must be a finite number.*Received: nan"),
        ({"mean": "127", "standard_deviation": 1}, "mean must be a finite number.*Received: '127'"),
        ({"mean": [], "standard_deviation": 1}, r"mean must be a finite number.*Received: \[\]"),
        ({"mean": 1e39, "standard_deviation": 1}, r"mean must be a finite number.*Received: 1e\+39"),
        ({"name": 3}, "name must be a text. Received: 3"),
    ],
)
def test_unusable_values_are_told(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelMetadata(**fields)


@pytest.mark.parametrize(
    ("fields", "inputs", "outputs", "message"),
    [
        ({"labels": ["a"]}, IMAGE, SCORES, "'scores' needs a label for each of its 2 values. Received: 1 labels"),
        ({"labels": ["a", "b"]}, IMAGE, SCORES, "needs mean and standard_deviation.*or 0 and 1"),
        ({"labels": ["a", "b"]}, IMAGE, SCORES | {"box": (None, 4)}, r"model of 2 \(scores, box\)\. Give a mapping"),
        ({"labels": {"score": ["a", "b"]}}, IMAGE, SCORES, "must be given for scores. Received: score"),
        ({"mean": 0, "standard_deviation": 1}, {"x": (None, 4)}, SCORES, "model of one image. Received: a model of 0"),
        ({"mean": {"x": 0}, "standard_deviation": {"x": 1}}, {"x": (None, 4)}, SCORES, "given for an image"),
        ({"mean": [1, 2], "standard_deviation": 1}, IMAGE, SCORES, "each of its 3 channels. Received: 2"),
    ],
)
def test_what_does_not_fit_the_model_is_told(
    fields: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        describe(ModelMetadata(**fields), inputs, outputs)


def test_what_readers_refuse_is_known() -> None:
    def limits(shape: tuple[int | None, ...], mean: Any, *, integer_input: bool = False) -> str:
        metadata = ModelMetadata(mean=mean, standard_deviation=None if mean is None else 1)
        return reader_limits(describe(metadata, {"x": shape}, SCORES)[0], integer_input=integer_input)

    assert limits((None, 8, 8, 3), 0) == limits((None, 8, 8, 3), (2, 2, 2)) == ""
    assert limits((None, 4), None, integer_input=True) == ""
    assert "int8_float_io" in limits((None, 8, 8, 3), 0, integer_input=True)
    assert "RGB images only" in limits((None, 8, 8, 1), 0)
    assert "one mean and standard_deviation for all channels" in limits((None, 8, 8, 3), (1, 2, 3))
