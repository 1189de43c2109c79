"""Writing a .tflite file: what the schema's objects hold, equal vectors once."""

from __future__ import annotations

import hashlib
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

__all__ = ["pack_tflite", "unpack_tflite"]

FILE_IDENTIFIER = b"TFL3"
CONSTANT_ALIGNMENT_BYTES = 16


def unpack_tflite(content: bytes) -> schema.ModelT:
    """The objects of a file, to be changed and written again by `pack_tflite`.

    Constants that lie behind the flatbuffer, as ai-edge-quantizer puts them, are taken into it.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for buffer in model.buffers:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def pack_tflite(model: schema.ModelT) -> bytes:
    """The bytes of a file. Vectors that are equal (constants, shapes, scales) are written once.

    References: TensorFlow Lite's schema.fbs; FlatBuffers, "Internals": any number of offsets may lead to one place.
    """
    builder = _SharingBuilder()
    builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
    return bytes(builder.Output())


class _SharingBuilder(flatbuffers.Builder):
    def __init__(self) -> None:
        super().__init__()
        self._written: dict[tuple[str, bytes], Any] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> Any:  # noqa: N802
        key = (x.dtype.str, hashlib.sha256(x.tobytes()).digest())
        if key not in self._written:
            self._written[key] = super().CreateNumpyVector(x)
        return self._written[key]

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:  # noqa: N802, N803
        # The schema demands it of constants, which are bytes (`force_align`); Python's builder ignores that.
        return super().StartVector(elemSize, numElems, CONSTANT_ALIGNMENT_BYTES if elemSize == 1 else alignment)
