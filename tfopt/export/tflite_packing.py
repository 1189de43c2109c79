"""Writing a .tflite flatbuffer anew from its tables."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

__all__ = ["pack_tflite", "unpack_tflite"]

FILE_IDENTIFIER = b"TFL3"


def unpack_tflite(content: bytes) -> schema.ModelT:
    """The tables of a .tflite file, with the constants that lie behind its flatbuffer brought into it."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for buffer in model.buffers:
        if buffer.offset > 1:  # as `tfopt.export.tflite_file` reads it
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def pack_tflite(model: schema.ModelT) -> bytes:
    """The content of a .tflite file with these tables.

    References: TensorFlow Lite's schema.fbs.
    """
    builder = _AlignedBuilder()
    builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
    return bytes(builder.Output())


class _AlignedBuilder(flatbuffers.Builder):
    """Starts constants at multiples of 16 bytes, as the schema demands (`force_align`) and Python's builder ignores."""

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:  # noqa: N802, N803
        return super().StartVector(elemSize, numElems, max(alignment, 16))
