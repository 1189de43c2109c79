"""The metadata flatbuffer: the bytes of the published schema, read and written."""

import base64
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfopt.errors import DataError
from tfopt.export.task_metadata_schema import ModelDescription, TensorDescription, pack_description, unpack_description

# A detector written by tflite-support 0.4.4 with the classes that flatc made of metadata_schema.fbs: an RGB image with
# a normalization, statistics and dimension names; boxes; and scores with a threshold, a calibration file and labels.
BY_TFLITE_SUPPORT = base64.b64decode(
    "HAAAAE0wMDEUACAAHAAYABQAEAAMAAgAAAAEABQAAAAcAAAAJAAAADAAAAA8AAAAWAIAAFwCAABkAgAABQAAADEuMC4wAAAACgAA"
    "AEFwYWNoZS0yLjAAAAgAAABzb21lYm9keQAAAAABAAAAEAAAAAwAEAAMAAAACAAEAAwAAAAMAAAACAEAAPQBAAACAAAAyAAAABgA"
    "AAAAABIAEAAMAAAAAAAAAAgAAAAEABIAAAAMAAAAbAAAAIgAAAACAAAASAAAABAAAAAMABAADAAAAAsABAAMAAAADAAAAAAAAAIM"
    "AAAAAgAAAGVuAAAKAAAAbGFiZWxzLnR4dAAAAAAKAAwACAAAAAcACgAAAAAAAAQEAAAABwAAAGNhbC5jc3YAAQAAAAQAAAAE////"
    "DAAAAAADBgAIAAQABgAAAAAAAD8GAAAAc2NvcmVzAAAMAAwACAAAAAAABAAMAAAACAAAACAAAACA////EAAAAAAAAAMIAAgAAAAH"
    "AAgAAAAAAAADBQAAAGJveGVzAAAAAQAAABQAAAAQABwAGAAUABAADAAIAAQAEAAAABgAAAAwAAAAfAAAAJAAAACoAAAAtAAAAMj/"
    "//8IAAAADAAAAAEAAAAAAAAAAQAAAAAAf0MBAAAADAAAAAgADAALAAQACAAAABAAAAAAAAABCAAMAAgABAAIAAAACAAAAAwAAAAB"
    "AAAAAAD/QgMAAAAAAMA/AAAgQAAAYEAIAAoACQAEAAgAAAAMAAAAAAIGAAgABwAGAAAAAAAAAQIAAAAQAAAABAAAAAEAAABoAAAA"
    "AQAAAGIAAAAJAAAAdGhlIGlucHV0AAAABQAAAGltYWdlAAAABAAAAG1haW4AAAAAAgAAAHYyAAAFAAAAZmluZHMAAAAKAAAAZMOp"
    "dGVjdGV1cgAA"
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
float32 = st.floats(-1e6, 1e6, width=32)
tensors = st.builds(
    TensorDescription,
    names,
    image_channels=st.sampled_from([0, 1, 3]),
    mean=st.just(()),
    standard_deviation=st.just(()),
    label_file=st.sampled_from(["", "labels.txt"]),
) | st.builds(
    TensorDescription,
    names,
    image_channels=st.just(3),
    mean=st.tuples(float32, float32, float32),
    standard_deviation=st.tuples(float32),
)
fields = st.dictionaries(
    st.sampled_from(["name", "description", "version", "author", "license"]), texts.filter(bool), max_size=5
)


def test_what_another_writer_wrote_is_read() -> None:
    assert unpack_description(BY_TFLITE_SUPPORT) == ModelDescription(
        {
            "name": "détecteur",
            "description": "finds",
            "version": "v2",
            "author": "somebody",
            "license": "Apache-2.0",
        },
        (TensorDescription("image", 3, (1.5, 2.5, 3.5), (127.5,)),),
        (TensorDescription("boxes"), TensorDescription("scores", label_file="labels.txt")),
    )


@given(texts=fields, inputs=st.lists(tensors, max_size=3), outputs=st.lists(tensors, max_size=3))
def test_what_is_written_is_read(
    texts: dict[str, str], inputs: list[TensorDescription], outputs: list[TensorDescription]
) -> None:
    description = ModelDescription(texts, tuple(inputs), tuple(outputs))
    packed = pack_description(description)
    assert unpack_description(packed) == description
    assert pack_description(description) == packed


class Reader:
    """Reads a table of a flatbuffer by field numbers, by the format's own description."""

    def __init__(self, content: bytes, position: int) -> None:
        self.content, self.position = content, position

    def number(self, code: str, position: int) -> Any:
        return struct.unpack_from(f"<{code}", self.content, position)[0]

    def place(self, field: int) -> int:
        fields = self.position - self.number("i", self.position)
        assert 4 + 2 * field < self.number("H", fields)
        offset = self.number("H", fields + 4 + 2 * field)
        assert offset
        return self.position + offset

    def byte(self, field: int) -> int:
        return self.number("B", self.place(field))

    def target(self, field: int) -> int:
        return self.place(field) + self.number("I", self.place(field))

    def table(self, field: int) -> "Reader":
        return Reader(self.content, self.target(field))

    def text(self, field: int) -> str:
        start = self.target(field)
        length = self.number("I", start)
        assert self.content[start + 4 + length] == 0
        return self.content[start + 4 : start + 4 + length].decode()

    def element(self, field: int, index: int) -> "Reader":
        place = self.target(field) + 4 + 4 * index
        assert index < self.number("I", self.target(field))
        return Reader(self.content, place + self.number("I", place))

    def floats(self, field: int) -> list[float]:
        start = self.target(field)
        return [self.number("f", start + 4 + 4 * index) for index in range(self.number("I", start))]


def test_fields_are_where_the_schema_has_them() -> None:
    """The numbers are those of metadata_schema.fbs."""
    content = pack_description(
        ModelDescription(
            {"name": "n", "description": "d", "version": "v", "author": "a", "license": "l"},
            (TensorDescription("grey", 1, (0.5,), (2.0,)),),
            (TensorDescription("scores", label_file="labels.txt"),),
        )
    )
    assert content[4:8] == b"M001"
    model = Reader(content, struct.unpack_from("<I", content)[0])
    assert [model.text(field) for field in (0, 1, 2, 4, 5, 7)] == ["n", "d", "v", "a", "l", "1.0.0"]
    image, scores = (model.element(3, 0).element(field, 0) for field in (2, 3))
    assert (image.text(0), scores.text(0)) == ("grey", "scores")
    assert image.table(3).byte(0) == 2  # ImageProperties
    assert image.table(3).table(1).byte(0) == 2  # GRAYSCALE
    normalization = image.element(4, 0)
    assert normalization.byte(0) == 1  # NormalizationOptions
    assert (normalization.table(1).floats(0), normalization.table(1).floats(1)) == ([0.5], [2.0])
    assert scores.table(3).byte(0) == 1  # FeatureProperties
    assert (scores.element(6, 0).text(0), scores.element(6, 0).byte(2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS


@pytest.mark.parametrize(
    "content", [b"", b"\x1c\0\0\0TFL3" + bytes(40), BY_TFLITE_SUPPORT[:12], BY_TFLITE_SUPPORT[:90]]
)
def test_what_is_no_metadata_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match=r"lacks the mark 'M001'|is damaged"):
        unpack_description(content)
