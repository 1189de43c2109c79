"""What is in a model or a file: layers or operators, dtypes, bytes, and how many weights are zero."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

from tfopt.artifact import content_size_bytes
from tfopt.benchmark.saved_model import newest_version
from tfopt.compression.coding import coded_size_bytes
from tfopt.errors import DataError, ModelError
from tfopt.export.tflite_file import Operator, Tensor, read_tflite
from tfopt.export.tflite_flops import operator_flops
from tfopt.inspection_table import Inspection, Part
from tfopt.model_file import load_model
from tfopt.pruning.sparse_targets import Target, check_target, zeros_use
from tfopt.surgery.flops import layer_cost
from tfopt.surgery.graph import Call, read_graph
from tfopt.surgery.model import check_model

__all__ = ["inspect"]


def inspect(model_or_path: keras.Model | str | Path, *, target: Target | None = None) -> Inspection:
    """Tells what is in a Keras model, a .keras, .h5 or .tflite file, or a SavedModel folder.

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
        raise DataError(f"inspect: {path} does not exist. Give a .keras, .h5 or .tflite file, or a SavedModel folder.")
    if path.suffix in {".keras", ".h5", ".hdf5"}:
        return _inspect_keras(load_model(path), path, target=target)
    return _inspect_saved_model(path, target) if path.is_dir() else _inspect_tflite(path, target)


def _inspect_keras(model: keras.Model, path: Path | None = None, *, target: Target | None) -> Inspection:
    parts = []
    for name, layer, shape, flops in _layers(model):
        arrays = [np.asarray(weight) for weight in getattr(layer, "weights", ())]
        dtypes = ", ".join(dict.fromkeys(str(array.dtype) for array in arrays))
        use = _use_in_keras(layer, target) if target else ""
        parts.append(_part(name, type(layer).__name__, dtypes, shape, arrays, flops, use))
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
    parts = []
    for operator in file.operators:
        constants = [tensor for tensor in operator.inputs if tensor.constant is not None]
        dtypes = " → ".join(
            ", ".join(dict.fromkeys(tensor.dtype.lower() for tensor in tensors if tensor.constant is None))
            for tensors in (operator.inputs, operator.outputs)
        )
        name, shape = (operator.outputs[0].name, operator.outputs[0].shape) if operator.outputs else ("", ())
        arrays = [_constant(tensor) for tensor in constants]
        use = _use_in_tflite(operator, target) if target else ""
        flops = operator_flops(operator)
        parts.append(_part(name.partition(";")[0], operator.name, dtypes, shape, arrays, flops, use))
    remarks = (
        "full integer: no operator, input or output is floating-point"
        if file.is_full_integer
        else f"{sum(operator.is_float for operator in file.operators)} of {len(file.operators)} operators are float",
        *(f"input {name}: {_describe(tensor)}" for name, tensor in file.inputs.items()),
        *(f"output {name}: {_describe(tensor)}" for name, tensor in file.outputs.items()),
        *_totals(parts),
        f"{len(gzip.compress(path.read_bytes(), 9)):,} bytes after gzip",
    )
    return Inspection(str(path), content_size_bytes(path), tuple(parts), remarks, target)


def _use_in_tflite(operator: Operator, target: Target) -> str:
    if operator.name not in {"FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"}:
        return ""
    kernel = next((tensor for tensor in operator.inputs if tensor.constant is not None), None)
    if kernel is None:
        return ""
    weights = _constant(kernel)
    if operator.name == "FULLY_CONNECTED":
        return zeros_use(target, weights, "dense", integer=not kernel.is_float)
    if operator.name == "CONV_2D" and kernel.shape[1:3] == (1, 1):
        return zeros_use(target, weights.reshape(len(weights), -1), "pointwise", integer=not kernel.is_float)
    return zeros_use(target, weights, "other")


def _constant(tensor: Tensor) -> np.ndarray:
    if tensor.dtype in {"INT4", "INT2", "STRING", "BFLOAT16"}:
        return np.frombuffer(tensor.constant or b"", np.uint8)  # packed: counted in bytes
    return tensor.values()


def _describe(tensor: Tensor) -> str:
    grid = f", value = {tensor.scales[0]:.6g} × (q {-tensor.zero_points[0]:+d})" if tensor.scales else ""
    return f"{tensor.dtype.lower()} {list(tensor.shape)}{grid}"


def _inspect_saved_model(path: Path, target: Target | None) -> Inspection:
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
            None,
            "",
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
    return Inspection(str(folder), content_size_bytes(folder), tuple(parts), (*remarks, *_totals(parts)), target)


_BOOKKEEPING = {
    "Const",
    "Identity",
    "NoOp",
    "Placeholder",
    "ReadVariableOp",
    "StatefulPartitionedCall",
    "PartitionedCall",
}


def _part(
    name: str,
    kind: str,
    dtypes: str,
    shape: tuple[int | None, ...],
    arrays: list[np.ndarray],
    flops: int | None,
    zeros_use: str,
) -> Part:
    weights = sum(array.size for array in arrays)
    nonzeros = sum(int(np.count_nonzero(array)) for array in arrays)
    largest = max(arrays, key=lambda array: array.size, default=np.zeros(0))
    return Part(
        name=name,
        kind=kind,
        dtypes=dtypes,
        shape=shape,
        weights=weights,
        nonzeros=nonzeros,
        distinct_values=np.unique(largest).size,
        flops=flops,
        size_bytes=sum(array.nbytes for array in arrays),
        gzip_bytes=len(gzip.compress(b"".join(array.tobytes() for array in arrays))) if arrays else 0,
        coded_bytes=sum(coded_size_bytes(array) for array in arrays),
        zeros_use=zeros_use if nonzeros < weights else "",
    )


def _totals(parts: list[Part]) -> tuple[str, ...]:
    weights = sum(part.weights for part in parts)
    if not weights:
        return ("no weights",)
    zeros = 1 - sum(part.nonzeros for part in parts) / weights
    sizes = " → ".join(
        f"{sum(getattr(part, size) for part in parts):,} bytes{how}"
        for size, how in (("size_bytes", ""), ("gzip_bytes", " after gzip"), ("coded_bytes", " coded"))
    )
    flops = sum(part.flops or 0 for part in parts)
    counted = f", {flops:,} FLOPs" if flops else ""
    uncounted = sum(part.flops is None for part in parts)
    missing = f" without {uncounted} parts that are not counted" if flops and uncounted else ""
    return (f"{weights:,} weights, {zeros:.1%} zeros{counted}{missing}", sizes)
