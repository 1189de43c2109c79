"""Metadata in a .tflite file: the description within it, the label files in a ZIP archive behind it."""

from __future__ import annotations

import io
import zipfile
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
        DataError: if the metadata is damaged.
    """
    content = path.read_bytes()
    model = schema.Model.GetRootAs(content, 0)
    for index in range(model.MetadataLength()):
        note = model.Metadata(index)
        if note.Name() == METADATA_NAME:
            packed = model.Buffers(note.Buffer()).DataAsNumpy()
            break
    else:
        return None
    files = {}
    if zipfile.is_zipfile(io.BytesIO(content)):
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                files = {name: archive.read(name) for name in archive.namelist()}
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:  # damaged, other packing, a password
            raise DataError(f"{path}: the files behind its metadata cannot be read ({error}).") from None
    return unpack_description(bytes(packed)), files


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
