"""Taking out of a .tflite file what no runtime reads.

The converter names a tensor after all operations that it was made from: each of the 61 outputs of the UNPACK before an
unrolled LSTM bears 61 names. It also gives each tensor a buffer, a shape and scales of its own, where many are equal.
In files of many small operators this is more than the weights.
"""

from __future__ import annotations

from ai_edge_litert import schema_py_generated as schema

from tfopt.export.tflite_writer import pack_tflite, unpack_tflite
from tfopt.surgery.graph import unique_name

__all__ = ["compacted"]


def compacted(content: bytes) -> bytes:
    """Returns a smaller file of the same operators, tensors and constants, in the same order.

    A tensor keeps the first of its names, with a number where another tensor has it. Equal vectors are written once,
    and tensors that are computed share the empty buffer.

    Args:
        content: the bytes of a .tflite file.

    References: TensorFlow Lite's schema.fbs (`Tensor.buffer`, `Model.buffers`).
    """
    model = unpack_tflite(content)
    for subgraph in model.subgraphs:
        taken: set[str] = set()
        for tensor in subgraph.tensors:
            tensor.name = unique_name((tensor.name or b"").decode().partition(";")[0], taken).encode()
    _share_the_empty_buffer(model)
    return pack_tflite(model)


def _share_the_empty_buffer(model: schema.ModelT) -> None:
    """The schema reserves buffer 0 for it."""
    filled = (index for index, buffer in enumerate(model.buffers) if buffer.data is not None and len(buffer.data))
    kept = [0, *filled]
    places = {index: place for place, index in enumerate(kept)}
    for user in (*(tensor for subgraph in model.subgraphs for tensor in subgraph.tensors), *(model.metadata or ())):
        user.buffer = places.get(user.buffer, 0)
    model.metadataBuffer = None  # the older form of the metadata, which readers pass over
    model.buffers = [model.buffers[index] for index in kept]
