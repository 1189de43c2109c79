"""What is in a model or a file: layers or operators, dtypes, bytes, and how many weights are zero."""

from __future__ import annotations

import gzip
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from tfopt.artifact import content_size_bytes
from tfopt.benchmark.saved_model import newest_version
from tfopt.errors import DataError
from tfopt.export.tflite_file import Tensor, read_tflite
from tfopt.model_file import load_model
from tfopt.surgery.model import check_model

__all__ = ["Inspection", "Part", "inspect"]


@dataclass(frozen=True)
class Part:
    """A layer or an operator.

    Args:
        name: of the layer, or of the tensor that the operator writes.
        kind: class of the layer, or the operator.
        dtypes: of its inputs and outputs, or of its weights.
        shape: of its output.
        weights: how many numbers it holds.
        size_bytes: their bytes.
        zeros: share of them that are zero, in [0, 1]; None where there are none.
    """

    name: str
    kind: str
    dtypes: str
    shape: tuple[int | None, ...]
    weights: int
    size_bytes: int
    zeros: float | None


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found; printing it gives a table.

    Args:
        title: what was inspected.
        size_bytes: of the file or folder; for a model in memory, of its weights.
        parts: layers or operators, in order.
        remarks: facts about the whole.
    """

    title: str
    size_bytes: int
    parts: tuple[Part, ...]
    remarks: tuple[str, ...]

    def table(self) -> Table:
        """The parts as a table for the terminal."""
        table = Table(title=f"{self.title} ({self.size_bytes:,} bytes)", caption="\n".join(self.remarks))
        for heading in ("name", "kind", "dtypes", "shape"):
            table.add_column(heading, overflow="fold", no_wrap=heading == "kind")
        for heading in ("weights", "bytes", "zeros"):
            table.add_column(heading, justify="right")
        for part in self.parts:
            shape = "×".join("?" if size is None or size < 0 else str(size) for size in part.shape)
            zeros = "" if part.zeros is None else f"{part.zeros:.1%}"
            numbers = (f"{part.weights:,}", f"{part.size_bytes:,}") if part.weights else ("", "")
            table.add_row(part.name, part.kind, part.dtypes, shape, *numbers, zeros)
        return table

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=120)
        console.print(self.table())
        return console.file.getvalue()  # type: ignore[attr-defined]


def inspect(model_or_path: keras.Model | str | Path) -> Inspection:
    """Tells what is in a Keras model, a .keras, .h5 or .tflite file, or a SavedModel folder.

    Args:
        model_or_path: the model or the path; of a TF Serving model folder the newest version is taken.

    Raises:
        DataError: if the file is missing, damaged, or of another kind.
        ModelError: if a Keras model or file cannot be used.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden")], name="tiny")
        >>> found = inspect(model)
        >>> found.parts[0].name, found.parts[0].weights, found.size_bytes
        ('hidden', 15, 60)
    """
    if not isinstance(model_or_path, (str, Path)):
        return _inspect_keras(check_model(model_or_path))
    path = Path(model_or_path)
    if not path.exists():
        raise DataError(f"inspect: {path} does not exist. Give a .keras, .h5 or .tflite file, or a SavedModel folder.")
    if path.suffix in {".keras", ".h5", ".hdf5"}:
        return _inspect_keras(load_model(path), path)
    if path.is_dir():
        return _inspect_saved_model(path)
    return _inspect_tflite(path)


def _inspect_keras(model: keras.Model, path: Path | None = None) -> Inspection:
    parts = []
    for layer in model.layers:
        arrays = [np.asarray(weight) for weight in layer.weights]
        output = getattr(layer, "output", None) if not isinstance(layer, keras.Model) else None
        shape = () if output is None or not hasattr(output, "shape") else tuple(output.shape)
        if arrays or not isinstance(layer, keras.layers.InputLayer):
            dtypes = ", ".join(dict.fromkeys(str(array.dtype) for array in arrays))
            parts.append(_part(layer.name, type(layer).__name__, dtypes, shape, arrays))
    size_bytes = sum(part.size_bytes for part in parts) if path is None else content_size_bytes(path)
    return Inspection(str(path or model.name), size_bytes, tuple(parts), _totals(parts))


def _inspect_tflite(path: Path) -> Inspection:
    file = read_tflite(path)
    parts = []
    for operator in file.operators:
        constants = [tensor for tensor in operator.inputs if tensor.constant is not None]
        dtypes = " → ".join(
            ", ".join(dict.fromkeys(tensor.dtype.lower() for tensor in tensors if tensor.constant is None))
            for tensors in (operator.inputs, operator.outputs)
        )
        name, shape = (operator.outputs[0].name, operator.outputs[0].shape) if operator.outputs else ("", ())
        arrays = [_constant(tensor) for tensor in constants]
        parts.append(_part(name.partition(";")[0], operator.name, dtypes, shape, arrays))
    remarks = (
        "full integer: no operator, input or output is floating-point"
        if file.is_full_integer
        else f"{sum(operator.is_float for operator in file.operators)} of {len(file.operators)} operators are float",
        *(f"input {name}: {_describe(tensor)}" for name, tensor in file.inputs.items()),
        *(f"output {name}: {_describe(tensor)}" for name, tensor in file.outputs.items()),
        *_totals(parts),
        f"{len(gzip.compress(path.read_bytes(), 9)):,} bytes after gzip",
    )
    return Inspection(str(path), content_size_bytes(path), tuple(parts), remarks)


def _constant(tensor: Tensor) -> np.ndarray:
    if tensor.dtype in {"INT4", "INT2", "STRING", "BFLOAT16"}:
        return np.frombuffer(tensor.constant or b"", np.uint8)  # packed: counted in bytes
    return tensor.values()


def _describe(tensor: Tensor) -> str:
    grid = f", value = {tensor.scales[0]:.6g} × (q {-tensor.zero_points[0]:+d})" if tensor.scales else ""
    return f"{tensor.dtype.lower()} {list(tensor.shape)}{grid}"


def _inspect_saved_model(path: Path) -> Inspection:
    import tensorflow as tf

    folder = newest_version(path)
    if folder is None:
        raise DataError(f"inspect: {path} is not a SavedModel: it holds no saved_model.pb, nor does a version in it.")
    try:
        loaded = tf.saved_model.load(str(folder))
    except Exception as error:  # whatever the damaged part raises
        raise DataError(f"inspect: the SavedModel {folder} cannot be loaded. TensorFlow says: {error}") from error
    parts = [
        _part(
            variable.path if hasattr(variable, "path") else variable.name,
            "variable",
            variable.dtype.name,
            tuple(variable.shape),
            [variable.numpy()],
        )
        for variable in {id(v): v for s in loaded.signatures.values() for v in s.variables}.values()
    ]
    remarks = []
    for name, signature in loaded.signatures.items():
        takes = ", ".join(
            f"{key} {spec.dtype.name}{spec.shape}" for key, spec in signature.structured_input_signature[1].items()
        )
        gives = ", ".join(f"{key} {t.dtype.name}{t.shape}" for key, t in signature.structured_outputs.items())
        remarks.append(f"{name}: {takes} → {gives}")
        graph = signature.graph.as_graph_def()
        nodes = Counter(node.op for f in graph.library.function for node in f.node_def)
        nodes.update(node.op for node in graph.node)
        computing = [f"{op} {count}" for op, count in nodes.most_common() if op not in _BOOKKEEPING]
        remarks.append("operations: " + ", ".join(computing[:12]))
    return Inspection(str(folder), content_size_bytes(folder), tuple(parts), (*remarks, *_totals(parts)))


_BOOKKEEPING = {
    "Const",
    "Identity",
    "NoOp",
    "Placeholder",
    "ReadVariableOp",
    "StatefulPartitionedCall",
    "PartitionedCall",
}


def _part(name: str, kind: str, dtypes: str, shape: tuple[int | None, ...], arrays: list[np.ndarray]) -> Part:
    weights = sum(array.size for array in arrays)
    nonzero = sum(int(np.count_nonzero(array)) for array in arrays)
    return Part(
        name=name,
        kind=kind,
        dtypes=dtypes,
        shape=shape,
        weights=weights,
        size_bytes=sum(array.nbytes for array in arrays),
        zeros=1 - nonzero / weights if weights else None,
    )


def _totals(parts: list[Part]) -> tuple[str, ...]:
    weights = sum(part.weights for part in parts)
    zeros = sum(part.zeros * part.weights for part in parts if part.zeros is not None)
    if not weights:
        return ("no weights",)
    return (f"{weights:,} weights in {sum(part.size_bytes for part in parts):,} bytes, {zeros / weights:.1%} zeros",)
