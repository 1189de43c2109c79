"""Several .tflite files put into one, each as a signature of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ai_edge_litert import schema_py_generated as schema

from tfopt.errors import ExportError
from tfopt.export.tflite_writer import pack_tflite, unpack_tflite

__all__ = ["merge_tflite"]


def merge_tflite(files: Mapping[str, Path]) -> bytes:
    """Puts .tflite files of one signature each into one file that runs any of them.

    A file's subgraphs, constants and operators are taken over as they are; the runtime prepares each signature's
    subgraph alone, so what is not called is not computed.

    Args:
        files: the files by the names that their signatures are to have. The first is what a runtime runs that knows
            no signatures.

    Returns:
        The bytes of the file.

    Raises:
        ExportError: if a file has more than one signature.

    References: TensorFlow Lite's schema.fbs (`Model`, `SignatureDef`).
    """
    merged: schema.ModelT | None = None
    for name, path in files.items():
        model = unpack_tflite(path.read_bytes())
        if len(model.signatureDefs or ()) != 1:
            raise ExportError(
                f"Expected a file with one signature to merge. Received: {path.name}, with "
                f"{len(model.signatureDefs or ())}."
            )
        model.signatureDefs[0].signatureKey = name.encode()
        model.metadata, model.metadataBuffer = [], None  # the converter's notes on its own file
        if merged is None:
            merged = model
        else:
            _append(merged, model)
    if merged is None:
        raise ExportError("Expected at least one file to merge. Received: none.")
    merged.description = b"tfopt early-exit stages"
    return pack_tflite(merged)


def _append(merged: schema.ModelT, model: schema.ModelT) -> None:
    """Appends a model's tables, with what it says by number counted on from those that are there."""
    first_code, first_buffer, first_subgraph = (
        len(table) for table in (merged.operatorCodes, merged.buffers, merged.subgraphs)
    )
    for subgraph in model.subgraphs:
        for tensor in subgraph.tensors:
            tensor.buffer += first_buffer
        for operator in subgraph.operators or ():
            operator.opcodeIndex += first_code
            _move_subgraphs(operator, first_subgraph)
    model.signatureDefs[0].subgraphIndex += first_subgraph
    merged.operatorCodes += model.operatorCodes
    merged.buffers += model.buffers
    merged.subgraphs += model.subgraphs
    merged.signatureDefs += model.signatureDefs


def _move_subgraphs(operator: schema.OperatorT, offset: int) -> None:
    """Control flow names the subgraphs that it runs in its options, in fields such as `thenSubgraphIndex`."""
    for options in (operator.builtinOptions, operator.builtinOptions2):
        for field, value in vars(options).items() if options is not None else ():
            if field.endswith("SubgraphIndex") or field == "subgraph":
                setattr(options, field, value + offset)
