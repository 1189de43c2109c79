"""What is in a model or a file: layers or operators, dtypes, bytes, and how many weights are zero."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np

from tfopt.artifact import content_size_bytes
from tfopt.errors import DataError, ModelError
from tfopt.export.onnx_file import OnnxTensor, read_onnx
from tfopt.export.task_metadata_file import metadata_remarks
from tfopt.export.tflite_file import Tensor, read_tflite
from tfopt.inspection_file import measured_part, onnx_parts, saved_model_parts, tflite_parts
from tfopt.inspection_table import Inspection, Part
from tfopt.model_file import load_model
from tfopt.model_folder import newest_version
from tfopt.pruning.sparse_targets import Target, check_target, zeros_use
from tfopt.surgery.flops import layer_cost
from tfopt.surgery.graph import Call, read_graph
from tfopt.surgery.model import check_model

__all__ = ["inspect"]


def inspect(model_or_path: keras.Model | str | Path, *, target: Target | None = None) -> Inspection:
    """Tells what is in a Keras model, a .keras, .h5, .tflite or .onnx file, or a SavedModel folder.

    For each layer: its weights, how many are zero and how many differ, its FLOPs, and its bytes raw, after gzip and
    Huffman-coded; so it shows what pruning, clustering and quantization saved, and where. With a target also whether
    the zeros make it faster there: mostly they do not.

    Args:
        model_or_path: the model or the path; of a TF Serving model folder the newest version is taken.
        target: one of `tfopt.pruning.sparse_targets.TARGETS`.

    Raises:
        ConfigError: if there is no such target.
        DataError: if the file is missing, damaged, or of another kind.
        ModelError: if a Keras model or file cannot be used.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden")], name="tiny")
        >>> found = inspect(model)
        >>> found.parts[0].name, found.parts[0].weights, found.parts[0].flops, found.size_bytes
        ('hidden', 15, 24, 60)
    """
    if target is not None:
        check_target("inspect: target", target)
    if not isinstance(model_or_path, (str, Path)):
        return _inspect_keras(check_model(model_or_path), target=target)
    path = Path(model_or_path)
    if not path.exists():
        raise DataError(
            f"inspect: {path} does not exist. Give a .keras, .h5, .tflite or .onnx file, or a SavedModel folder."
        )
    if path.suffix in {".keras", ".h5", ".hdf5"}:
        return _inspect_keras(load_model(path), path, target=target)
    if path.suffix == ".onnx":
        return _inspect_onnx(path, target)
    return _inspect_saved_model(path, target) if path.is_dir() else _inspect_tflite(path, target)


def _inspect_keras(model: keras.Model, path: Path | None = None, *, target: Target | None) -> Inspection:
    parts = []
    for name, layer, shape, flops in _layers(model):
        arrays = [np.asarray(weight) for weight in getattr(layer, "weights", ())]
        dtypes = ", ".join(dict.fromkeys(str(array.dtype) for array in arrays))
        use = _use_in_keras(layer, target) if target else ""
        parts.append(measured_part(name, type(layer).__name__, dtypes, shape, arrays, flops, use))
    size_bytes = sum(part.size_bytes for part in parts) if path is None else content_size_bytes(path)
    return Inspection(str(path or model.name), size_bytes, tuple(parts), _totals(parts), target)


def _layers(model: keras.Model) -> Iterator[tuple[str, keras.Operation, tuple[int | None, ...], int | None]]:
    """Each layer, also of nested models, with the shape of its output and its FLOPs."""
    try:
        calls = read_graph(model).calls
    except ModelError:  # subclassed: what it computes is known to its code alone
        for layer in model.layers:
            yield layer.name, layer, (), None
        return
    uses: dict[int, list[Call]] = {}
    for call in calls:
        uses.setdefault(id(call.operation), []).append(call)
    for same in uses.values():
        yield same[0].name, same[0].operation, same[0].output.shape, layer_cost(same).flops


def _use_in_keras(layer: keras.Operation, target: Target) -> str:
    kernel = getattr(layer, "kernel", None)
    if not isinstance(layer, keras.layers.Layer) or kernel is None:
        return ""
    weights = np.asarray(kernel)
    match layer:
        case keras.layers.Dense():
            return zeros_use(target, weights.T, "dense")
        case keras.layers.Conv2D() if layer.kernel_size == (1, 1) and layer.groups == 1:
            return zeros_use(target, weights.reshape(weights.shape[-2:]).T, "pointwise")
    return zeros_use(target, weights, "other")


def _inspect_tflite(path: Path, target: Target | None) -> Inspection:
    file = read_tflite(path)
    parts = tflite_parts(file, target)
    remarks = (
        "full integer: no operator, input or output is floating-point"
        if file.is_full_integer
        else f"{sum(operator.is_float for operator in file.operators)} of {len(file.operators)} operators are float",
        *(f"input {name}: {_describe(tensor)}" for name, tensor in file.inputs.items()),
        *(f"output {name}: {_describe(tensor)}" for name, tensor in file.outputs.items()),
        *metadata_remarks(path),
        *_totals(parts),
        f"{len(gzip.compress(path.read_bytes(), 9)):,} bytes after gzip",
    )
    return Inspection(str(path), content_size_bytes(path), parts, remarks, target)


def _describe(tensor: Tensor) -> str:
    grid = f", value = {tensor.scales[0]:.6g} × (q {-tensor.zero_points[0]:+d})" if tensor.scales else ""
    return f"{tensor.dtype.lower()} {list(tensor.shape)}{grid}"


def _inspect_onnx(path: Path, target: Target | None) -> Inspection:
    file = read_onnx(path)
    parts = onnx_parts(file, target)
    remarks = (
        f"opset {file.opset}",
        "operators: " + ", ".join(f"{name} {count}" for name, count in file.operator_counts.items()),
        *(f"input {name}: {_described(tensor)}" for name, tensor in file.inputs.items()),
        *(f"output {name}: {_described(tensor)}" for name, tensor in file.outputs.items()),
        *_totals(parts),
        f"{len(gzip.compress(path.read_bytes(), 9)):,} bytes after gzip",
    )
    return Inspection(str(path), content_size_bytes(path), parts, remarks, target)


def _described(tensor: OnnxTensor) -> str:
    sizes = ["?" if size is None else str(size) for size in tensor.shape or ()]
    return f"{tensor.dtype} [{', '.join(sizes)}]"


def _inspect_saved_model(path: Path, target: Target | None) -> Inspection:
    import tensorflow as tf

    folder = newest_version(path)
    if folder is None:
        raise DataError(f"inspect: {path} is not a SavedModel: it holds no saved_model.pb, nor does a version in it.")
    try:
        loaded = tf.saved_model.load(str(folder))
    except Exception as error:  # whatever the damaged part raises
        raise DataError(f"inspect: the SavedModel {folder} cannot be loaded. TensorFlow says: {error}") from error
    parts = saved_model_parts(loaded, target)
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
    return Inspection(str(folder), content_size_bytes(folder), parts, (*remarks, *_totals(parts)), target)


_BOOKKEEPING = {
    "Const",
    "Identity",
    "NoOp",
    "Placeholder",
    "ReadVariableOp",
    "StatefulPartitionedCall",
    "PartitionedCall",
}


def _totals(parts: Sequence[Part]) -> tuple[str, ...]:
    total = Part.total(parts)
    if total.zeros is None:
        return ("no weights",)
    sizes = f"{total.size_bytes:,} bytes → {total.gzip_bytes:,} bytes after gzip → {total.coded_bytes:,} bytes coded"
    counted = f", {total.flops:,} FLOPs" if total.flops else ""
    uncounted = sum(part.flops is None for part in parts)
    missing = f" without {uncounted} parts that are not counted" if counted and uncounted else ""
    return (f"{total.weights:,} weights, {total.zeros:.1%} zeros{counted}{missing}", sizes)
