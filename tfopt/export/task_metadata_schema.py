"""The flatbuffer of TFLite metadata: what it says of a model and its tensors, to bytes and back.

Only the tables that describe images, features, labels and normalization are written; what else a file says is not read.

References: metadata_schema.fbs (file identifier M001) of TensorFlow Lite Support and MediaPipe.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import flatbuffers
from flatbuffers import number_types
from flatbuffers.table import Table

from tfopt.errors import DataError

__all__ = ["FILE_IDENTIFIER", "ModelDescription", "TensorDescription", "pack_description", "unpack_description"]

FILE_IDENTIFIER = b"M001"
PARSER_VERSION = "1.0.0"
"""The oldest reader that knows all that is written here."""

_RGB, _GRAYSCALE = 1, 2
_TENSOR_AXIS_LABELS = 2
_FEATURE_PROPERTIES, _IMAGE_PROPERTIES = 1, 2
_NORMALIZATION_OPTIONS = 1


@dataclass(frozen=True)
class TensorDescription:
    """What the metadata says of an input or output.

    Args:
        name: of the tensor.
        image_channels: 3 for an RGB image, 1 for a greyscale one, 0 for what is no image.
        mean: what is subtracted from a pixel, for all channels or for each; empty without a normalization.
        standard_deviation: what the difference is divided by, likewise.
        label_file: the name of the file with a label for each position of the last axis; empty without labels.
    """

    name: str
    image_channels: int = 0
    mean: tuple[float, ...] = ()
    standard_deviation: tuple[float, ...] = ()
    label_file: str = ""


@dataclass(frozen=True)
class ModelDescription:
    """What the metadata says of a model.

    Args:
        texts: "name", "description", "version", "author" and "license", as far as they are known.
        inputs: its inputs, in the order of the file.
        outputs: its outputs, likewise.
    """

    texts: Mapping[str, str]
    inputs: tuple[TensorDescription, ...]
    outputs: tuple[TensorDescription, ...]


_TEXT_FIELDS = {"name": 0, "description": 1, "version": 2, "author": 4, "license": 5}


def pack_description(description: ModelDescription) -> bytes:
    """The flatbuffer.

    Example:
        >>> scores = TensorDescription("scores", label_file="labels.txt")
        >>> description = ModelDescription({"name": "digits"}, (), (scores,))
        >>> unpack_description(pack_description(description)) == description
        True
    """
    builder = flatbuffers.Builder()
    inputs, outputs = (
        _vector(builder, [_pack_tensor(builder, tensor) for tensor in tensors])
        for tensors in (description.inputs, description.outputs)
    )
    subgraph = _table(builder, {2: inputs, 3: outputs})
    fields = {_TEXT_FIELDS[field]: builder.CreateString(text) for field, text in description.texts.items() if text}
    fields[3] = _vector(builder, [subgraph])
    fields[7] = builder.CreateString(PARSER_VERSION)
    builder.Finish(_table(builder, fields), FILE_IDENTIFIER)
    return bytes(builder.Output())


def _pack_tensor(builder: flatbuffers.Builder, tensor: TensorDescription) -> int:
    if tensor.image_channels:
        image = _table(builder, {}, {0: _GRAYSCALE if tensor.image_channels == 1 else _RGB})
        content = _table(builder, {1: image}, {0: _IMAGE_PROPERTIES})
    else:
        content = _table(builder, {1: _table(builder, {})}, {0: _FEATURE_PROPERTIES})
    fields = {0: builder.CreateString(tensor.name), 3: content}
    if tensor.mean:
        options = _table(builder, {0: _floats(builder, tensor.mean), 1: _floats(builder, tensor.standard_deviation)})
        fields[4] = _vector(builder, [_table(builder, {1: options}, {0: _NORMALIZATION_OPTIONS})])
    if tensor.label_file:
        file = _table(builder, {0: builder.CreateString(tensor.label_file)}, {2: _TENSOR_AXIS_LABELS})
        fields[6] = _vector(builder, [file])
    return _table(builder, fields)


def _table(builder: flatbuffers.Builder, offsets: Mapping[int, int], codes: Mapping[int, int] | None = None) -> int:
    """Writes a table: by the number of the field, what was written before, and enumerations of one byte."""
    codes = codes or {}
    builder.StartObject(max((*offsets, *codes), default=-1) + 1)
    for slot, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    for slot, code in codes.items():
        builder.PrependUint8Slot(slot, code, 0)
    return builder.EndObject()


def _vector(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _floats(builder: flatbuffers.Builder, values: Sequence[float]) -> int:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependFloat32(value)
    return builder.EndVector()


def unpack_description(content: bytes) -> ModelDescription:
    """Reads the flatbuffer; of several subgraphs the first.

    Raises:
        DataError: if it is damaged, or none of this schema.
    """
    if content[4:8] != FILE_IDENTIFIER:
        raise DataError(
            f"The metadata lacks the mark '{FILE_IDENTIFIER.decode()}' of its schema. Received: {content[4:8]!r}."
        )
    try:
        model = Table(content, struct.unpack_from("<I", content)[0])
        texts = {field: text for field, slot in _TEXT_FIELDS.items() if (text := _text(model, slot))}
        subgraphs = _tables(model, 3)
        inputs, outputs = (
            tuple(_unpack_tensor(one) for one in _tables(subgraphs[0], slot)) if subgraphs else () for slot in (2, 3)
        )
    except (struct.error, IndexError, ValueError, TypeError) as error:  # what a damaged offset leads to
        raise DataError(f"The metadata is damaged: its flatbuffer cannot be read ({error}).") from None
    return ModelDescription(texts, inputs, outputs)


def _unpack_tensor(tensor: Table) -> TensorDescription:
    channels = 0
    mean: tuple[float, ...] = ()
    standard_deviation: tuple[float, ...] = ()
    content = _field(tensor, 3)
    if content is not None and _code(content, 0) == _IMAGE_PROPERTIES and (image := _field(content, 1)) is not None:
        channels = {_RGB: 3, _GRAYSCALE: 1}.get(_code(image, 0), 0)
    for unit in _tables(tensor, 4):
        if _code(unit, 0) == _NORMALIZATION_OPTIONS and (options := _field(unit, 1)) is not None:
            mean, standard_deviation = _numbers(options, 0), _numbers(options, 1)
    files = [_text(file, 0) for file in _tables(tensor, 6) if _code(file, 2) == _TENSOR_AXIS_LABELS]
    return TensorDescription(_text(tensor, 0), channels, mean, standard_deviation, files[0] if files else "")


def _position(table: Table, slot: int) -> int:
    """Where a field is; 0 where the table has none."""
    offset = table.Offset(4 + 2 * slot)
    return table.Pos + offset if offset else 0


def _text(table: Table, slot: int) -> str:
    position = _position(table, slot)
    return table.String(position).decode() if position else ""


def _code(table: Table, slot: int) -> int:
    position = _position(table, slot)
    return table.Get(number_types.Uint8Flags, position) if position else 0


def _field(table: Table, slot: int) -> Table | None:
    position = _position(table, slot)
    return Table(table.Bytes, table.Indirect(position)) if position else None


def _elements(table: Table, slot: int) -> list[int]:
    """Where the elements of a vector of four bytes each are."""
    position = _position(table, slot)
    if not position:
        return []
    start, count = table.Vector(position - table.Pos), table.VectorLen(position - table.Pos)
    if start + 4 * count > len(table.Bytes):
        raise ValueError(f"a vector of {count} elements reaches beyond the end")
    return [start + 4 * index for index in range(count)]


def _tables(table: Table, slot: int) -> list[Table]:
    return [Table(table.Bytes, table.Indirect(position)) for position in _elements(table, slot)]


def _numbers(table: Table, slot: int) -> tuple[float, ...]:
    return tuple(table.Get(number_types.Float32Flags, position) for position in _elements(table, slot))
