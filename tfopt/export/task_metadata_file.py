"""Metadata in a .tflite file: the description within it, the label files in a ZIP archive behind it."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfopt.errors import DataError
from tfopt.export.task_metadata_schema import ModelDescription, TensorDescription, pack_description, unpack_description
from tfopt.export.tflite_writer import pack_tflite, unpack_tflite

__all__ = ["add_metadata", "metadata_remarks", "read_metadata"]

METADATA_NAME = b"TFLITE_METADATA"
"""What readers look for among the notes that a file carries."""
MOST_UNPACKED_BYTES = 1 << 26
"""Of all label files of a model together: a million labels, and no archive that unpacks to a disk's worth of zeros."""


def add_metadata(content: bytes, description: ModelDescription, files: Mapping[str, bytes]) -> bytes:
    """A .tflite file with metadata; its operators, tensors, constants and other notes stay as they are.

    The same arguments give the same bytes.

    Args:
        content: of a file with one signature and no metadata.
        description: what is told; its tensors are brought into the order of the file.
        files: the files it names, stored behind the flatbuffer.

    References: "Adding metadata to LiteRT models".
    """
    model = unpack_tflite(content)
    signature, graph = model.signatureDefs[0], model.subgraphs[0]
    ordered = replace(
        description,
        inputs=_in_order(description.inputs, signature.inputs, graph.inputs),
        outputs=_in_order(description.outputs, signature.outputs, graph.outputs),
    )
    note = schema.MetadataT()
    note.name, note.buffer = METADATA_NAME, len(model.buffers)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(pack_description(ordered), np.uint8)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or ()), note]
    file = io.BytesIO(pack_tflite(model))
    if files:
        with zipfile.ZipFile(file, "a") as archive:
            for name, text in files.items():
                # Stored, as readers demand, and without the time of day.
                archive.writestr(zipfile.ZipInfo(name), text)
    return file.getvalue()


def _in_order(
    descriptions: tuple[TensorDescription, ...], entries: list[schema.TensorMapT], tensors: np.ndarray
) -> tuple[TensorDescription, ...]:
    """Readers tell tensors by their place in the graph, whose order the converter chose."""
    by_name = {one.name: one for one in descriptions}
    by_tensor = {entry.tensorIndex: by_name[entry.name.decode()] for entry in entries}
    return tuple(by_tensor[number] for number in tensors)


def read_metadata(path: Path) -> tuple[ModelDescription, dict[str, bytes]] | None:
    """The description within a .tflite file and the files behind it; None where it has none.

    Args:
        path: a file that `tfopt.export.tflite_file.read_tflite` can read.

    Raises:
        DataError: if the metadata is damaged, or its files unpack to more than 64 MiB.
    """
    content = path.read_bytes()
    try:
        packed = _packed_description(schema.Model.GetRootAs(content, 0))
    except (struct.error, ValueError, TypeError) as error:  # what a damaged offset leads to
        raise DataError(f"{path}: the metadata is damaged: its buffer cannot be read ({error}).") from None
    if packed is None:
        return None
    return unpack_description(packed), _files_behind(path, content)


def _packed_description(model: schema.Model) -> bytes | None:
    for index in range(model.MetadataLength()):
        note = model.Metadata(index)
        if note.Name() == METADATA_NAME:
            if note.Buffer() >= model.BuffersLength():
                raise ValueError(f"there is no buffer {note.Buffer()}")
            return bytes(model.Buffers(note.Buffer()).DataAsNumpy())
    return None


def _files_behind(path: Path, content: bytes) -> dict[str, bytes]:
    """The files of the archive, unpacked in memory, and nowhere else: what their names say does not matter."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
                raise DataError(f"{path}: expected label files behind its metadata, stored or packed by deflate.")
            unpacked_bytes = sum(entry.file_size for entry in entries)
            if unpacked_bytes > MOST_UNPACKED_BYTES:
                raise DataError(
                    f"{path}: expected label files of at most {MOST_UNPACKED_BYTES:,} bytes behind its metadata. "
                    f"Received: files that unpack to {unpacked_bytes:,} bytes. Export the model again, with its labels."
                )
            # Not `archive.read`, which unpacks all that there is, whatever size the entry was counted with.
            return {entry.filename: archive.open(entry).read(entry.file_size) for entry in entries}
    except DataError:
        raise
    except _UNREADABLE as error:
        raise DataError(f"{path}: the files behind its metadata cannot be read ({error}).") from None


_UNREADABLE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)
"""What `zipfile` raises of a damaged archive, and of one behind a password."""


def metadata_remarks(path: Path) -> tuple[str, ...]:
    """What the metadata of a .tflite file says, in lines; none where it has no metadata.

    Args:
        path: as `read_metadata` takes it.

    Raises:
        DataError: if the metadata is damaged.
    """
    found = read_metadata(path)
    if found is None:
        return ()
    description, files = found
    lines = [f"metadata: {', '.join(f'{field} {text!r}' for field, text in description.texts.items()) or 'no texts'}"]
    for tensor in (*description.inputs, *description.outputs):
        if tensor.mean:
            mean, deviation = (_short(numbers) for numbers in (tensor.mean, tensor.standard_deviation))
            lines.append(f"normalization of {tensor.name}: (pixel - {mean}) / {deviation}")
        if tensor.label_file in files:
            labels = files[tensor.label_file].decode(errors="replace").splitlines()
            more = ", …" if len(labels) > 5 else ""
            lines.append(f"{len(labels)} labels of {tensor.name}: {', '.join(labels[:5])}{more}")
        elif tensor.label_file:
            lines.append(f"labels of {tensor.name}: {tensor.label_file}, which the file does not hold")
    return tuple(lines)


def _short(numbers: tuple[float, ...]) -> str:
    texts = [f"{number:g}" for number in numbers]
    return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"
