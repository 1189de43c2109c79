"""Running tf2onnx, and ONNX Runtime's quantizer behind it, in a process of its own.

ONNX Runtime's tools put a folder of theirs on `sys.path`, tf2onnx changes the environment and logs at will, and
TensorFlow leaks memory at every conversion.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tfopt.errors import ExportError
from tfopt.export.converter_process import TIMEOUT_SECONDS, end_with_parent, load_samples, run_converter
from tfopt.export.signature import SIGNATURE

__all__ = ["BATCH", "convert_to_onnx"]

BATCH = "batch"
"""What the open first size of inputs and outputs is called in a file."""


def convert_to_onnx(
    saved_model: Path,
    path: Path,
    *,
    quantization: str,
    inputs: list[str],
    outputs: list[str],
    opset: int,
    calibration: dict[str, np.ndarray] | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> None:
    """Converts a SavedModel with an open batch size to an .onnx file.

    Args:
        saved_model: the folder, with one signature `serving_default`.
        path: the file to write.
        quantization: "none", "float16" or "int8".
        inputs: the names of the signature's inputs in the order they are to have in the file.
        outputs: the names of its outputs, likewise.
        opset: the version of ONNX's operators.
        calibration: for int8, samples by input name, of shape `(n, ...)`.
        timeout_seconds: when to give up.

    Raises:
        ExportError: with the converter's last words, if it fails, crashes or does not end in time.
    """
    options = {"inputs": inputs, "outputs": outputs, "opset": opset}
    run_converter(
        "tfopt.export.onnx_conversion",
        [str(saved_model), str(path), quantization, json.dumps(options)],
        name="The ONNX converter",
        samples=calibration,
        timeout_seconds=timeout_seconds,
    )


def _convert(saved_model: str, path: str, quantization: str, options: str, calibration: str | None = None) -> None:
    from tfopt.export.onnx_quantization import quantize_float16, quantize_int8

    settings = json.loads(options)
    model = _from_saved_model(saved_model, **settings)
    _name_batch_and_order(model, [*settings["inputs"], *settings["outputs"]])
    _shorten_names(model.graph)
    _check_operators(model)
    if quantization == "float16":
        model = quantize_float16(model)
    elif calibration is not None:
        model = quantize_int8(model, load_samples(calibration))
    Path(path).write_bytes(model.SerializeToString())


def _from_saved_model(saved_model: str, *, inputs: list[str], outputs: list[str], opset: int) -> Any:
    import tensorflow as tf
    from tf2onnx.convert import from_function

    loaded = tf.saved_model.load(saved_model)  # its variables live as long as it does
    signature = loaded.signatures[SIGNATURE]
    takes = signature.structured_input_signature[1]

    @tf.function(input_signature=[tf.TensorSpec(takes[name].shape, takes[name].dtype, name=name) for name in inputs])
    def infer(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        return signature(**dict(zip(inputs, tensors, strict=True)))

    model, _ = from_function(infer, infer.input_signature, opset=opset, custom_op_handlers={"Erfc": (_write_erfc, [])})
    _embed_constants(model.graph, infer.get_concrete_function())
    return model


def _embed_constants(graph: Any, function: Any) -> None:
    """Tf2onnx makes constants of variables; a tensor that a layer keeps, as Normalization does, stays an input."""
    from onnx import numpy_helper

    placeholders = function.inputs[len(function.inputs) - len(function.captured_inputs) :]
    kept = {one.name: value for one, value in zip(placeholders, function.captured_inputs, strict=True)}
    for entry in [entry for entry in graph.input if entry.name in kept]:
        graph.initializer.append(numpy_helper.from_array(kept[entry.name].numpy(), entry.name))
        graph.input.remove(entry)


def _name_batch_and_order(model: Any, names: list[str]) -> None:
    """TensorFlow sorts the tensors of a signature by name, and every open size has a name of its own."""
    for values in (model.graph.input, model.graph.output):
        values.sort(key=lambda value: names.index(value.name))
        for value in values:
            for batch in value.type.tensor_type.shape.dim[:1]:
                if not batch.HasField("dim_value"):
                    batch.dim_param = BATCH


def _shorten_names(graph: Any) -> None:
    """Leaves the layers' names, without the calls that they were inlined from: in small files most bytes are names."""
    for values in (graph.input, graph.output, graph.initializer, graph.value_info):
        for value in values:
            value.name = _without_calls(value.name)
    for node in graph.node:
        node.name = _without_calls(node.name)
        for names in (node.input, node.output):
            names[:] = [_without_calls(name) for name in names]
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                _shorten_names(body)


def _without_calls(name: str) -> str:
    return name.replace("StatefulPartitionedCall/", "").replace("PartitionedCall/", "")


def _check_operators(model: Any) -> None:
    """Tf2onnx logs what it cannot convert, and leaves it in the file."""
    from onnx import defs

    unknown = [f"{node.op_type} ({node.name})" for node in model.graph.node if not defs.has(node.op_type, node.domain)]
    if unknown:
        raise ExportError(f"ONNX has no operator for {'; '.join(unknown)}. Build the layer of other operations.")


def _write_erfc(graph: Any, node: Any, name: str, arguments: list[Any]) -> None:
    """ONNX has no `Erfc`, which exact GELU is made of, and tf2onnx would write one all the same: 1 − Erf(x)."""
    from tf2onnx import utils

    dtype, shape = graph.get_dtype(node.output[0]), graph.get_shape(node.output[0])
    one = graph.make_const(utils.make_name("one"), np.array(1, utils.map_onnx_to_numpy_type(dtype)))
    erf = graph.make_node("Erf", node.input, shapes=[shape], dtypes=[dtype])
    graph.remove_node(name)
    graph.make_node(
        "Sub", [one.output[0], erf.output[0]], name=name, outputs=node.output, shapes=[shape], dtypes=[dtype]
    )


if __name__ == "__main__":
    end_with_parent()
    try:
        _convert(*sys.argv[1:])
    except ExportError as error:
        sys.exit(str(error))
